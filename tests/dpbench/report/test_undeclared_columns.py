"""Settings of a plug-in that is not loaded are never taken for one."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from dpbench.protocol import InputError
from dpbench.report import entries
from dpbench.report.compare import runs
from dpbench.report.entries.check import check
from dpbench.report.page import folder
from dpbench.store import Column, Store, columns, load, schema

REFERENCE = Path(__file__).parents[3] / "results" / "reference" / "main"


@pytest.fixture
def kept(tmp_path):
    """A run's folder whose rows have one more column, of these two values in turn."""

    def write(first, second, version="0.2.0"):
        shutil.copytree(REFERENCE, tmp_path / "main")
        table = pd.read_csv(tmp_path / "main" / "results.csv", dtype=str)
        table["keep"] = [(first, second)[i % 2] for i in range(len(table))]
        table["version"] = version
        table.to_csv(tmp_path / "main" / "results.csv", index=False)
        return tmp_path / "main"

    return write


@pytest.mark.parametrize("read", [folder.read, lambda path: runs.read([str(path), str(REFERENCE)])])
def test_settings_that_nothing_declares_are_refused(kept, read):
    with pytest.raises(InputError, match="has the column keep of a plug-in that is not loaded"):
        read(kept("0.2", "0.8"))


@pytest.mark.parametrize("told", [("0.2", "0.2"), ("0.2", "0.8", "0.1.0")], ids=["one value", "old version"])
def test_what_tells_no_rows_of_this_version_apart_is_read(kept, told):
    assert len(folder.read(kept(*told))[1]) == len(load(REFERENCE))


@pytest.mark.parametrize("second", ["0.2", "0.8"])
def test_an_entry_with_them_is_not_checked_and_not_at_fault(kept, second):
    path = kept("0.2", second)
    found = check(entries.write(Store(path), load(path)))
    assert found.faults == ()
    assert "the plug-in with the column keep is not loaded: no result was checked" in found.unchecked


def test_an_interrupted_run_is_refused_like_a_finished_one(tmp_path, monkeypatch):
    """Its rows are those of its cells; the plug-in is loaded while it runs, and not when it is read."""
    shutil.copy(REFERENCE / "config.toml", tmp_path)
    store = Store(tmp_path)
    with monkeypatch.context() as loaded:
        keep = Column("keep", "float64", "own", "share")
        loaded.setattr(schema, "columns", lambda: columns() | {"keep": keep})
        for i, value in enumerate((0.2, 0.8)):
            row = {"version": "0.2.0", "attack": "dlg", "defense": "mine", "keep": value, "status": "ok"}
            store.write(f"cell{i}", [row])
    assert load(tmp_path)["keep"].tolist() == [0.2, 0.8]
    with pytest.raises(InputError, match="has the column keep of a plug-in that is not loaded"):
        folder.read(tmp_path)
