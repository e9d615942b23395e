"""The search on the plain engine, against a quadratic with a known minimum; then what goes wrong in one."""

import math
import warnings

import pytest
import torch
from torch import nn

from attacks.base import channel_statistics
from attacks.engine import ENGINES, Schedule, checked, search
from attacks.engine.problem import Problem
from attacks.engine.search import REPORTS
from attacks.engine.variables import Pixels
from attacks.objectives import SquaredL2
from dpbench.data.channels import CIFAR10_MEAN, CIFAR10_STD
from dpbench.protocol import InputError
from tests.helpers.attacks import know, plain_release


class Bowl(nn.Module):
    """Stands in for a problem: a quadratic, or NaN from one call on."""

    def __init__(self, goal, nan_from=math.inf):
        super().__init__()
        self.register_buffer("goal", goal)
        self.variables, self.regularisers = Pixels(CIFAR10_MEAN, CIFAR10_STD), ()
        self.calls, self.nan_from = 0, nan_from

    def gradient(self, variables, labels, factors):
        self.calls += 1
        if self.calls >= self.nan_from:
            nan = torch.tensor(torch.nan)
            return nan, nan, (torch.full_like(variables[0], torch.nan),)
        difference = variables[0].detach() - self.goal
        value = difference.square().sum()
        return value, value, (2 * difference,)


def run(problem, start, rates, **options):
    return search(problem, [[start]], torch.zeros(1), Schedule(rates), engine="eager", **options).found[0]


