"""Ideas for faster iterations: they compute the same, and their processes take turns."""

import os
import time

import pytest
import torch
from torch import multiprocessing
from torch.nn import functional as F

from attacks.engine import convolution, products, steps
from benchmarks import engine, pointwise, variants
from benchmarks.cases import Case, scene
from benchmarks.ideas import AS_IS, IDEAS, ON_CPU
from benchmarks.variants import VariantOptions, first_gradient, measured, serve
from dpbench.protocol import InputError

CASE = Case("resnet20", 32, 2)


@pytest.mark.parametrize("stride", [1, 2])
def test_products_of_single_pixels_are_a_convolution(stride):
    x, weight, bias = torch.randn(3, 4, 7, 7), torch.randn(5, 4, 1, 1), torch.randn(5)
    setting = ((stride, stride), (0, 0), (1, 1), 1)
    x, weight = x.requires_grad_(), weight.requires_grad_()
    y = F.conv2d(x, weight, bias, stride)
    g = torch.randn_like(y)
    to_x, to_weight = torch.autograd.grad(y, (x, weight), g)
    with torch.no_grad():
        assert pointwise.serves(x, weight, setting)
        torch.testing.assert_close(pointwise.output(x, weight, bias, setting), y)
        for of in ((True, True), (True, False), (False, True)):
            found = pointwise.gradients(g, x, weight, setting, *of)
            for wanted, got, expected in zip(of, found, (to_x, to_weight), strict=True):
                assert (got is not None) == wanted
                if wanted:
                    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("kernel", "padding", "groups"), [((3, 3), (0, 0), 1), ((1, 1), (1, 1), 1), ((1, 1), (0, 0), 2)]
)
def test_other_convolutions_are_left_alone(kernel, padding, groups):
    x, weight = torch.zeros(1, 4, 8, 8), torch.zeros(4, 4 // groups, *kernel)
    assert not pointwise.serves(x, weight, ((1, 1), padding, (1, 1), groups))


@pytest.mark.parametrize("idea", IDEAS)
def test_an_idea_moves_the_gradient_by_no_more_than_its_rounding(idea):
    found = scene(CASE, "cpu")
    exact = first_gradient(found)
    before = (convolution.joins, convolution._output, products.serves, dict(steps.ON_CARD))
    with IDEAS[idea]():
        off = float((first_gradient(found) - exact).norm() / exact.norm())
    assert (convolution.joins, convolution._output, products.serves, dict(steps.ON_CARD)) == before
    if "bfloat16" in idea or "half" in idea:
        assert 1e-3 < off < (1 if "bfloat16" in idea else 0.2)
    else:
        assert off < 1e-4


def test_ideas_are_what_ran(monkeypatch):
    """`joined` and `separate` differ in the number of convolutions, `pointwise` in that of products."""

    def counted(idea):
        with IDEAS[idea](), torch.profiler.profile() as profile:
            first_gradient(scene(CASE, "cpu"))
        done = [e.name for e in profile.events()]
        return sum(n == "aten::convolution" for n in done), sum(
            n in ("aten::mm", "aten::addmm") for n in done
        )

    joined, separate, single = (counted(idea) for idea in ("joined", "separate", "pointwise"))
    assert joined[0] < separate[0]
    assert single[1] > joined[1]


def test_unknown_ideas_are_named():
    with pytest.raises(InputError, match="called wonder; there are as it is, joined"):
        VariantOptions(idea=("joined", "wonder")).ideas()


def test_the_first_idea_is_repeated_as_a_control():
    assert VariantOptions(device="cpu").ideas() == [*ON_CPU, AS_IS]
    assert VariantOptions(device="cpu", idea=("joined",)).ideas() == [AS_IS, "joined", AS_IS]


def test_a_process_answers_until_it_is_asked_for_nothing(monkeypatch):
    asked = []
    monkeypatch.setattr(variants, "configure", lambda: None)
    monkeypatch.setattr(variants, "run", lambda found, _, n: asked.append(n) or engine.run(found, "eager", n))
    ours, theirs = multiprocessing.Pipe()
    ours.send(3)
    ours.send(0)
    serve(theirs, Case("lenet", 32, 1), "cpu", "separate")
    first = ours.recv()
    assert first["engine"] == "eager"
    assert first["off"] < 1e-4
    assert asked == [2, 3, 6]
    assert isinstance(ours.recv(), float)


def acted(connection, case, device, idea):
    """In place of `serve`: an idea that is twice as fast, one that dies, one that never ends compiling."""
    if idea == "joined":
        os._exit(1)
    if idea == "separate":
        time.sleep(600)
    connection.send({"engine": "compiled", "compile s": 1.0, "peak MiB": 2.0, "off": 0.0})
    while connection.recv():
        connection.send(0.002 if idea == AS_IS else 0.001)


def test_those_that_have_compiled_take_turns(monkeypatch):
    monkeypatch.setattr(variants, "serve", acted)
    ideas = [AS_IS, "joined", "separate", "pointwise", AS_IS]
    given, answer = [], variants.answer

    def impatient(one, wait):
        """Nobody waits the whole time for the one that never ends."""
        given.append(wait)
        return answer(one, 0.1 if one.idea == "separate" else wait)

    monkeypatch.setattr(variants, "answer", impatient)
    begun = time.monotonic()
    tables = list(measured(CASE, "cpu", ideas, 5, 3, wait=90))
    assert time.monotonic() - begun < 120
    assert 90 >= given[0] >= given[1] >= given[2] > 0  # they have one deadline
    assert [row["turns"] for row in tables[0]] == [0] * 5
    rows = tables[-1]
    assert [row["idea"] for row in rows] == ideas
    said = [row["engine"] for row in rows]
    assert said == ["compiled", "its process ended", "not compiled in time", "compiled", "compiled"]
    assert [row["turns"] for row in rows] == [3, 0, 0, 3, 3]
    assert (rows[3]["ms"], rows[3]["times"]) == (pytest.approx(1), pytest.approx(2))
    assert rows[4]["times"] == pytest.approx(1)
