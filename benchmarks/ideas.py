"""Ways of computing a compiled iteration that might be faster, each a context in which to compile it.

None of them is part of the engine: `python -m benchmarks.variants` tells which of them should be.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from attacks.engine import convolution, products, search, steps
from attacks.engine.products import Setting
from benchmarks import half, pointwise

AS_IS = "as it is"


@contextmanager
def _bfloat16() -> Iterator[None]:
    """Convolutions take bfloat16 and return float32; no program is refused for what that rounds."""
    output, gradients = convolution._output, convolution._gradients

    def low(x: Tensor | None) -> Tensor | None:
        layout = torch.channels_last if x is not None and x.dim() == 4 else torch.preserve_format
        return None if x is None else x.to(torch.bfloat16, memory_format=layout)

    def high(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.float()

    def output_low(x: Tensor, weight: Tensor, bias: Tensor | None, setting: Setting) -> Tensor:
        return output(low(x), low(weight), low(bias), setting).float()

    def gradients_low(g: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
        return tuple(map(high, gradients(low(g), low(x), low(weight), *rest)))

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(convolution, "_output", output_low))
        stack.enter_context(mock.patch.object(convolution, "_gradients", gradients_low))
        stack.enter_context(mock.patch.dict(search.__globals__, PARITY=float("inf")))
        yield


@contextmanager
def _half() -> Iterator[None]:
    """Convolutions take half precision and return float32; no program is refused for what that rounds."""
    with (
        mock.patch.multiple(
            convolution, _output=half.output, _gradients=half.gradients, _to_output=half.to_output
        ),
        mock.patch.object(convolution._Gradients, "backward", staticmethod(half.second)),
        mock.patch.dict(search.__globals__, PARITY=float("inf")),
    ):
        yield


@contextmanager
def _every_algorithm() -> Iterator[None]:
    limit, torch.backends.cudnn.benchmark_limit = torch.backends.cudnn.benchmark_limit, 0
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark_limit = limit


def _joined(yes: bool) -> AbstractContextManager[Any]:
    return mock.patch.object(convolution, "joins", lambda x, weight, groups: yes and groups == 1)


def _inductor(**options: Any) -> AbstractContextManager[Any]:
    return mock.patch.dict(steps.ON_CARD, options)


def _pointwise() -> AbstractContextManager[Any]:
    return mock.patch.multiple(
        products, serves=pointwise.serves, output=pointwise.output, gradients=pointwise.gradients
    )


@contextmanager
def _together(*made: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    with ExitStack() as stack:
        for one in made:
            stack.enter_context(one())
        yield


IDEAS: Mapping[str, Callable[[], AbstractContextManager[Any]]] = {
    AS_IS: contextlib.nullcontext,
    "joined": lambda: _joined(True),
    "separate": lambda: _joined(False),
    "pointwise": _pointwise,
    "pointwise, autotuned": lambda: _together(_pointwise, lambda: _inductor(max_autotune=True)),
    "autotuned": lambda: _inductor(max_autotune=True),
    "small kernels": lambda: _inductor(combo_kernels=False),
    "every algorithm": _every_algorithm,
    "bfloat16": _bfloat16,
    "half": _half,
    "half, joined": lambda: _together(lambda: _joined(True), _half),
    "half, pointwise": lambda: _together(_pointwise, _half),
    "bfloat16, pointwise": lambda: _together(_pointwise, _bfloat16),
}
"""`joined` and `separate`: the two convolutions of a second derivative as one of twice the channels, or not.
`pointwise`: convolutions of one by one pixel as products of matrices, to which Inductor may add what follows.
`autotuned`: Inductor times its own kernels for products beside the libraries'. `small kernels`: not combined.
`every algorithm`: cuDNN tries all it has. `bfloat16`, `half`: what convolutions read and libraries return."""
ON_CPU = (AS_IS, "joined", "separate", "pointwise")
"""Those that mean something without a graphics card."""
