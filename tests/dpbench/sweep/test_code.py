"""The hash in a cell's key covers the attack, the defence, the threat model, all metrics and the victim."""

from __future__ import annotations

import importlib
import sys

import pytest

import attacks
import defenses
from dpbench import metrics
from dpbench.cell.threats import threat_models
from dpbench.sweep import inputs
from dpbench.system import source
from tests.helpers.cells import cell

PARTS = {
    "attack": "class Part(Attack):\n    def run(self, task): return {}\n",
    "defence": "@dataclass(frozen=True)\nclass Part(PostProcessor):"
    "\n    def process(self, g, _): return {}\n",
    "threat": "class Part(ThreatModel):\n    def run(self, cell, scene, progress=None): return {}\n",
    "metric": "def Part(scored): return {}\n",
    "network": "def Part(classes): return {}\n",
}
IMPORTS = """
from dataclasses import dataclass
from attacks import Attack
from defenses import PostProcessor
from dpbench.cell.threat_model import ThreatModel
from blackhouse.shared import FACTOR
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    """The hash of a cell of five parts; `changed` is edited: one of them, or `shared`, which all import."""
    folder = tmp_path / "blackhouse"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))

    def found(changed: str = "") -> str:
        forget()
        (folder / "__init__.py").write_text("")
        (folder / "shared.py").write_text(f"FACTOR = {2 if changed == 'shared' else 1}\n")
        made = {}
        for name, text in PARTS.items():
            text = IMPORTS + text.format("FACTOR + 1" if changed == name else "FACTOR")
            (folder / f"{name}.py").write_text(text)
            importlib.invalidate_caches()
            made[name] = importlib.import_module(f"blackhouse.{name}").Part
        _ = [list(each) for each in registries()]  # entry points first
        attack, defence, threat, metric = registries()
        monkeypatch.setitem(attack._items, "black", made["attack"])
        monkeypatch.setitem(defence._items, "black", made["defence"])
        monkeypatch.setitem(threat._items, "black", made["threat"])
        monkeypatch.setitem(metric._items, "black", made["metric"])
        return inputs.code_of(cell("black", "black", "black"), made["network"])

    yield found
    forget()


def registries():
    return attacks.attacks, defenses.defenses_registry, threat_models, metrics.METRICS


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "blackhouse"]:
        del sys.modules[name]
    for cached in (source._closure, source._file, inputs._code):
        cached.cache_clear()


@pytest.mark.parametrize("changed", [*PARTS, "shared"])
def test_an_edit_of_any_part_makes_another_cell(code, changed):
    before = code()
    assert code() == before != code(changed)


def test_parts_that_a_cell_does_not_have_do_not_count(code):
    code()
    plain = inputs.code_of(cell("dlg"), importlib.import_module("blackhouse.network").Part)
    code("attack")
    again = inputs.code_of(cell("dlg"), importlib.import_module("blackhouse.network").Part)
    assert plain == again
