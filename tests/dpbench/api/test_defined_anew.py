"""Parts that a notebook defines, edits and defines again: the newest counts, and no older result is kept."""

import importlib
import sys
import types

import pytest
import torch
from torch import nn

import attacks
import dpbench
from tests.helpers.registries import as_in_a_new_process

ATTACK = """
import torch
from attacks.base import Attack, attack
from attacks import labels
from dpbench.protocol import Reconstruction, parameter

@attack("grey-of-mine")
class Grey(Attack):
    noise_floor = False
    level: float = parameter(LEVEL, "HELP", at_least=0, at_most=1)

    def run(self, task):
        classes, source = labels.given_or_inferred(task.release, task.knowledge)
        images = torch.full((task.release.batch_size, *task.knowledge.image_shape), self.level)
        return Reconstruction(images=images, labels=classes, label_source=source, gradient_distance=0.0,
                              start=images, iterations=0, seconds=task.seconds())
"""
METRIC = """
from dpbench.metrics import metric
from dpbench.store import Column

@metric("lightness_of_mine", columns=(Column("lightness_of_mine", "float64", "measured", "mean"),))
def lightness(scored):
    return {"lightness_of_mine": FACTOR * scored.images.flatten(1).mean(1)}
"""
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
IMAGES, LABELS = torch.rand(2, 3, 4, 4), torch.tensor([0, 1])


@pytest.fixture(autouse=True)
def registries():
    with as_in_a_new_process():
        yield


@pytest.fixture
def cell(monkeypatch):
    """Runs code in one module that has no file, as the cells of a notebook do."""
    module = types.ModuleType("cells_of_mine")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return lambda code, **words: exec(filled(code, **words), vars(module))


def filled(code, **words):
    for word, value in words.items():
        code = code.replace(word, str(value))
    return code


def run(out):
    table = dpbench.benchmark(MODEL, IMAGES, LABELS, attacks="grey-of-mine", out=out, progress=False)
    return table[table["attack"] == "grey-of-mine"]


@pytest.mark.filterwarnings("ignore:.*of other code:RuntimeWarning")
@pytest.mark.usefixtures("bare_exports")
def test_a_cell_that_is_edited_and_run_again_counts(cell, tmp_path):
    cell(ATTACK, LEVEL=0.5, HELP="how light grey-of-mine is")
    first = run(tmp_path / "out")["psnr"]
    cell(ATTACK, LEVEL=0.2, HELP="grey of grey-of-mine, edited")
    second = run(tmp_path / "out")["psnr"]
    wanted = -10 * (IMAGES - 0.2).square().flatten(1).mean(1).log10()
    assert second.tolist() == pytest.approx(wanted.tolist(), abs=1e-3)
    assert (first.to_numpy() != second.to_numpy()).all()


@pytest.mark.filterwarnings("ignore:.*of other code:RuntimeWarning")
def test_a_metric_that_is_added_or_edited_is_measured(cell, tmp_path):
    cell(ATTACK, LEVEL=0.5, HELP="how light grey-of-mine is")
    assert "lightness_of_mine" not in run(tmp_path / "out")
    for factor in (1, 2):
        cell(METRIC, FACTOR=factor)
        assert run(tmp_path / "out")["lightness_of_mine"].tolist() == pytest.approx([0.5 * factor] * 2)


def test_a_module_may_be_loaded_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "module_of_mine.py"
    file.write_text(filled(ATTACK, LEVEL=0.5, HELP="how light grey-of-mine is"))
    module = importlib.import_module("module_of_mine")
    file.write_text(filled(ATTACK, LEVEL=0.25, HELP="how light grey-of-mine is"))
    importlib.reload(module)
    assert attacks.create("grey-of-mine").level == 0.25


def test_a_name_stays_with_the_definition_that_has_it(cell):
    cell(ATTACK, LEVEL=0.5, HELP="how light grey-of-mine is")
    with pytest.raises(ValueError, match=r"registered already: cells_of_mine\.Grey"):
        cell(ATTACK.replace("class Grey", "class Gray"), LEVEL=0.5, HELP="how light grey-of-mine is")
