"""What is in `examples/` is short, runs as it stands, keeps the contract, and works with everything else."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

import attacks
import defenses
import dpbench
from dpbench.audit.__main__ import main as audit
from dpbench.cell import registered
from dpbench.run import main
from tests.helpers.exports import FIGURES_IN_ONE_FILE
from tests.helpers.registries import as_in_a_new_process

EXAMPLES = Path(__file__).parents[1] / "examples"
FILES = sorted(EXAMPLES.glob("*.py"))
ATTACK, DEFENCE = str(EXAMPLES / "own_attack.py"), str(EXAMPLES / "own_defense.py")
SMALL = ["--model", "lenet", "--victim", "untrained", "--batch-size", "1", "--iterations", "2"]
SMALL += ["--device", "cpu", "--quiet"]


@pytest.fixture(autouse=True)
def as_in_a_process_of_its_own():
    with as_in_a_new_process():
        yield
        for file in FILES:
            sys.modules.pop(file.stem, None)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_is_short_and_runs_as_it_stands(file, capsys):
    assert len(file.read_text().splitlines()) < 40
    runpy.run_path(str(file), run_name="__main__")
    assert "psnr" in capsys.readouterr().out


def test_examples_keep_the_contract():
    registered.load([ATTACK, DEFENCE])
    dpbench.testing.check_attack(attacks.kind("least-squares"))
    dpbench.testing.check_defense(*defenses.stages("q8"))


@pytest.mark.parametrize("plugins", [(ATTACK, DEFENCE), (DEFENCE, ATTACK)], ids=["attack", "defence"])
def test_an_attack_and_a_defence_of_ones_own_meet_in_any_order(plugins, tmp_path):
    words = ["--plugin", *plugins, "--attack", "least-squares", "dlg", "--defense", "q8", "clip+q8"]
    assert main([*words, "--bits", "2", "8", *SMALL, "--out", str(tmp_path / "out")]) == 0
    table = dpbench.load(tmp_path / "out")
    assert (table["status"] == "ok").all()
    rows = table[table["floor"].isna()]
    found = set(zip(rows["attack"], rows["defense"], rows["bits"].fillna(0), strict=True))
    defended = {(d, b) for d in ("q8", "clip+q8") for b in (2, 8)} | {("none", 0)}
    assert found == {(a, *d) for a in ("least-squares", "dlg") for d in defended}
    assert rows["psnr_floor"].notna().all()


def test_the_audit_takes_it_with_its_parameter(capsys):
    words = ["--plugin", DEFENCE, "--defense", "q8", "--bits", "2", "--releases", "400"]
    assert audit([*words, "--claimed-eps", "0.1"]) == 1  # it hides nothing
    assert "q8" in capsys.readouterr().out


def test_error_feedback_makes_up_for_the_rounding():
    """The mean of 64 releases is ten times as close to the gradient as the first one."""
    registered.load([DEFENCE])
    gradient = (torch.randn(50, generator=torch.Generator().manual_seed(0)),)
    (stage,) = defenses.create("q8", bits=2).stages
    sent = torch.stack([each[0] for each in stage.process_all([gradient] * 64, torch.Generator())])
    once, mean = (sent[0] - gradient[0]).norm(), (sent.mean(0) - gradient[0]).norm()
    assert mean < 0.1 * once


def test_the_notebook_runs_from_install_to_frontier(tmp_path):
    (file,) = EXAMPLES.glob("*.ipynb")
    notebook = nbformat.read(file, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)  # committed as it was written
    for cell in code:
        cell.source = re.sub(r"iterations=\d+", "iterations=5", cell.source)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(FIGURES_IN_ONE_FILE))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    found = next(output.data["text/plain"] for output in code[3].outputs if "data" in output)
    assert "inverting-gradients" in found
    assert "image/png" in code[-1].outputs[-1].data
    assert {"report.html", "frontier.png"} <= {path.name for path in (tmp_path / "frontier").iterdir()}
