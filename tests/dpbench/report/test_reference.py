"""Results of version 0.1 still make tables and plots."""

import io
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console

import dpbench
from dpbench.report.exceedances import exceedances
from dpbench.report.plots import plots
from dpbench.report.sentence import sentence
from dpbench.report.tables import rich_table, to_markdown, to_tex
from dpbench.store import Store

ROOT = Path(__file__).parents[3] / "results" / "reference"
FOLDERS = sorted(
    {file.parent for name in ("results.csv", "results.parquet") for file in ROOT.glob(f"*/{name}")}
)


def test_there_are_reference_results():
    assert len(FOLDERS) > 10


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_old_results_are_still_reported(folder):
    table = dpbench.load(folder)
    assert len(table)
    assert table["floor"].notna().equals(table["attack"].str.startswith("floor:").astype(bool))
    for text in (to_markdown(table), to_tex(table)):
        for attack in table.loc[table["floor"].isna(), "attack"].unique():
            assert attack in text
    said = sentence(table)
    assert "nothing to say" not in said
    assert said.endswith(".")
    assert exceedances(table) == []
    drawn = [_drawn(draw(table, Store(folder))) for draw in plots.values()]
    assert any(drawn)


def _drawn(figure):
    if figure is None:
        return False
    FigureCanvasAgg(figure).draw()
    return True


def test_the_readme_shows_what_a_terminal_shows_of_the_main_run():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(rich_table(dpbench.load(ROOT / "main")))
    readme = (ROOT.parents[1] / "README.md").read_text(encoding="utf-8")
    shown = readme.split("```\nBudget of a training")[1].split("\n```")[0]
    assert console.export_text().startswith(f"Budget of a training{shown}\n\nmodel convnet")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_no_number_of_a_reference_is_cut(folder):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(rich_table(dpbench.load(folder)))
    text = console.export_text()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
