"""One thread, and arithmetic as PyTorch starts with it: the command line changes it for its whole process."""

from collections.abc import Iterator

import pytest
import torch

from dpbench.cell import registered

torch.set_num_threads(1)
registered.load()  # the columns of all parts


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Hypothesis refuses to draw floats where denormals are flushed."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def traces(monkeypatch):
    """Counts compilations and leaves Inductor out: what runs is the trace itself."""
    counted = []

    def compile_nothing(traced, _):
        counted.append(traced)
        return traced

    monkeypatch.setattr("torch._inductor.compile", compile_nothing)
    return counted
