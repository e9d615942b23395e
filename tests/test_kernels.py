"""Code generation for a card that is not there: what is counted, and what is said where it cannot be done."""

import importlib.util

import pandas as pd
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from attacks.engine import Schedule, products, steps
from attacks.engine.iteration import Iteration, State
from attacks.engine.problem import Problem
from attacks.engine.runners import Inputs
from attacks.objectives import Cosine
from attacks.regularisers import L2
from benchmarks import codegen, kernels
from benchmarks.cases import Case
from benchmarks.codegen import Generated, generate
from benchmarks.roofline import Work
from dpbench.protocol import InputError
from tests.helpers.attacks import Tiny, know, plain_release

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")


def tiny():
    """One iteration on two images, laid out as on a card."""
    model, z, labels = Tiny(), torch.randn(2, 3, 8, 8), torch.tensor([1, 2])
    release = plain_release(model, torch.rand(2, 3, 8, 8), labels)
    problem = Problem(know(model, labels, (3, 8, 8), 4), release.gradients, Cosine(), [L2(0.1)])
    iteration = Iteration(problem, True, (0.9, 0.999))
    row = Schedule(torch.full((3,), 0.1)).rows(1, (0.9, 0.999), z)[0]
    return iteration, Inputs(steps.tensors_of(iteration), State.at([z]).flat(), row, labels, []).copied()


@needs_triton
def test_kernels_bytes_and_arithmetic_of_an_iteration(monkeypatch):
    iteration, inputs = tiny()
    iteration(*inputs[1:])  # the first one also asks whether the loss depends on the images
    with monkeypatch.context() as there, Work() as noted:
        there.setattr(products, "on_cpu", lambda _: False)  # as on a card
        iteration(*inputs[1:])
    made = generate(iteration, inputs)
    assert made.flop == sum(operations for operations, _ in noted.done)
    assert made.calls == len(noted.done)
    assert 0 < made.kernels <= made.launches < made.operations
    weights = sum(4 * p.numel() for p in iteration.problem.model.parameters())
    # the gradient and the release are read for the cosine and again for its cotangent, which is written
    assert made.moved > 5 * weights
    assert not torch.cuda.is_initialized()


def test_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install triton"):
        generate(*tiny())


def test_what_a_version_has_moved_is_named(monkeypatch):
    for gone in ("torch._inductor.scheduler.gone", "torch._inductor.gone.has_triton"):
        monkeypatch.setattr(codegen, "PATCHED", (gone,))
        with pytest.raises(InputError, match=f"has no {gone}"):
            codegen.existing()


def test_a_constant_from_the_host_is_a_fault():
    traced = make_fx(lambda x: x + torch.tensor([1.0, 2.0]))(torch.zeros(2))
    with pytest.raises(ArithmeticError, match="copy to the card"):
        codegen.moved(traced)


def test_each_search_is_caught_before_it_runs():
    found = {name: kernels.first_iteration(Case("resnet20", 32, 2), name) for name in kernels.SEARCHES}
    penalties = [len(iteration.problem.regularisers) for iteration, _ in found.values()]
    assert penalties == [1, 1, 0, 2, 3]
    for _, inputs in found.values():
        assert all(t.is_contiguous(memory_format=torch.channels_last) for t in inputs.all() if t.dim() == 4)


def test_rows_are_written_as_they_come(tmp_path, monkeypatch):
    made = Generated(50, 20, 10, 5, 3 * 10**9, 10**9, 10**12, "")
    monkeypatch.setattr(kernels, "generate", lambda *_: made)
    monkeypatch.setattr(kernels, "version", lambda name: name)
    kernels.main(kernels.Options(("resnet20:32:1",), ("paper", "lazy"), tmp_path))
    table = pd.read_csv(tmp_path / "kernels.csv")
    assert list(table["search"]) == ["inverting-gradients paper", "gradinversion lazy"]
    assert table.loc[0, ["launches", "GB", "library GB", "GFLOP", "triton"]].tolist() == [
        20,
        3,
        1,
        1000,
        "triton",
    ]
