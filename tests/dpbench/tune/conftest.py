"""An attack whose best parameter is known, on a data set of noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from attacks import parameters as shared
from attacks.base import Attack, attack
from dpbench.data import datasets
from dpbench.protocol import Reconstruction, parameter
from tests.helpers.registries import as_in_a_new_process
from tests.helpers.tiny import tiny

USUAL = {
    "attack": "scripted",
    "defense": "none",
    "data": "tiny",
    "model": "lenet",
    "victim": "untrained",
    "batch_seed": (100,),
    "device": "cpu",
    "progress": False,
}
"""A tuning whose cells take milliseconds."""


@pytest.fixture
def script(monkeypatch):
    """What the attack `scripted` does: its best strength by defence, and a function told of each search.

    Its images are grey, darker the farther its strength is from the best, so that PSNR falls.
    """
    script = SimpleNamespace(best={"none": 0.1, "clip": 10.0}, told=lambda strength: None, ran=[])
    monkeypatch.setitem(datasets._items, "tiny", lambda argument, size: tiny())
    with as_in_a_new_process():

        @attack("scripted")
        class Scripted(Attack):
            strength: float = parameter(1.0, "how strong the script is", above=0, tuning=(0.01, 100.0))
            mood: str = parameter("calm", "a word that plays no role")
            iterations: int = shared.iterations(3)

            def run(self, task):
                stages = [stage.name for stage in task.release.defense] or ["none"]
                script.ran.append((stages[0], self.strength, self.iterations))
                script.told(self.strength)
                far = abs(math.log10(self.strength / script.best[stages[0]]))
                images = torch.full((task.release.batch_size, *task.knowledge.image_shape), 0.5 - far / 10)
                return Reconstruction(
                    images=images,
                    labels=task.knowledge.labels,
                    label_source="known",
                    gradient_distance=0.0,
                    start=images,
                    iterations=self.iterations,
                    seconds=0.0,
                    engine="none",
                )

        yield script


@pytest.fixture
def tune(script, tmp_path) -> Callable:
    """A tuning of that attack in a folder of its own."""
    from dpbench.tune import tune

    def carried_out(out="tuned", **changes):
        return tune(tmp_path / out, **{**USUAL, "trials": 6, **changes})

    return carried_out
