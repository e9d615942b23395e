"""What `benchmark()` says of an attack or a loss of the user's own that is wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dpbench
from attacks import labels
from attacks.base import Attack, attack
from defenses import Chain, PostProcessor, defense
from dpbench.api.given import part
from dpbench.protocol import InputError, Reconstruction
from dpbench.victim.networks import build
from tests.helpers.registries import as_in_a_new_process

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def registries():
    with as_in_a_new_process():
        yield


def bench(**options):
    given = {"iterations": 1, "device": "cpu", "progress": False} | options
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return dpbench.benchmark(build("lenet", 5, size=16), images, torch.tensor([3, 1]), **given)


def answer(task, images):
    classes, source = labels.given_or_inferred(task.release, task.knowledge)
    return Reconstruction(
        images=images,
        labels=classes,
        label_source=source,
        gradient_distance=0.0,
        start=torch.zeros(2, 3, 16, 16),
        iterations=1,
        seconds=task.seconds(),
    )


ANSWERS = {
    "TypeError: `run` of wrong must return a Reconstruction, not Tensor.": lambda task: torch.zeros(2),
    "TypeError: `images` of wrong must be a tensor, not ndarray.": lambda task: answer(
        task, torch.zeros(2, 3, 16, 16).numpy()
    ),
    "ValueError: `images` of wrong must be (2, 3, 16, 16), not (1, 1, 2, 2).": lambda task: answer(
        task, torch.zeros(1, 1, 2, 2)
    ),
    "ValueError: `images` of wrong must lie in [0, 1], not in [0, 2].": lambda task: answer(
        task, torch.linspace(0, 2, 1536).view(2, 3, 16, 16)
    ),
}


@pytest.mark.parametrize(("said", "run"), ANSWERS.items())
def test_what_is_wrong_with_the_answer_of_an_attack_is_said(said, run):
    @attack("wrong")
    class Wrong(Attack):
        def run(self, task):
            return run(task)

    table = bench(attacks=["wrong", "dlg"])
    rows = table[(table["attack"] == "wrong") & table["floor"].isna()]
    assert set(rows["status"]) == {"failed"}
    assert rows["error"].str.startswith(said).all()


def test_rounding_is_forgiven():
    @attack("rounded")
    class Rounded(Attack):
        def run(self, task):
            return answer(task, torch.full((2, 3, 16, 16), 1 + 1e-6))

    assert (bench(attacks="rounded")["status"] == "ok").all()


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("ce", r"`loss` must be a function of logits and labels, not 'ce'\.$"),
        (
            nn.MSELoss(),
            r"`loss` does not take logits \[2, 5\] with the labels, int64 \[2\] \(RuntimeError: .*\)\.$",
        ),
        (lambda logits, labels: 1.0, r"`loss` must return a tensor, not float\.$"),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_loss_that_cannot_be_used_is_one_sentence(loss, said):
    with pytest.raises(InputError, match=said):
        bench(loss=loss)


def test_a_value_of_an_object_that_nothing_would_keep():
    @defense("thinner")
    class Thinner(PostProcessor):
        factor: float = 1.0  # no `parameter`: the sweep makes the defence again from what is declared

        def process(self, gradients, generator):
            return tuple(self.factor * g for g in gradients)

    said = r"^`factor` of Thinner is no declared parameter, so its value would be lost: give it `parameter\("
    for wrong in (Thinner(factor=0.5), Chain((Thinner(factor=0.5),))):
        with pytest.raises(InputError, match=said):
            bench(defense=wrong)
    assert part(Thinner()).parameters == ()