def test_it_is_adam():
    goal, start = torch.full((1, 3, 8, 8), 0.3), torch.zeros(1, 3, 8, 8)
    reference = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([reference], lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        (reference - goal).square().sum().backward()
        optimizer.step()
    found = run(Bowl(goal), start, torch.full((20,), 0.01))
    torch.testing.assert_close(found.last[0], reference.detach(), rtol=1e-5, atol=1e-6)


def test_pixels_stay_in_the_box(tiny):
    start = torch.zeros(1, 3, 8, 8)
    found = run(Bowl(torch.full_like(start, 50.0)), start, torch.full((200,), 0.5), signed=True)
    mean, std = channel_statistics(know(tiny), start)
    torch.testing.assert_close(found.variables[0] * std + mean, torch.ones_like(start))


def test_the_best_point_outlives_nan():
    start = torch.zeros(1, 3, 8, 8)
    goal = torch.full_like(start, 0.3)
    found = run(Bowl(goal, nan_from=5), start, torch.full((50,), 0.01))
    clean = run(Bowl(goal), start, torch.full((4,), 0.01))
    torch.testing.assert_close(found.variables, clean.variables)
    assert math.isfinite(found.distance)


def test_a_search_that_never_was_finite_says_so():
    start = torch.zeros(1, 3, 8, 8)
    with pytest.raises(FloatingPointError, match="smaller weights"):
        run(Bowl(start, nan_from=1), start, torch.full((5,), 0.01))


def test_history_never_rises_and_progress_ends_at_the_end(tiny):
    images = torch.rand(1, 3, 8, 8)
    release = plain_release(tiny, images, torch.tensor([1]))
    calls = []
    problem = Problem(know(tiny, shape=(3, 8, 8), classes=4), release.gradients, SquaredL2())
    outcome = search(
        problem,
        [[torch.randn(1, 3, 8, 8)], [torch.randn(1, 3, 8, 8)]],
        torch.tensor([1]),
        Schedule(torch.full((250,), 0.05)),
        progress=lambda *call: calls.append(call),
    )
    assert outcome.engine == "eager"
    assert outcome.compile_seconds == 0
    for found in outcome.found:
        assert list(found.history) == sorted(found.history, reverse=True)
        assert found.history[-1] < found.history[0] / 10
        assert [2 * step for step in found.steps] == [done for done, *_ in calls if done]
    assert calls[-1][:2] == (500, 500)
    assert len(calls) <= REPORTS + 30
    assert not torch.equal(outcome.found[0].variables[0], outcome.found[1].variables[0])


def test_starts_searched_together_end_where_they_end_alone(tiny):
    images, labels = torch.rand(2, 3, 8, 8), torch.tensor([1, 3])
    release = plain_release(tiny, images, labels)
    problem = Problem(know(tiny, shape=(3, 8, 8), classes=4), release.gradients, SquaredL2())
    starts = [[torch.randn(2, 3, 8, 8)] for _ in range(3)]
    schedule = Schedule(torch.full((30,), 0.05), langevin=0.1)
    together = search(problem, starts, labels, schedule, seed=5).found
    for i, start in enumerate(starts):
        alone = search(problem, [start], labels, schedule, seed=5 + i).found[0]
        assert torch.equal(alone.variables[0], together[i].variables[0])


def test_langevin_noise_is_a_n_steps_of_it():
    """Without a pull, what moves is the noise: rate * a_n * N(0, 1), and another seed draws another."""
    start = torch.zeros(1, 3, 32, 32)

    def moved(seed):
        schedule = Schedule(torch.full((4,), 0.01), langevin=0.2)
        return search(Bowl(start), [[start]], torch.zeros(1), schedule, seed=seed).found[0].last[0]

    class Flat(Bowl):
        def gradient(self, variables, labels, factors):
            zero = torch.zeros(())
            return zero, zero, (torch.zeros_like(variables[0]),)

    schedule = Schedule(torch.full((4,), 0.01), langevin=0.2)
    found = search(Flat(start), [[start]], torch.zeros(1), schedule).found[0].last[0]
    assert float(found.std()) == pytest.approx(0.01 * 0.2 * 2, rel=0.05)
    assert torch.equal(moved(1), moved(1))
    assert not torch.equal(moved(1), moved(2))


def test_refresh_sees_the_points_and_may_change_the_problem():
    start, seen = torch.zeros(1, 3, 8, 8), []
    problem = Bowl(torch.full_like(start, 0.3))

    def refresh(done, variables):
        seen.append((done, float(variables[0][0].mean())))
        problem.goal.fill_(-0.3)

    found = run(problem, start, torch.full((100,), 0.01), refresh=refresh, every=40)
    assert [done for done, _ in seen] == [0, 40, 80]
    assert seen[1][1] < 0
    assert float(found.variables[0].mean()) == pytest.approx(-0.3, abs=0.05)


def test_a_compiler_that_fails_is_named_and_the_search_goes_on(tiny, monkeypatch):
    def broken(*_):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr("attacks.engine.steps.compiled", broken)
    images, labels = torch.rand(1, 3, 8, 8), torch.tensor([1])
    release = plain_release(tiny, images, labels)
    problem = Problem(know(tiny, shape=(3, 8, 8), classes=4), release.gradients, SquaredL2())
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler"):
        outcome = search(
            problem, [[torch.randn(1, 3, 8, 8)]], labels, Schedule(torch.full((5,), 0.1)), engine="compiled"
        )
    assert outcome.engine.startswith("eager (compiled failed: RuntimeError: no C++ compiler")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = search(problem, [[torch.randn(1, 3, 8, 8)]], labels, Schedule(torch.full((5,), 0.1)))
    assert plain.engine == "eager"


def test_no_other_engine_where_memory_is_short(tiny, monkeypatch):
    """Else a cell's engine, and its numbers with it, would depend on who else is on the card."""

    def starved(*_):
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr("attacks.engine.steps.compiled", starved)
    images, labels = torch.rand(1, 3, 8, 8), torch.tensor([1])
    problem = Problem(
        know(tiny, shape=(3, 8, 8), classes=4), plain_release(tiny, images, labels).gradients, SquaredL2()
    )
    with pytest.raises(torch.AcceleratorError):
        search(problem, [[images]], labels, Schedule(torch.full((5,), 0.1)), engine="compiled")


def test_unknown_engine():
    assert {checked(name, "cuda") for name in ENGINES} == set(ENGINES)
    with pytest.raises(InputError, match="one of auto, eager"):
        checked("warp", "cpu")
    with pytest.raises(InputError, match="`device` cuda"):
        checked("graph", "cpu")
