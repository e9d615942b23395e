"""DLG searches labels as probabilities: losses that serve it, and losses that do not."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import attacks
from dpbench.protocol import InputError
from tests.helpers.attacks import know, smooth_images
from tests.helpers.attacks import plain_release as cross_entropy_release

IMAGES, LABELS = smooth_images(), torch.tensor([1, 0])


def given(victim, loss, classes):
    knowledge = replace(know(victim, None, (3, 8, 8), classes), loss=loss)
    gradients = torch.autograd.grad(loss(victim(IMAGES), LABELS), list(victim.parameters()))
    release = cross_entropy_release(victim, IMAGES, LABELS * 0)
    return replace(release, gradients=gradients), knowledge


def one_logit():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Tanh(), nn.Linear(8, 1))


def weights(count):
    return torch.linspace(0.5, 2, count)


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits, y: F.nll_loss(logits.log_softmax(1), y),
        lambda logits, y: F.cross_entropy(logits, y.long().flatten()[: len(logits)]),
        lambda logits, y: (logits[:, 0] - y.float().view(len(y), -1).argmax(1)).square().mean(),
        lambda logits, y: F.cross_entropy(logits, y, weight=weights(logits.shape[1])),
    ],
    ids=["nll", "cast", "argmax", "weighted"],
)
def test_a_loss_that_takes_no_probabilities_is_refused(loss, tiny):
    release, knowledge = given(tiny, loss, 4)
    with pytest.raises(InputError, match="choose idlg or inverting-gradients"):
        attacks.create("dlg", iterations=2)(release, knowledge, seed=0)
    for name in ("idlg", "inverting-gradients"):
        found = attacks.create(name, iterations=2)(release, replace(knowledge, labels=LABELS), seed=0)
        assert found.images.isfinite().all()


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits, y: F.binary_cross_entropy_with_logits(logits[:, 0], y.float()),
        lambda logits, y: (logits[:, 0] - y).square().mean(),  # broadcasts
    ],
    ids=["bce", "square"],
)
def test_one_logit_is_refused(loss):
    release, knowledge = given(one_logit(), loss, 2)
    with pytest.raises(InputError, match="choose idlg or inverting-gradients"):
        attacks.create("dlg", iterations=2)(release, knowledge, seed=0)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        lambda logits, y: (1 - torch.exp(-F.cross_entropy(logits, y))) ** 2 * F.cross_entropy(logits, y),
        lambda logits, y: (
            (logits.softmax(1) - (F.one_hot(y, 4) if y.ndim == 1 else y)).square().sum(1).mean()
        ),
    ],
    ids=["cross-entropy", "smoothed", "squared cross-entropy", "brier"],
)
def test_a_loss_that_takes_probabilities_is_served(loss, tiny):
    release, knowledge = given(tiny, loss, 4)
    found = attacks.create("dlg", iterations=5)(release, knowledge, seed=0)
    assert found.images.isfinite().all()
    assert found.label_source == "joint"


def test_an_error_of_the_loss_itself_is_left_as_it_is(tiny):
    def broken(outputs, labels):
        raise ZeroDivisionError

    release, knowledge = given(tiny, F.cross_entropy, 4)
    with pytest.raises(ZeroDivisionError):
        attacks.create("dlg", iterations=2)(release, replace(knowledge, loss=broken), seed=0)
