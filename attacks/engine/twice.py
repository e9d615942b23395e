"""Second derivatives of victims: operations that have none are replaced or named.

PyTorch's fused attention and hardsigmoid have a backward pass and no backward pass of that. The same values
follow from operations that have both. For anything else there is a sentence that names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from attacks.engine.convolution import conv2d
from attacks.engine.normalisation import batch_norm
from dpbench.protocol import InputError

_ONCE = (
    (re.compile(r"derivative for '?(?:aten::)?_?(\w+?)(?:_backward)?'? is not implemented"), r"\1"),
    (re.compile(r"[Dd]ouble backwards? on (\w+) not supported"), r"\1"),
    (re.compile(r"Double backwards is not supported for (CuDNN RNNs)"), r"\1"),
    (re.compile(r"(torch\.compile).* does not currently support double backward"), r"\1"),
)
"""What PyTorch says where the second backward pass fails, and the name of the operation in it."""


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Context in which attention and hardsigmoid are made of operations with a second derivative.

    Convolutions are those of `attacks.engine.convolution`, whose second derivative takes less time.

    It also keeps `nn.MultiheadAttention` off its fast path, which serves no torch function mode.
    """
    with sdpa_kernel(SDPBackend.MATH), _Decomposed():
        yield


class _Decomposed(TorchFunctionMode):
    """Replaces hardsigmoid and convolutions, called as functions or by their modules."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _REPLACED.get(func, func)(*args, **(kwargs or {}))


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """`F.hardsigmoid` with a second derivative.

    Example:
        >>> hardsigmoid(torch.tensor([-4.0, 0.0, 1.5, 4.0]))
        tensor([0.0000, 0.5000, 0.7500, 1.0000])
    """
    value = F.relu6(input + 3) / 6
    return input.copy_(value) if inplace else value


_REPLACED = {F.hardsigmoid: hardsigmoid, F.conv2d: conv2d, F.batch_norm: batch_norm}


def operation_of(error: RuntimeError) -> str | None:
    """The operation without a second derivative that `error` is about; None for any other error.

    Example:
        >>> operation_of(RuntimeError("derivative for aten::hardsigmoid_backward is not implemented"))
        'hardsigmoid'
    """
    for pattern, name in _ONCE:
        if match := pattern.search(str(error)):
            return match.expand(name)
    return None


def functions_once_differentiable(outputs: Sequence[Tensor]) -> list[str]:
    """Watches the autograd Functions behind `outputs` while their gradient is taken with `create_graph`.

    One whose backward pass is marked `once_differentiable`, or leaves autograd, does not fail when its
    gradient is differentiated: autograd drops its share, and the result is silently wrong.

    Returns:
        A list that holds the names of such Functions once the gradient has been taken.
    """
    names: list[str] = []
    seen: set[Any] = set()
    left = [y.grad_fn for y in outputs if y.grad_fn is not None]
    while left:
        node = left.pop()
        if node in seen:
            continue
        seen.add(node)
        left += [following for following, _ in node.next_functions if following is not None]
        if isinstance(node, BackwardCFunction):
            node.register_hook(_note(node.name().removesuffix("Backward"), names))
    return names


def _note(name: str, names: list[str]) -> Callable[[Sequence[Tensor], Sequence[Tensor]], None]:
    def hook(given: Sequence[Tensor], received: Sequence[Tensor]) -> None:
        if not any(g is not None and g.requires_grad for g in received):
            return  # this pass is not to be differentiated
        for g in given:
            marked = g is not None and g.grad_fn is not None and g.grad_fn.name() == "torch::autograd::Error"
            if marked or (g is not None and not g.requires_grad and bool(g.any())):
                names.append(name)

    return hook


def refusal(model: nn.Module, images: Tensor, operation: str) -> InputError:
    """The sentence that names `operation` and the innermost module it is in.

    Args:
        model: the victim; it runs once more.
        images: [B, C, H, W], what it takes.
        operation: what has no second derivative.
    """
    found: list[str] = []

    def examine(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            if not found and _once(output, [*args, *kwargs.values()]):  # inner modules finish first
                found.append(
                    f"its module {name} ({type(module).__name__})" if name else type(module).__name__
                )

        return hook

    hooks = [
        module.register_forward_hook(examine(name), with_kwargs=True)
        for name, module in model.named_modules()
    ]
    try:
        with torch.enable_grad(), twice_differentiable():
            model(images.detach().requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    where = found[0] if found else "its loss"
    return InputError(
        f"The attack differentiates the victim twice, and {operation} in {where} can be differentiated only "
        "once: replace it by other operations, or choose an attack without a second derivative, such as "
        "label-restoration."
    )


def _once(output: Any, inputs: Sequence[Any]) -> bool:
    """Whether something between a module's inputs and its output has no second derivative."""
    given = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
    outputs = output if isinstance(output, tuple | list) else (output,)
    outputs = [y for y in outputs if isinstance(y, Tensor) and y.requires_grad]
    if not given or not outputs:
        return False
    cotangents = [torch.ones_like(y).requires_grad_() for y in outputs]
    silent = functions_once_differentiable(outputs)
    try:
        first = torch.autograd.grad(outputs, given, cotangents, create_graph=True, allow_unused=True)
        sums = [g.sum() for g in first if g is not None and g.requires_grad]
        if sums:
            torch.autograd.grad(sums, [*given, *cotangents], retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        return operation_of(error) is not None
    return bool(silent)
