"""A residual network read as blocks, and one image's features solved for from the last block downwards.

Batch norm with fixed statistics is affine, so a block is convolutions, affine maps, two ReLUs and a shortcut.
The loss gradient at a block's output is known from the block behind it. The gradients of the block's weights
are then linear in what its convolutions took, as in a chain (`solve`); the shortcut only adds a term to the
loss gradient. How it begins, at the last block, is in `places`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from attacks.exact.activations import undone
from attacks.exact.layers import Activation, Layer
from attacks.exact.solve import Estimate, gradient_system, inputs
from dpbench.protocol import bottleneck_head

RELU = (Activation("relu"),)
DECIDED = 1e-6
"""Smallest singular value of a layer's equations, relative to the largest, that decides its inputs."""
WRONG = 0.05
"""Share of the largest input: an input below minus that shows that the inputs are wrong."""


@dataclass(frozen=True)
class Step:
    """A convolution without bias and the affine map of each channel behind it.

    Attributes:
        layer: the convolution.
        gain: [O, 1, 1].
        offset: [O, 1, 1].
        norm: name of the module that the map is.
    """

    layer: Layer
    gain: Tensor
    offset: Tensor
    norm: str


@dataclass(frozen=True)
class Block:
    """relu(second(relu(first(x))) + shortcut(x)); the shortcut is the identity where there is none."""

    name: str
    first: Step
    second: Step
    shortcut: Step | None


@dataclass(frozen=True)
class Level:
    """What one image is inside a block, in float64.

    Attributes:
        block: which one.
        inner: [O, h, w], what its first ReLU took, right where it is positive; zero where ReLU was off.
        outer: likewise what its last ReLU took; None where that is not known.
    """

    block: Block
    inner: Tensor
    outer: Tensor | None


