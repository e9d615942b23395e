import math

import pytest
import torch

from attacks.base import channel_statistics
from attacks.engine import choose, eager
from attacks.engine.problem import Problem
from attacks.objectives import SquaredL2
from dpbench.protocol import InputError

from .conftest import know, plain_release


class Bowl:
    """Stands in for a problem: a quadratic with a known minimum, or NaN from one call on."""

    def __init__(self, knowledge, goal, nan_from=math.inf):
        self.knowledge, self.goal, self.calls, self.nan_from = knowledge, goal, 0, nan_from

    def gradient(self, inputs, labels):
        self.calls += 1
        if self.calls >= self.nan_from:
            nan = torch.tensor(torch.nan)
            return nan, nan, (torch.full_like(inputs[0], torch.nan),)
        difference = inputs[0].detach() - self.goal
        value = difference.square().sum()
        return value, value, (2 * difference,)


def run(problem, start, rates, signed=False):
    return eager.adam(problem, start, torch.zeros(1), rates, signed=signed, progress=lambda *_: None)


def test_it_is_adam(tiny):
    goal, start = torch.full((1, 3, 8, 8), 0.3), torch.zeros(1, 3, 8, 8)
    reference = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([reference], lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        (reference - goal).square().sum().backward()
        optimizer.step()
    # The best point is the one before the last step: run one more iteration to see it.
    found = run(Bowl(know(tiny), goal), start, torch.full((21,), 0.01))
    torch.testing.assert_close(found.z, reference.detach(), rtol=1e-5, atol=1e-6)


def test_pixels_stay_in_the_box(tiny):
    start = torch.zeros(1, 3, 8, 8)
    found = run(Bowl(know(tiny), torch.full_like(start, 50.0)), start, torch.full((200,), 0.5), signed=True)
    mean, std = channel_statistics(know(tiny), start)
    torch.testing.assert_close(found.z * std + mean, torch.ones_like(start))


def test_the_best_point_outlives_nan(tiny):
    start = torch.zeros(1, 3, 8, 8)
    goal = torch.full_like(start, 0.3)
    found = run(Bowl(know(tiny), goal, nan_from=5), start, torch.full((50,), 0.01))
    clean = run(Bowl(know(tiny), goal), start, torch.full((4,), 0.01))
    torch.testing.assert_close(found.z, clean.z)
    assert math.isfinite(found.distance)


def test_history_never_rises_and_progress_ends_at_the_end(tiny):
    images = torch.rand(1, 3, 8, 8)
    release = plain_release(tiny, images, torch.tensor([1]))
    calls = []
    problem = Problem(know(tiny, shape=(3, 8, 8), classes=4), release.gradients, SquaredL2())
    found = eager.adam(
        problem,
        torch.randn(1, 3, 8, 8),
        torch.tensor([1]),
        torch.full((250,), 0.05),
        signed=False,
        progress=lambda *call: calls.append(call),
    )
    assert list(found.history) == sorted(found.history, reverse=True)
    assert found.history[-1] < found.history[0] / 10
    assert calls[-1][:2] == (250, 250)
    assert len(calls) <= eager.REPORTS + 30


def test_unknown_engine():
    assert choose("auto")[0] == "eager"
    with pytest.raises(InputError, match="known: eager"):
        choose("warp")
