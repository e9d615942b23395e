"""Runners of iterations: PyTorch operations one by one, a compiled program, or a replayed CUDA graph.

A runner holds one search at a time: `load` sets its state, `run` iterates, `read` returns the state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Inputs(NamedTuple):
    """All that one iteration reads.

    Attributes:
        tensors: of the iteration's modules, by name.
        flat: the state, as in `State.flat`.
        row: of the schedule.
        labels: int64 [B].
        noise: one tensor per variable; empty where there is none.
    """

    tensors: Mapping[str, Tensor]
    flat: list[Tensor]
    row: Tensor
    labels: Tensor
    noise: list[Tensor]

    def all(self) -> list[Tensor]:
        """The tensors in one list."""
        return [*self.tensors.values(), *self.flat, self.row, self.labels, *self.noise]

    def copied(self) -> Inputs:
        """Copies at addresses of their own, in channels_last: no layout is converted around a convolution."""
        return Inputs(
            {name: _own(t) for name, t in self.tensors.items()},
            [_own(t) for t in self.flat],
            _own(self.row),
            _own(self.labels),
            [_own(t) for t in self.noise],
        )


Step = Callable[[Mapping[str, Tensor], list[Tensor], Tensor, Tensor, list[Tensor]], Sequence[Tensor]]
"""Maps what is in `Inputs`, in that order, to the next state."""
Noise = Callable[[], list[Tensor]]
"""Draws one iteration's noise; an empty list where there is none."""


class Direct:
    """Calls a step once for each iteration.

    Args:
        step: what to call.
        tensors: of the iteration's modules, by name.
        labels: int64 [B].
    """

    def __init__(self, step: Step, tensors: Mapping[str, Tensor], labels: Tensor) -> None:
        self._step = step
        self._flat: list[Tensor] = []
        self.adopt(tensors, labels)

    def adopt(self, tensors: Mapping[str, Tensor], labels: Tensor) -> None:
        """Switch to another search's weights, release and labels."""
        self._tensors, self._labels = tensors, labels

    def load(self, flat: Sequence[Tensor]) -> None:
        """Set the state."""
        self._flat = list(flat)

    def run(self, row: Tensor, noise: Noise) -> None:
        """One iteration."""
        self._flat = list(self._step(self._tensors, self._flat, row, self._labels, noise()))

    def read(self) -> list[Tensor]:
        """The state."""
        return self._flat


class ChannelsLast(Direct):
    """As `Direct`, for a step compiled for tensors as `channels_last` has them."""

    def adopt(self, tensors: Mapping[str, Tensor], labels: Tensor) -> None:
        """Switch to another search's weights, release and labels, laid out once for all iterations."""
        super().adopt(channels_last(tensors), labels)


class Graph:
    """A CUDA graph of one step, which runs without Python between its kernels.

    A graph reads fixed addresses, so it owns all its tensors. What changes is copied into them on the device,
    and one graph serves every search of the same shapes.

    Args:
        step: what to capture.
        inputs: the tensors that the graph is to own, as `Inputs.copied` makes them; nobody else may use them.
    """

    def __init__(self, step: Step, inputs: Inputs) -> None:
        self._tensors, self._flat, self._row, self._labels, self._noise = inputs
        self._stream = torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        # Warm-up and capture share a side stream: the parameters' autograd nodes are tied to the stream of
        # their first use, and a capture that meets a node of another stream fails.
        with torch.cuda.stream(self._stream):
            for _ in range(3):
                step(*inputs)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=self._stream):
            new = step(*inputs)
            for old, value in zip(self._flat, new, strict=True):
                old.copy_(value)

    def adopt(self, tensors: Mapping[str, Tensor], labels: Tensor) -> None:
        """Copy in another search's weights, release and labels."""
        with self._queue():
            for name, own in self._tensors.items():
                own.detach().copy_(tensors[name])
            self._labels.copy_(labels)

    def load(self, flat: Sequence[Tensor]) -> None:
        """Copy in a state."""
        with self._queue():
            for own, given in zip(self._flat, flat, strict=True):
                own.copy_(given)

    def run(self, row: Tensor, noise: Noise) -> None:
        """Queue one iteration on the graph's own stream; returns before it is done."""
        with self._queue():
            self._row.copy_(row)
            for own, drawn in zip(self._noise, noise(), strict=True):
                own.copy_(drawn)
            self._graph.replay()

    def read(self) -> list[Tensor]:
        """A copy of the state once all queued iterations are done."""
        torch.cuda.current_stream().wait_stream(self._stream)
        return [t.clone() for t in self._flat]

    def _queue(self) -> torch.cuda.StreamContext:
        self._stream.wait_stream(torch.cuda.current_stream())
        return torch.cuda.stream(self._stream)


def channels_last(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of four axes in channels_last, copied where they are not; the others as they are."""
    return {name: _laid(t) if t.dim() == 4 else t for name, t in tensors.items()}


def _laid(tensor: Tensor) -> Tensor:
    laid = tensor.detach().contiguous(memory_format=torch.channels_last)
    return laid.requires_grad_(tensor.requires_grad)


def _own(tensor: Tensor) -> Tensor:
    layout = torch.channels_last if tensor.dim() == 4 else torch.preserve_format
    return tensor.detach().clone(memory_format=layout).requires_grad_(tensor.requires_grad)