def read(model: nn.Module, image_shape: tuple[int, int, int]) -> tuple[Block, ...]:
    """The blocks of a residual network, the first first; none for any other model.

    Modules are recognised by torchvision's names (`conv1`, `bn1`, `conv2`, `bn2`, `downsample`, `fc`). They
    count only if what is read computes what the modules compute, each block takes what the one before it
    gave, and the last layer takes the means of the last block's outputs.

    Args:
        model: takes images [1, C, H, W].
        image_shape: (C, H, W).
    """
    model = copy.deepcopy(model).double().cpu()
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(partial(_note, seen, name))
    probe = torch.rand(1, *image_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        try:
            model(probe)
        except (RuntimeError, TypeError, ValueError, AssertionError):
            # it mixes float64 with a type or a device of its own, or checks what it is given; nothing else is
            # the network's doing
            return ()
        blocks = tuple(
            block
            for name, module in model.named_modules()
            if all(isinstance(getattr(module, part, None), nn.Conv2d) for part in ("conv1", "conv2"))
            and (block := _block(name, module, seen)) is not None
        )
        name, fc = head(model)
        if not blocks or not isinstance(fc, nn.Linear) or fc.bias is None or name not in seen:
            return ()
        given, left = ([seen[block.name][i] for block in blocks] for i in (0, 1))
        same = all(torch.equal(x, y) for x, y in zip(given[1:], left[:-1], strict=True))
        pooled = left[-1].mean((2, 3))
        same = same and pooled.shape == seen[name][0].shape and torch.allclose(pooled, seen[name][0])
    return blocks if same else ()


def head(model: nn.Module) -> tuple[str, nn.Module | None]:
    """The layer that takes the pooled features, and its name: `fc`, or the encoder of a random code there."""
    found = bottleneck_head(model)
    if found is not None and found[0] == "fc":
        return "fc.bottleneck.encoder", found[1].bottleneck.encoder
    return "fc", getattr(model, "fc", None)


def _note(
    seen: dict[str, tuple[Tensor, Tensor]], name: str, module: nn.Module, given: tuple, output: object
) -> None:
    if given and isinstance(given[0], Tensor) and isinstance(output, Tensor):
        seen[name] = given[0], output


def _block(name: str, module: nn.Module, seen: Mapping[str, tuple[Tensor, Tensor]]) -> Block | None:
    parts = dict(module.named_children())
    if not {"bn1", "bn2", "downsample"} <= parts.keys() or "conv3" in parts or name not in seen:
        return None
    steps = [_step(name, f"conv{i}", f"bn{i}", module, seen) for i in (1, 2)]
    shortcut = None
    if not isinstance(module.downsample, nn.Identity):
        shortcut = _step(f"{name}.downsample", "0", "1", module.downsample, seen)
        if shortcut is None:
            return None
    if None in steps:
        return None
    block = Block(name, steps[0], steps[1], shortcut)
    x, out = seen[name]
    return block if torch.allclose(outputs(block, x)[1].relu(), out) else None


def _step(
    home: str, conv: str, norm: str, module: nn.Module, seen: Mapping[str, tuple[Tensor, Tensor]]
) -> Step | None:
    layer, affine = module.get_submodule(conv), module.get_submodule(norm)
    if not isinstance(layer, nn.Conv2d) or layer.bias is not None or layer.groups != 1:
        return None
    if layer.padding_mode != "zeros" or not layer.weight.requires_grad:
        return None
    before, after = seen[f"{home}.{conv}"]
    offset = affine(torch.zeros_like(after))
    gain = affine(torch.ones_like(after)) - offset
    read = Layer(
        name=f"{home}.{conv}",
        weight=layer.weight.detach(),
        bias=None,
        trained=True,
        dense=False,
        input_shape=tuple(before.shape[1:]),
        output_shape=tuple(after.shape[1:]),
        stride=layer.stride,
        padding=tuple(layer._reversed_padding_repeated_twice),
        dilation=layer.dilation,
    )
    return Step(read, gain[0, :, :1, :1], offset[0, :, :1, :1], f"{home}.{norm}")


def outputs(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the two ReLUs of a block take where it takes `x` [N, C, H, W]."""
    first, second, shortcut = block.first, block.second, block.shortcut
    inner = first.layer(x) * first.gain + first.offset
    outer = second.layer(inner.relu()) * second.gain + second.offset
    return inner, outer + (x if shortcut is None else shortcut.layer(x) * shortcut.gain + shortcut.offset)


def descend(blocks: tuple[Block, ...], delta: Tensor, gradients: Mapping[str, Tensor]) -> Level | None:
    """The lowest block inside which the image's features are determined; None if the last one's are not.

    Args:
        blocks: as `read` gives them.
        delta: float64 [O, h, w], the loss gradient at what the last block's last ReLU takes.
        gradients: released, by name, float64.
    """
    level, outer = None, None
    for i in range(len(blocks) - 1, -1, -1):
        block = blocks[i]
        inner, below = _inside(block, delta, gradients)
        if inner is None:
            return level
        level = Level(block, inner.values.view(below.shape), outer)
        if i == 0:
            return level
        first, behind = block.first, f"{blocks[i - 1].second.norm}.bias"
        known = Estimate(
            ((level.inner - first.offset) / first.gain).flatten(),
            (inner.deviations.view(below.shape) / first.gain.abs()).flatten(),
        )
        x = _taken(first, below, gradients, known)
        if x is None:
            return level
        back = first.layer.transposed((below * first.gain)[None])[0]
        if (shortcut := block.shortcut) is not None:
            back = back + shortcut.layer.transposed((delta * shortcut.gain)[None])[0]
        else:
            back = back + delta
        before, passed = undone(RELU, x, back.flatten(), gradients.get(behind))
        outer, delta = before.values.view(back.shape), passed.view(back.shape)
    return level


def _inside(block: Block, delta: Tensor, gradients: Mapping[str, Tensor]) -> tuple[Estimate | None, Tensor]:
    """What a block's first ReLU took, and the loss gradient there; None where that is not determined."""
    second = block.second
    unknown = Estimate(torch.zeros_like(delta).flatten(), torch.full_like(delta, torch.inf).flatten())
    taken = _taken(second, delta, gradients, unknown)
    if taken is None:
        return None, delta
    back = second.layer.transposed((delta * second.gain)[None])[0]
    total = gradients.get(f"{block.first.norm}.bias")
    inner, passed = undone(RELU, taken, back.flatten(), total)
    return inner, passed.view(back.shape)


def _taken(step: Step, delta: Tensor, gradients: Mapping[str, Tensor], known: Estimate) -> Estimate | None:
    """What a convolution took; None unless the gradient of its weights decides that."""
    inner, gradient = delta * step.gain, gradients.get(f"{step.layer.name}.weight")
    if gradient is None:
        return None
    system, _ = gradient_system(step.layer, inner.flatten(1), gradient)
    if system.shape[0] < system.shape[1]:
        return None
    singular = torch.linalg.svdvals(system)
    if not float(singular[-1]) > DECIDED * float(singular[0]):
        return None
    found = inputs(step.layer, inner.flatten(), gradient, known)
    return None if float(found.values.min()) < -WRONG * float(found.values.max()) else found
