"""Victims that are trained in part: what is trained then, and which parts are refused."""

import pytest
from torch import nn

from dpbench.protocol import InputError
from dpbench.victim.head import trained_in_part
from dpbench.victim.networks import build


def trained(trainable, model=None):
    found = trained_in_part(model or build("vit"), 10, trainable)
    return {name for name, p in found.named_parameters() if p.requires_grad}


def test_the_parts_that_are_named_are_trained_and_no_others():
    model = build("vit")
    names = [name for name, _ in model.named_parameters()]
    assert trained("head", model) == {"fc.weight", "fc.bias"}
    assert trained("blocks.3+norm", model) == {n for n in names if n.startswith(("blocks.3.", "norm."))}
    assert trained("position+head", model) == {"position", "fc.weight", "fc.bias"}
    assert all(p.requires_grad for p in model.parameters())  # a copy was frozen


def test_what_it_freezes_may_have_been_frozen_before():
    model = build("vit").requires_grad_(False)
    assert trained("norm", model) == {"norm.weight", "norm.bias"}


@pytest.mark.parametrize(
    ("trainable", "words"),
    [
        ("block.3", r"has no 'block\.3' \(did you mean 'blocks\.3'\?\): at its top are normalise, patches, "),
        ("head+", r"has no ''"),
        ("", r"has no ''"),
        ("head+all", r"has no 'all'"),
        ("normalise", r"`trainable` normalise has no parameters: give another part"),
    ],
)
def test_parts_that_are_not_there_are_refused(trainable, words):
    with pytest.raises(InputError, match=words):
        trained(trainable)


def test_a_model_without_a_last_layer_has_no_head():
    with pytest.raises(InputError, match="`trainable` head needs a last, fully connected layer with 10"):
        trained("head", nn.Sequential(nn.Flatten(), nn.Linear(8, 3)))
