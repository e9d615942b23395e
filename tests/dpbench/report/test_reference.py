"""Results of version 0.1 still make tables and plots."""

import functools
import io
import re
import shutil
import subprocess
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
from dpbench.system.once import kept

ROOT = Path(__file__).parents[3] / "results" / "reference"
FOLDERS = sorted(
    {file.parent for name in ("results.csv", "results.parquet") for file in ROOT.glob(f"*/{name}")}
)


@pytest.fixture(scope="module", autouse=True)
def as_in_an_export():
    """What tables, sentences and plots ask of the same results is computed once."""
    with kept():
        yield


@functools.cache
def loaded(folder):
    return dpbench.load(folder)


def test_there_are_reference_results():
    assert len(FOLDERS) > 10


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_old_results_are_still_reported(folder):
    table = loaded(folder)
    assert len(table)
    assert table["floor"].notna().equals(table["attack"].str.startswith("floor:").astype(bool))
    # in the tables themselves: the notes below them name attacks, too
    names = re.findall(r"^\| ([^ |]+)", to_markdown(table), re.MULTILINE)
    tabulars = " ".join(re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", to_tex(table), re.DOTALL))
    for attack in table.loc[table["floor"].isna(), "attack"].unique():
        assert attack in names
        assert attack in tabulars
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
    console.print(rich_table(loaded(ROOT / "main")))
    readme = (ROOT.parents[1] / "README.md").read_text(encoding="utf-8")
    shown = readme.split("```\nBudget of a training")[1].split("\n```")[0]
    assert console.export_text().startswith(f"Budget of a training{shown}\n\nmodel convnet")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_no_number_of_a_reference_is_cut(folder):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(rich_table(loaded(folder)))
    text = console.export_text()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_no_latex_table_is_higher_than_a_page_and_every_sign_has_a_command(folder):
    table = loaded(folder)
    text = to_tex(table)
    tabulars = re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", text, re.DOTALL)
    assert max(each.count(r" \\" + "\n") for each in tabulars) <= 45
    for each in tabulars:
        assert each.count(r"\toprule") == each.count(r"\bottomrule") == 1
        assert r"\multicolumn" in each.split(r"\midrule")[1]  # the title of a section, again where it goes on
    numbers = [line for line in to_markdown(table).splitlines() if re.search(r"\d+/\d+ *\|", line)]
    assert len(re.findall(r"& [\d.]+/\d+(?: &| \\)", text)) >= len(numbers)  # no row is lost on the way
    assert "[U+" not in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
@pytest.mark.parametrize("name", ["main", "epsilon", "loki", "malicious-linear", "exact-convnet"])
def test_latex_tables_fit_an_article(name, tmp_path):
    """Neither wider than its 345 pt nor higher than its page."""
    body = to_tex(loaded(ROOT / name))
    lines = ["\\documentclass{article}\\usepackage{booktabs}\\begin{document}", body, "\\end{document}"]
    (tmp_path / "t.tex").write_text("\n".join(lines), encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in (tmp_path / "t.log").read_text(errors="replace")
