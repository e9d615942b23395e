"""Everything that is written into a run's folder, plots of third parties included."""

import importlib.util
import json
from importlib.metadata import EntryPoint

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

from dpbench.protocol import Registry
from dpbench.report import export as module
from dpbench.report.export import export, export_data
from dpbench.report.plots import plots, registry
from dpbench.report.plots.files import KINDS
from dpbench.store import load, open_run

pytestmark = pytest.mark.usefixtures("figures_in_all_files")


@pytest.fixture
def store(make_run, tmp_path):
    run = open_run(tmp_path / "run", {})
    for key, part in make_run().groupby("key"):
        pictures = np.full((len(part), 3, 8, 8), 0.5)
        run.write(key, part.to_dict("records"), pictures, pictures)
    return run


@pytest.fixture
def mine(monkeypatch):
    """The plots that a test names, forgotten after it; that all of ours are drawn, `test_run` holds."""
    found = Registry("plot")
    monkeypatch.setattr(module, "plots", found)
    return found


def test_data_tables_and_plots_are_written(store, mine):
    for name in ("leakage.png", "reconstructions.png"):
        mine.add(name, plots[name])
    files = export(store, store.frame())
    names = [file.name for file in files]
    assert names[:4] == ["results.parquet", "results.csv", "summary.csv", "environment.json"]
    assert names[4:6] == ["table.md", "table.tex"]
    assert names[-1] == "report.html"
    top = [file.name for file in files[6:-1] if file.parent == store.path]
    assert top.pop() == "dpbench-entry.json"
    assert set(top) == set(mine)
    wanted = {f"{name[:-4]}{width}.{kind}" for name in top for width in ("", "-column") for kind in KINDS}
    assert {file.name for file in (store.path / "plots").iterdir()} == wanted
    there = [*store.path.iterdir(), *(store.path / "plots").iterdir()]
    assert sorted(files) == sorted(p for p in there if p.is_file() and p.suffix != ".toml")
    assert all(file.read_bytes()[:4] == b"\x89PNG" for file in files if file.suffix == ".png")
    assert "inverting-gradients" in (store.path / "table.md").read_text(encoding="utf-8")
    assert "python" in json.loads((store.path / "environment.json").read_text())
    pd.testing.assert_frame_equal(load(store.path), store.frame())
    assert [file.name for file in export_data(store)] == names[:4]


def test_a_third_party_has_a_plot_with_one_decorator(store, mine):
    @mine.register("images.svg")
    def images(table, store):
        figure = matplotlib.figure.Figure(layout="constrained")
        figure.subplots().plot(table["image"])
        return figure

    made = [file for file in export(store) if file.stem.startswith("images")]
    assert [str(file.relative_to(store.path)) for file in made] == [
        "images.svg",
        *(f"plots/images{width}.{kind}" for width in ("", "-column") for kind in KINDS),
    ]
    for file in made:
        if file.suffix == ".svg":
            wide = 3.3 if "column" in file.name else 6.4  # Matplotlib's own width stays where it may
            assert f'width="{72 * wide:g}pt"' in file.read_text()


def test_plots_are_found_by_their_entry_point(monkeypatch):
    entry = EntryPoint("theirs.png", "dpbench.report.plots.leakage:leakage", "dpbench.plots")
    monkeypatch.setattr(
        "dpbench.protocol.registry.entry_points", lambda group: [entry] if group == "dpbench.plots" else []
    )
    spec = importlib.util.spec_from_file_location("fresh", registry.__file__)
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    assert list(fresh.plots) == ["theirs.png"]
    assert callable(fresh.plots["theirs.png"])


def test_a_plot_that_breaks_costs_nothing_else(store, mine):
    mine.add("reconstructions.png", plots["reconstructions.png"])

    @mine.register("broken.png")
    def broken(table, store):
        raise KeyError("a column that is not there")

    with pytest.warns(RuntimeWarning, match=r"broken\.png was not drawn: KeyError: 'a column"):
        files = export(store)
    assert "reconstructions.png" in [file.name for file in files]
    assert not (store.path / "broken.png").exists()


def test_axes_are_no_figure(store, mine):
    mine.register("axes.png")(lambda table, store: matplotlib.figure.Figure().subplots())
    with pytest.warns(
        RuntimeWarning, match=r"TypeError: A plot must return a Matplotlib figure or None, not A"
    ):
        export(store)


def test_a_plot_that_changes_its_table_changes_no_other_file(store, mine):
    export(store)
    names = ("summary.csv", "table.md", "results.csv", "dpbench-entry.json")
    before = [(store.path / name).read_bytes() for name in names]

    @mine.register("greedy.png")
    def greedy(table, store):
        table["psnr"] = table["psnr"].clip(upper=1)
        del table["lpips"]

    export(store)
    assert [(store.path / name).read_bytes() for name in names] == before


def test_a_plot_of_an_earlier_state_does_not_stay(store, mine):
    @mine.register("sometimes.png")
    def sometimes(table, store):
        return matplotlib.figure.Figure() if len(table) > 20 else None

    export(store, store.frame())
    assert (store.path / "sometimes.png").exists()
    assert len([*(store.path / "plots").glob("sometimes*")]) == 6
    export(store, store.frame()[:5])
    assert not [*store.path.rglob("sometimes*")]
