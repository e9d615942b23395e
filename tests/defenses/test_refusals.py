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
from dpbench.victim import networks as models

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


class Buffered(nn.Linear):
    def __init__(self):
        super().__init__(192, 4)
        self.register_buffer("seen", torch.zeros(1))


class AddsInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        h = self.conv(x)
        h += x
        return h


class Branches(nn.Module):
    """A parameter of its own and a choice by value, which vmap cannot trace."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x * self.scale if float(x.sum()) > 0 else x


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(192, 4)
        self.never = nn.Linear(2, 2)

    def forward(self, x):
        return self.fc(x.flatten(1))


class CentresBatch(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


def test_training_batch_norm():
    refused(head(nn.BatchNorm2d(3)).train(), r"0 is batch norm in training mode.*`norm` frozen-bn")


def test_batch_norm_without_statistics():
    refused(head(nn.BatchNorm2d(3, track_running_stats=False)).eval(), "batch norm in training mode")


def test_trainable_batch_norm_in_evaluation_mode():
    refused(head(nn.BatchNorm2d(3)).eval(), r"0 \(BatchNorm2d\).*FrozenBatchNorm2d")


def test_batch_norm_that_trains_nothing_is_welcome():
    model = head(nn.BatchNorm2d(3, affine=False)).eval()
    model(IMAGES)
    released = defenses.create("clip").release(model, F.cross_entropy, IMAGES, LABELS, seed=0)
    assert float(sum(g.square().sum() for g in released.gradients)) > 0


def test_a_trainable_module_with_buffers():
    refused(nn.Sequential(nn.Flatten(), Buffered()), r"Module 1 \(Buffered\) is trainable and has buffers")


def test_in_place_addition():
    refused(head(AddsInPlace()), r"Opacus cannot take per-sample gradients of 0 \(AddsInPlace\)")


def test_a_module_that_functorch_cannot_trace():
    refused(head(Branches()), r"Opacus cannot take per-sample gradients of 0 \(Branches\)")


def test_a_parameter_without_gradient():
    refused(Unused(), "Parameter never.weight got no per-sample gradient")


def test_a_model_that_mixes_samples():
    refused(head(CentresBatch()), "depends on the other images")
    refused(head(CentresBatch()), "depends on the other images", images=IMAGES[:1], labels=LABELS[:1])


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
    refused(model, "not finite", name=name)


def test_batches_that_are_none():
    refused(head(), "empty", images=IMAGES[:0], labels=LABELS[:0])
    refused(head(), "3 images but 2 labels", labels=LABELS[:2])
    refused(nn.Flatten(), "no trainable parameter", name="none")


def test_torchvisions_resnet_is_refused_by_name_and_ours_is_not():
    from torchvision.models import resnet18

    model = resnet18(num_classes=4, norm_layer=lambda channels: nn.GroupNorm(4, channels))
    refused(model, r"Opacus cannot take per-sample gradients of relu \(ReLU\)")
    own = models.build("resnet18", num_classes=4, norm="gn", size=8)
    defenses.create("clip").release(own, F.cross_entropy, IMAGES, LABELS, seed=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_finite_numbers_are_told_from_others_even_where_their_sum_is_not(bad):
    check_finite([torch.zeros(3), torch.full((3,), 3e38)])
    for others in (0.0, 3e38, math.inf):
        with pytest.raises(InputError, match="not finite"):
            check_finite([torch.zeros(3), torch.tensor([others, bad, 1.0])])
