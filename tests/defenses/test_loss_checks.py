"""Losses of every kind are welcome as long as they are means; what is wrong with others is said rightly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import defenses
from dpbench.protocol import InputError

torch.set_num_threads(1)
IMAGES = torch.rand(9, 3, 4, 4, generator=torch.Generator().manual_seed(0))
CLASSES, BINARY = torch.arange(9) % 5, torch.arange(9) % 2


def model(outputs, *after):
    return nn.Sequential(nn.Flatten(), nn.Linear(48, outputs), *after)


def one_logit(logits, labels):
    return F.binary_cross_entropy_with_logits(logits[:, 0], labels.float())


def probabilities(outputs, labels):
    return F.nll_loss(outputs.log(), labels)


def weighted(outputs, labels):
    """A weight for each image's class, as docs/own-model.md has it."""
    return (torch.arange(1.0, 6)[labels] * F.cross_entropy(outputs, labels, reduction="none")).mean()


def one_probability(outputs, labels):
    return F.binary_cross_entropy(outputs[:, 0], labels.float())


GOOD = {
    "logits": (model(5), F.cross_entropy, CLASSES),
    "soft labels": (model(5), F.cross_entropy, F.one_hot(CLASSES, 5).float()),
    "label smoothing": (model(5), nn.CrossEntropyLoss(label_smoothing=0.1), CLASSES),
    "log-probabilities": (model(5, nn.LogSoftmax(1)), F.nll_loss, CLASSES),
    "probabilities": (model(5, nn.Softmax(1)), probabilities, CLASSES),
    "one logit": (model(1), one_logit, BINARY),
    "one logit, flat": (
        model(1, nn.Flatten(0)),
        lambda z, y: F.binary_cross_entropy_with_logits(z, y.float()),
        BINARY,
    ),
    "one probability": (model(1, nn.Sigmoid()), one_probability, BINARY),
    "one logit with labels of its shape": (model(1), nn.BCEWithLogitsLoss(), BINARY[:, None].float()),
    "several yes-no labels": (model(5), nn.BCEWithLogitsLoss(), F.one_hot(CLASSES, 5).float()),
    "squared error": (model(5), nn.MSELoss(), F.one_hot(CLASSES, 5).float()),
    "weights of classes, image by image": (model(5), weighted, CLASSES),
    "hinge": (model(5), nn.MultiMarginLoss(), CLASSES),
}


@pytest.mark.parametrize("name", GOOD)
def test_means_of_every_kind(name, clipped_by_a_loop):
    victim, loss, labels = GOOD[name]
    assert clipped_by_a_loop(victim, IMAGES, labels, loss).per_sample == "opacus"
    assert defenses.create("none").release(victim, loss, IMAGES, labels, seed=0).names


BAD = {
    "sum": (model(5), nn.CrossEntropyLoss(reduction="sum"), CLASSES, "must be the mean over the batch"),
    "none": (model(5), nn.CrossEntropyLoss(reduction="none"), CLASSES, "must be one number"),
    "one logit, sum": (
        model(1),
        lambda z, y: F.binary_cross_entropy_with_logits(z[:, 0], y.float(), reduction="sum"),
        BINARY,
        "must be the mean over the batch",
    ),
    "probabilities, sum": (
        model(5, nn.Softmax(1)),
        lambda p, y: F.nll_loss(p.log(), y, reduction="sum"),
        CLASSES,
        "must be the mean over the batch",
    ),
    "class weights": (
        model(5),
        nn.CrossEntropyLoss(weight=torch.arange(1.0, 6)),
        torch.tensor([0, 4, 1, 2, 3, 0, 1, 2, 4]),
        "class weights",
    ),
    "class weights, the same at both ends": (
        model(5),
        nn.CrossEntropyLoss(weight=torch.arange(1.0, 6)),
        torch.tensor([2, 2, 2, 2, 4, 2, 2, 2, 2]),
        "class weights",
    ),
    "logarithms of logits": (model(5), probabilities, CLASSES, "loss is not finite on the victim's outputs"),
}


@pytest.mark.parametrize("defence", ["none", "clip"])
@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said(name, defence):
    victim, loss, labels, match = BAD[name]
    with torch.no_grad():
        victim[1].bias.sub_(1)  # so that some logit is negative
    with pytest.raises(InputError, match=match):
        defenses.create(defence).release(victim, loss, IMAGES, labels, seed=0)


def test_a_converged_victims_summed_loss_is_found_out_by_its_own_outputs_rolled():
    victim = model(5, nn.Softmax(1))
    with torch.no_grad():
        victim[1].weight.zero_()
        victim[1].bias.copy_(torch.tensor([30.0, 0, 0, 0, 0]))
    zeros = torch.zeros_like(CLASSES)
    with pytest.raises(InputError, match="must be the mean over the batch"):
        defenses.create("clip").release(
            victim, lambda p, y: F.nll_loss(p.log(), y, reduction="sum"), IMAGES, zeros, seed=0
        )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_to_blame_and_not_the_mean(value):
    victim = model(5)
    victim[1].weight.data[0, 0] = value
    with pytest.raises(InputError, match="output is not finite on this batch: check its weights"):
        defenses.create("none").release(victim, F.cross_entropy, IMAGES, CLASSES, seed=0)


def test_a_loss_that_takes_no_single_sample_is_refused_by_clipping_alone():
    victim = model(1)

    def squeezed(logits, labels):
        return F.binary_cross_entropy_with_logits(logits.squeeze(), labels.float())

    defenses.create("none").release(victim, squeezed, IMAGES, BINARY, seed=0)
    with pytest.raises(InputError, match="fails on a single image"):
        defenses.create("clip").release(victim, squeezed, IMAGES, BINARY, seed=0)
