"""An iteration as a function of all its tensors: run as it is, or traced and compiled by Inductor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from attacks.engine.iteration import Iteration
from attacks.engine.leftovers import remove_unfinished
from attacks.engine.runners import Inputs, Step
from dpbench.protocol import functional_call

ON_CARD = {"combo_kernels": True}
"""What Inductor is asked to do on a graphics card: run small independent kernels as one."""


def tensors_of(iteration: Iteration) -> dict[str, Tensor]:
    """Parameters and buffers by name; the victim's trainable parameters require gradients."""
    return {**dict(iteration.named_parameters()), **dict(iteration.named_buffers())}


def plain(iteration: Iteration) -> Step:
    """The iteration, one PyTorch operation after the other."""

    def step(
        tensors: Mapping[str, Tensor], flat: list[Tensor], row: Tensor, labels: Tensor, noise: list[Tensor]
    ) -> list[Tensor]:
        return functional_call(iteration, dict(tensors), (flat, row, labels, noise))

    return step


def compiled(iteration: Iteration, inputs: Inputs) -> Step:
    """The iteration traced with `make_fx`, dead code removed, compiled by Inductor.

    torch.compile has no double backward; the trace holds both backward passes as plain operations. Every
    tensor is an input, so that the program serves other weights, releases and schedules. Inductor caches the
    program on disk for later processes. It asserts the memory layout of each tensor, so `inputs` must have
    the layout of those that the program will be called with.

    Raises:
        Exception: whatever tracing or Inductor (its C++ or Triton compiler) raises.
    """
    import torch._inductor  # takes a second to import, and few searches compile
    from torch._inductor import config
    from torch._inductor.runtime.cache_dir_utils import cache_dir
    from torch.fx.experimental.proxy_tensor import make_fx

    remove_unfinished(Path(cache_dir()))
    names = list(inputs.tensors)
    arguments = _detached(inputs.all())
    traced = make_fx(_whole(iteration, inputs))(*arguments)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    with torch.no_grad(), config.patch(ON_CARD if inputs.row.device.type == "cuda" else {}):
        program = torch._inductor.compile(traced, arguments)

    def step(
        tensors: Mapping[str, Tensor], flat: list[Tensor], row: Tensor, labels: Tensor, noise: list[Tensor]
    ) -> Sequence[Tensor]:
        with torch.no_grad():
            return program(*_detached([*(tensors[name] for name in names), *flat, row, labels, *noise]))

    return step


def _whole(iteration: Iteration, inputs: Inputs) -> Callable[..., list[Tensor]]:
    """The iteration as a function of plain tensors, in the order of `Inputs.all`."""
    requires_grad = {name: tensor.requires_grad for name, tensor in inputs.tensors.items()}
    counts = (len(requires_grad), len(inputs.flat), 1, 1, len(inputs.noise))

    def whole(*arguments: Tensor) -> list[Tensor]:
        rest = iter(arguments)
        given, flat, (row,), (labels,), drawn = ([next(rest) for _ in range(n)] for n in counts)
        named = {
            name: tensor.detach().requires_grad_(wanted)
            for (name, wanted), tensor in zip(requires_grad.items(), given, strict=True)
        }
        return functional_call(iteration, named, (flat, row, labels, drawn))

    return whole


def _detached(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.detach() for t in tensors]
