"""Victims and losses that have no per-sample gradient: one clear sentence each, with the culprit's name."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import defenses
from defenses.checks import check_finite
from dpbench.protocol import InputError

torch.set_num_threads(1)
IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2])


def head(*before):
    return nn.Sequential(*before, nn.Flatten(), nn.LazyLinear(4))


def refused(model, match, *, name="clip", loss=F.cross_entropy, images=IMAGES, labels=LABELS):
    model(IMAGES)  # materialises lazy layers; the victim itself works
    with pytest.raises(InputError, match=match) as caught:
        defenses.create(name).release(model, loss, images, labels, seed=0)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")


class Remembers(nn.Linear):
    """Adds what it sees to a buffer."""

    def __init__(self):
        super().__init__(192, 4)
        self.register_buffer("seen", torch.zeros(192))

    def forward(self, x):
        self.seen += x.detach().sum(0)
        return super().forward(x)


class CentresBatch(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class MixesGradients(nn.Module):
    """Each image's output is its own, its gradient is not."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        mean = self.fc(x).mean(0)
        return x + mean - mean.detach()


class First(nn.Module):
    def forward(self, x):
        return x[0]


class NeedsTwo(nn.Module):
    def forward(self, x):
        if len(x) < 2:
            raise ValueError("two or more, please")
        return x


class AlwaysDropout(nn.Module):
    def forward(self, x):
        return F.dropout(x)


class InfiniteSlope(nn.Module):
    """The square root's slope at zero."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x + (self.scale * x).abs().sqrt()


def test_training_batch_norm():
    refused(
        head(nn.BatchNorm2d(3)).train(), r"0 \(BatchNorm2d\) is batch norm in training mode.*model.eval\(\)"
    )


def test_batch_norm_without_statistics():
    refused(
        head(nn.BatchNorm2d(3, track_running_stats=False)).eval(), "without running statistics.*True, or put"
    )


def test_batch_norm_that_trains_nothing_is_welcome():
    model = head(nn.BatchNorm2d(3, affine=False)).eval()
    model(IMAGES)
    released = defenses.create("clip").release(model, F.cross_entropy, IMAGES, LABELS, seed=0)
    assert float(sum(g.square().sum() for g in released.gradients)) > 0


def test_a_module_that_carries_data_from_sample_to_sample():
    refused(nn.Sequential(nn.Flatten(), Remembers()), r"Module 1 \(Remembers\) changes its buffer 1.seen")


@pytest.mark.parametrize("count", [2, 10], ids=lambda count: f"B={count}")
def test_a_model_that_computes_in_half_precision(count):
    class Coarse(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.LazyLinear(5)

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return self.last(x.flatten(1))

    images, labels = IMAGES.repeat(10, 1, 1, 1)[:count], LABELS.repeat(10)[:count]
    model = Coarse()
    model(images)
    refused(model, r"computes in bfloat16.*leave autocast out", images=images, labels=labels)


def test_a_model_that_mixes_samples():
    mixed = r"depends on the other images of the batch, at 0 \(CentresBatch\)"
    refused(head(CentresBatch()), mixed)
    refused(head(CentresBatch()), mixed, images=IMAGES[:1], labels=LABELS[:1])


@pytest.mark.parametrize("copies", [1, 4])
def test_a_model_whose_gradients_alone_are_mixed(copies):
    """Its outputs are those of each image; no method's gradients add up to the batch's."""
    many = {"images": IMAGES.repeat(copies, 1, 1, 1), "labels": LABELS.repeat(copies)}
    refused(head(MixesGradients()), r"no per-sample gradients: .*\(Linear\) has other gradients", **many)
    twin = nn.Sequential(
        MixesGradients(),
        nn.Flatten(2),
        nn.LSTM(64, 8, batch_first=True),
        First(),
        nn.Flatten(),
        nn.Linear(24, 4),
    )
    refused(twin, "or use opacus.layers.DPLSTM", **many)


def test_a_recurrent_layer_that_takes_the_batch_for_a_sequence():
    refused(
        nn.Sequential(nn.Flatten(), nn.LSTM(192, 4), First()), r"other images of the batch, at 1 \(LSTM\)"
    )


def test_a_model_that_cannot_take_a_single_image():
    refused(head(NeedsTwo()), r"0 \(NeedsTwo\) fails on a single image: two or more")


def test_a_model_that_draws_random_numbers_in_evaluation_mode():
    for name in ("none", "clip"):
        refused(head(AlwaysDropout()).eval(), r"random though dropout is off.*call its eval\(\)", name=name)


def test_a_model_that_returns_more_than_one_tensor():
    refused(nn.Sequential(nn.Flatten(), nn.LSTM(192, 4)), "must return one tensor.*not tuple", name="none")


@pytest.mark.parametrize("name", ["none", "clip"])
@pytest.mark.parametrize(
    ("reduction", "match"), [("sum", "must be the mean"), ("none", "must be one number")]
)
def test_a_loss_that_is_not_a_mean(name, reduction, match):
    refused(head(), match, name=name, loss=nn.CrossEntropyLoss(reduction=reduction))


def test_a_summed_loss_is_found_out_on_a_converged_victim():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([100.0, 0, 0, 0]))
    zeros = torch.zeros(3, dtype=torch.int64)
    refused(model, "must be the mean", loss=nn.CrossEntropyLoss(reduction="sum"), labels=zeros)


@pytest.mark.parametrize("name", ["none", "clip"])
def test_gradients_that_are_not_finite(name):
    model = head()
    model(IMAGES)
    model[1].bias.data[0] = float("nan")
    refused(model, "output is not finite", name=name)


@pytest.mark.parametrize("name", ["none", "clip"])
def test_outputs_that_are_finite_with_gradients_that_are_not(name):
    refused(head(InfiniteSlope()), "gradient is not finite", name=name)


def test_batches_that_are_none():
    refused(head(), "empty", images=IMAGES[:0], labels=LABELS[:0])
    refused(head(), "3 images but 2 labels", labels=LABELS[:2])
    refused(nn.Flatten(), "no trainable parameter", name="none")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_finite_numbers_are_told_from_others_even_where_their_sum_is_not(bad):
    check_finite([torch.zeros(3), torch.full((3,), 3e38)])
    for others in (0.0, 3e38, math.inf):
        with pytest.raises(InputError, match="not finite"):
            check_finite([torch.zeros(3), torch.tensor([others, bad, 1.0])])


def test_each_way_that_fails_is_said_once_and_no_word_is_cut():
    class Norm(torch.autograd.Function):
        """Its gradient of an image depends on the others, and functorch needs `setup_context`."""

        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g / g.norm()

    class Normalises(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.fc, self.function = nn.Linear(192, 4), function

        def forward(self, x):
            return self.function(self.fc(x.flatten(1)))

    refused(Normalises(Norm.apply), r"it must override the \.\.\.; fc \(Linear\) has other gradients")

    def hooked(x):
        x.register_hook(lambda g: g / g.norm())
        return x.clone()

    twice = r"gradients: (fc \(Linear\) has other gradients in a batch than alone): replace"
    refused(Normalises(lambda x: hooked(x) if x.requires_grad else x), twice)
