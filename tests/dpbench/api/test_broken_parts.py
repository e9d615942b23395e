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
GREY = torch.full((2, 3, 16, 16), 0.5)


@pytest.fixture(autouse=True)
def registries():
    with as_in_a_new_process():
        yield


def bench(**options):
    given = {"iterations": 1, "device": "cpu", "progress": False} | options
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return dpbench.benchmark(build("lenet", 5, size=16), images, torch.tensor([3, 1]), **given)


def answer(task, images=GREY, **others):
    classes, source = labels.given_or_inferred(task.release, task.knowledge)
    given = {"gradient_distance": 0.0, "start": torch.zeros(2, 3, 16, 16), "iterations": 1}
    given |= {"labels": classes, "label_source": source, "seconds": task.seconds()}
    return Reconstruction(images=images, **(given | others))


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
    "TypeError: `images` of wrong must be a dense tensor of floats, not torch.uint8, torch.strided on cpu.": (
        lambda task: answer(task, torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    ),
    "TypeError: `images` of wrong must be a dense tensor of floats, not torch.float32": lambda task: answer(
        task, GREY.to("meta")
    ),
    "TypeError: `labels` of wrong must be a tensor, not NoneType.": lambda task: answer(task, labels=None),
    "ValueError: `labels` of wrong must be int64 [2], not torch.float32 [2].": lambda task: answer(
        task, labels=torch.tensor([3.0, 1.0])
    ),
    "ValueError: `labels` of wrong must be int64 [2], not torch.int64 [1].": lambda task: answer(
        task, labels=torch.tensor([3])
    ),
    "ValueError: Column gradient_distance holds float64, not 'near'.": lambda task: answer(
        task, gradient_distance="near"
    ),
    "ValueError: Column iterations holds Int64, not 'many'.": lambda task: answer(task, iterations="many"),
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


def test_an_answer_that_asks_for_gradients_and_a_bar_without_an_end_are_taken(recwarn):
    @attack("careless")
    class Careless(Attack):
        def run(self, task):
            task.progress(0, 0, 1.0)
            return answer(task, GREY.clone().requires_grad_())

    assert (bench(attacks="careless")["status"] == "ok").all()
    assert not [each for each in recwarn if "requires_grad" in str(each.message)]


RELEASES = {
    "TypeError: odd must hand back a tuple of tensors, not NoneType.": lambda gradients: None,
    "TypeError: odd must hand back a tuple of tensors, not generator.": lambda gradients: (
        g for g in gradients
    ),
    "TypeError: odd must hand back a tuple of tensors, not of ndarray.": lambda gradients: tuple(
        g.numpy() for g in gradients
    ),
    "TypeError: odd must hand back dense tensors of floats, not torch.int32, torch.strided on cpu.": (
        lambda gradients: tuple(g.int() for g in gradients)
    ),
    "TypeError: odd must hand back dense tensors of floats, not torch.float32, torch.strided on meta.": (
        lambda gradients: tuple(g.to("meta") for g in gradients)
    ),
    "ValueError: odd hands back gradients of shapes [900], [12], ": lambda gradients: tuple(
        g.flatten() for g in gradients
    ),
}


@pytest.mark.parametrize(("said", "process"), RELEASES.items())
def test_what_is_wrong_with_the_gradients_of_a_defence_is_said(said, process):
    @defense("odd")
    class Odd(PostProcessor):
        def process(self, gradients, generator):
            return process(gradients)

    table = bench(attacks="dlg", defense=["none", "odd"])
    rows = table[table["defense"] == "odd"]
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
