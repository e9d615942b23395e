"""A run's folder may hold anything: it counts as damaged or is one sentence, never a traceback."""

from __future__ import annotations

import json
import os
import warnings
import zlib

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from dpbench.protocol import InputError
from dpbench.store import Store, columns, load, open_run
from dpbench.sweep.status import describe

NAMES = st.sampled_from(["key", "psnr", "image", "status", "error", "identified", "unknown"])
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from(["a", "failed", "\ud800", "\x1b[31m", "\n"]),
)
ANY = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3)
)
ROWS = st.one_of(ANY, st.lists(st.dictionaries(NAMES, ANY, max_size=4).map(lambda row: {"key": "a"} | row)))


def cell(rows) -> bytes:
    text = json.dumps(rows)
    sums = {"rows": text, "rows_crc32": str(zlib.crc32(text.encode())), "pixels_crc32": "0"}
    return save({}, metadata=sums)


@pytest.fixture
def run(tmp_path) -> Store:
    store = open_run(tmp_path / "run", {})
    store.expect([("a", "first"), ("good", "second")])
    store.write("good", [{"attack": "dlg", "defense": "none", "psnr": 1.0, "image": 0}])
    (store.path / "failed").mkdir()
    return store


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_rows_of_any_kind(run, rows):
    for folder in ("cells", "failed"):
        (run.path / folder / "a.safetensors").write_bytes(cell(rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done, table, said = run.has("a"), run.frame(), describe(run.path)
    assert list(table.columns)[: len(columns())] == list(columns())
    assert "good" in set(table["key"])
    assert done or "a" not in set(table["key"])  # what counts as missing is in no table
    assert len(table) == 1 + (len(rows) if done else 0)
    (run.path / "cells" / "a.safetensors").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = describe(run.path)  # why it failed is among the rows
    assert "\x1b" not in said
    assert "1 failed" in said


@pytest.mark.parametrize(
    "row", [{"psnr": "1 dB"}, {"image": 2**64}, {"image": 1.5}, {"error": "\ud800"}, {"x": []}]
)
def test_a_value_of_another_type_is_damage(run, row):
    (run.path / "cells" / "a.safetensors").write_bytes(cell([{"key": "a"} | row]))
    with pytest.warns(RuntimeWarning, match=r"a\.safetensors is damaged.*schema"):
        assert not run.has("a")


def test_a_copy_under_another_key_is_damage(run):
    data = (run.path / "cells" / "good.safetensors").read_bytes()
    (run.path / "cells" / "a.safetensors").write_bytes(data)
    with pytest.warns(RuntimeWarning, match="another cell"):
        assert run.done() == {"good"}


def test_names_that_are_no_keys_are_no_cells(run):
    data = (run.path / "cells" / "good.safetensors").read_bytes()
    (run.path / "cells" / "good (copy).safetensors").write_bytes(data)
    (run.path / "cells.csv").write_text("good,x\n../evil,y\n")
    assert run.done() == {"good"}
    assert run.keys() == ["good"]
    assert run.expected() == {"good": "x"}
    assert len(run.frame()) == 1


def test_pipes_are_not_waited_for(run):
    os.mkfifo(run.path / "cells" / "a.safetensors")
    (run.path / "cells.csv").unlink()
    os.mkfifo(run.path / "cells.csv")
    with pytest.warns(RuntimeWarning, match="not a file"):
        assert run.done() == {"good"}
    assert run.expected() == {}


def test_a_file_where_a_folder_belongs(run):
    for name in ("failed", "running"):
        (run.path / name).rmdir() if (run.path / name).exists() else None
        (run.path / name).write_text("")
        with pytest.raises(InputError, match="file where a folder belongs"):
            describe(run.path)
        (run.path / name).unlink()


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"a": [1]}),
        pd.DataFrame({"attack": [1], "defense": ["none"], "psnr": ["x"]}),
        pd.DataFrame({"attack": ["dlg"], "defense": ["none"], "image": [1.5]}),
        pd.DataFrame({"attack": [[1]], "defense": ["none"], "floor": [{"a": 1}], "psnr": [[1.0, 2.0]]}),
    ],
)
def test_a_table_that_is_none_of_ours(run, tmp_path, table):
    table.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"^[^\n]*no readable Parquet file of results[^\n]*$"):
        load(tmp_path / "x.parquet")


@pytest.mark.parametrize("line", ["rubbish\n", ",none,12.5\n", "dlg\n"])
def test_a_line_that_names_no_attack_or_defence(tmp_path, line):
    """Added by hand, or cut off: `compare` and the page ended in tracebacks."""
    (tmp_path / "x.csv").write_text(f"attack,defense,psnr\ndlg,none,20\n{line}")
    with pytest.raises(InputError, match=r"\(its row 2 has no attack or no defense\): undo what was changed"):
        load(tmp_path / "x.csv")


def test_text_that_is_not_utf8_is_kept_as_what_can_be(run):
    name = os.fsdecode(b"caf\xe9")
    run.write("a", [{"error": name, "status": "ok", "image": 0}])
    assert run.read("a").rows[0]["error"] == "caf?"
    assert len(run.frame()) == 2
    run.expect([("a", name)])
    assert "caf" in run.expected()["a"]
    with pytest.raises(InputError, match="not UTF-8"):
        open_run(run.path.parent / "other", {"weights": name})


def test_escapes_of_a_run_do_not_reach_the_terminal(run):
    red = "\x1b[31m"
    run.write("a", [{"status": "failed", "error": f"{red}bad\n0 failed"}])
    run.expect([("a", f"{red}first"), ("good", "second")])
    (run.path / "config.toml").write_text('version = "\\u001b[31m1"\n')
    said = describe(run.path)
    assert "\x1b" not in said
    assert "bad 0 failed" in said
    assert "first" in said
    (run.path / "cells" / "a.safetensors").write_bytes(cell([{"key": "a", "psnr": f"{red}x"}]))
    with pytest.warns(RuntimeWarning) as caught:
        run.has("a")
    assert "\x1b" not in str(caught[0].message)
