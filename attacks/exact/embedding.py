"""Where a vision transformer cuts an image into patches and adds a position embedding to them.

It is found by running the model's modules on probes, so names do not matter.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACCURATE = 1e-9
"""Largest relative difference, in float64, of what should be equal."""


@dataclass(frozen=True)
class Embedding:
    """N patches of P values each, embedded by one layer in D dimensions and added to a position embedding.

    Attributes:
        weight: name of the layer's weight, of D * P entries.
        position: name of the position embedding.
        entries: int64 [N, D], which of its flat entries are added to the patches; others belong to tokens
            that show no patch.
        pixels: int64 [N, P], which pixel of the flat image each value shows; -1 where it shows none.
        gain: float64 [N, P]; a value is gain * pixel + offset.
        offset: likewise.
    """

    weight: str
    position: str
    entries: Tensor
    pixels: Tensor
    gain: Tensor
    offset: Tensor

    def values(self, image: Tensor) -> Tensor:
        """The patches [N, P] of a float64 image [C, H, W]."""
        shown = image.flatten()[self.pixels.clamp_min(0)]
        return torch.where(self.pixels < 0, 0, shown) * self.gain + self.offset

    def covers(self, count: int) -> bool:
        """Whether each of an image's `count` pixels is in a patch."""
        return len(self.pixels[self.pixels >= 0].unique()) == count

    def image(self, values: Tensor, background: Tensor) -> Tensor:
        """The image [C, H, W] with these patches; mean where they overlap, `background` where none is."""
        shown = self.pixels >= 0
        index = self.pixels[shown]
        count = torch.zeros_like(background).flatten().index_add_(0, index, torch.ones_like(values[shown]))
        pixels = ((values - self.offset) / self.gain)[shown]
        total = torch.zeros_like(count).index_add(0, index, pixels)
        return torch.where(count > 0, total / count.clamp_min(1), background.flatten()).view_as(background)


def read(model: nn.Module, image_shape: tuple[int, int, int]) -> Embedding | None:
    """A model's patches and position embedding; None where there are none.

    Those that train come first; what is frozen is found, too, so that one can say what was not sent.

    Args:
        model: takes images [1, C, H, W].
        image_shape: (C, H, W).
    """
    found = _read(copy.deepcopy(model).double().cpu(), image_shape)
    if found is None and not all(p.requires_grad for p in model.parameters()):
        found = _read(copy.deepcopy(model).double().cpu().requires_grad_(True), image_shape)
    return found


def _read(model: nn.Module, image_shape: tuple[int, int, int]) -> Embedding | None:
    """As `read` of those that train; `model` is in float64 and gets hooks."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    for name, module in layers.items():
        module.register_forward_hook(partial(_note, seen, name))
    count = torch.Size(image_shape).numel()
    random = torch.rand(image_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    numbered = torch.arange(1, count + 1, dtype=torch.float64).view(image_shape) / (count + 1)
    inputs: list[dict[str, Tensor]] = []
    try:
        for probe in (torch.zeros(image_shape).double(), torch.ones(image_shape).double(), numbered, random):
            seen.clear()
            with torch.enable_grad():
                logits = model(probe[None])
            inputs.append({name: _patches(layers[name], given) for name, (given, _) in seen.items()})
        cotangent = torch.linspace(-1, 1, logits.numel(), dtype=torch.float64).view_as(logits)
        found = {name: output for name, (_, output) in seen.items() if output.requires_grad}
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        wanted = [*found.values(), *parameters.values()]
        gradients = torch.autograd.grad(logits, wanted, cotangent, allow_unused=True)
    except (RuntimeError, TypeError, ValueError, AssertionError, AttributeError):
        return None  # it mixes float64 with a type or a device of its own, or checks what it is given
    deltas = dict(zip(found, gradients, strict=False))
    trained = dict(zip(parameters, gradients[len(found) :], strict=True))
    for name, delta in deltas.items():
        if delta is None or f"{name}.weight" not in trained or any(name not in each for each in inputs):
            continue
        shown = _pixels(*(each[name] for each in inputs), count, random)
        if shown is None:
            continue
        rows = _rows(delta, isinstance(layers[name], nn.Conv2d))
        for position, gradient in trained.items():
            if gradient is not None and (entries := _added(gradient, rows)) is not None:
                return Embedding(f"{name}.weight", position, entries, *shown)
    return None


def _note(
    seen: dict[str, tuple[Tensor, Tensor]], name: str, module: nn.Module, given: tuple, output: Tensor
) -> None:
    seen[name] = given[0], output


def _patches(layer: nn.Conv2d | nn.Linear, given: Tensor) -> Tensor:
    """What a layer takes at each place, [N, P]; its weight as a matrix [D, P] multiplies each row."""
    if isinstance(layer, nn.Linear):
        return given.detach().reshape(-1, layer.in_features)
    if layer.groups > 1 or layer.padding_mode != "zeros" or not isinstance(layer.padding, tuple):
        return given.new_empty(0, 0)
    spread = F.unfold(given.detach(), layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return spread[0].mT


def _rows(output: Tensor, convolution: bool) -> Tensor:
    """A layer's outputs at each place, [N, D]."""
    return output[0].flatten(1).mT if convolution else output.reshape(-1, output.shape[-1])


def _pixels(
    black: Tensor, white: Tensor, numbered: Tensor, random: Tensor, count: int, image: Tensor
) -> tuple[Tensor, Tensor, Tensor] | None:
    """`pixels`, `gain` and `offset` of an `Embedding`; None unless each value shows a pixel or none.

    Args:
        black: values [N, P] of an image of zeros.
        white: of one of ones.
        numbered: of one whose pixel i is (i + 1) / (count + 1).
        random: of `image`.
        count: pixels.
        image: float64 [C, H, W] in [0, 1].
    """
    if black.numel() < 2 or not black.shape == white.shape == numbered.shape == random.shape:
        return None
    gain = white - black
    empty = gain == 0
    places = (numbered - black) / torch.where(empty, 1, gain) * (count + 1) - 1
    if not bool(places.isfinite().all()):
        return None
    pixels = torch.where(empty, -1, places.round().clamp(0, count - 1).long())
    shown = torch.where(empty, 0, image.flatten()[pixels.clamp_min(0)])
    same = torch.allclose(gain * shown + black, random, rtol=ACCURATE, atol=ACCURATE)
    return (pixels, gain, black) if same and not bool(empty.all()) else None


def _added(gradient: Tensor, rows: Tensor) -> Tensor | None:
    """Which flat entries [N, D] of a parameter have `rows` as their gradient; None for no such parameter."""
    if gradient.numel() < rows.numel() or rows.shape[1] < 2 or not bool(rows.any()):
        return None
    entries = torch.arange(gradient.numel()).view(gradient.shape)
    flat, close = gradient.flatten(), ACCURATE * float(rows.abs().max())
    for each in _layouts(entries, rows.shape[1]):
        for first in range(len(each) - len(rows) + 1):
            part = each[first : first + len(rows)]
            if torch.allclose(flat[part[0]], rows[0], rtol=0, atol=close) and torch.allclose(
                flat[part], rows, rtol=0, atol=close
            ):
                return part
    return None


def _layouts(entries: Tensor, width: int) -> Iterator[Tensor]:
    """The entries of a parameter as tokens [M, width]: the width comes last, or before rows and columns."""
    if entries.dim() > 1 and entries.shape[-1] == width:
        yield entries.reshape(-1, width)
    if entries.dim() > 2 and entries.shape[-3:].numel() == entries.numel() and entries.shape[-3] == width:
        yield entries.reshape(width, -1).mT
