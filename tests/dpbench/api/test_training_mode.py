"""Steps that are made in training mode, as most loops make them (docs/training.md)."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import dpbench

IMAGES, LABELS = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(3)


def captured(*layers):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), *layers, nn.Sigmoid(), nn.Flatten(), nn.Linear(144, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with dpbench.capture(model.train(), optimizer, batch_size=3) as step:
            cross_entropy(model(IMAGES), LABELS).backward()
            optimizer.step()
    return step


def attacked(step, **options):
    found = {"attacks": "inverting-gradients", "iterations": 2, "progress": False} | options
    return dpbench.attack(step.release, model=step.model, originals=(IMAGES, LABELS), **found)


def test_batch_norm_is_attacked_without_statistics_and_refused_with_them():
    step = captured(nn.BatchNorm2d(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # the gradient is that of the model as it was captured
        table = attacked(step, bn_stats="none")
    assert set(table["mode"]) == {"train"}
    with pytest.raises(dpbench.InputError, match=r"set `bn_stats` to none, or take the gradient in eval"):
        attacked(step)


def test_batch_norm_that_is_put_into_evaluation_mode_after_the_step_is_warned_of():
    step = captured(nn.BatchNorm2d(4))
    step.model.eval()
    with pytest.warns(UserWarning, match="gradient of these images in this model"):
        attacked(step)


def test_dropout_is_warned_of():
    with pytest.warns(
        UserWarning, match="whose random mask no attacker knows: make the step that you capture"
    ):
        attacked(captured(nn.Dropout(0.5)))
