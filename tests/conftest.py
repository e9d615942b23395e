"""One thread, arithmetic as PyTorch starts with it, and figures in one file each."""

from collections.abc import Iterator

import pytest
import torch

from dpbench.cell import registered
from tests.helpers import exports

torch.set_num_threads(1)
registered.load()  # the columns of all parts


@pytest.fixture(scope="session", autouse=True)
def figures_in_one_file() -> Iterator[None]:
    """Every figure is drawn, but at one width and as one small file: all seven take longer than most runs."""
    with pytest.MonkeyPatch.context() as patch:
        exports.in_one_file(patch)
        yield


@pytest.fixture(scope="module")
def figures_in_all_files(figures_in_one_file) -> Iterator[None]:
    """For tests of the files themselves: as users get them."""
    with pytest.MonkeyPatch.context() as patch:
        exports.in_all_files(patch)
        yield


@pytest.fixture
def bare_exports(monkeypatch):
    """Runs of this process draw nothing and write neither an entry nor a page."""
    exports.bare(monkeypatch)


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
