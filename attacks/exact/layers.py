"""A model read as a chain: layers with weights, and what is done to each value by itself between them.

A model is traced (`torch.fx`) and run on a probe, so that the chain follows from what the model computes and
not from its name. Values between layers are flat: reshaping and flattening change nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Affine:
    """v -> gain * v + offset, value by value: normalisation, batch norm with fixed statistics.

    Attributes:
        gain: [values].
        offset: [values].
    """

    gain: Tensor
    offset: Tensor


@dataclass(frozen=True)
class Activation:
    """An activation function: `relu`, `leaky_relu`, `sigmoid` or `tanh`.

    Attributes:
        kind: its name.
        slope: of negative values; leaky ReLU only.
    """

    kind: str
    slope: float = 0.0


Pointwise = Affine | Activation


@dataclass(frozen=True)
class Layer:
    """A convolution; a fully connected layer is one with a 1x1 kernel and a 1x1 image.

    Attributes:
        name: the module's, as in `Module.named_modules`.
        weight: [O, C / groups, kh, kw].
        bias: [O]; None without one.
        trained: its weight's gradient is released.
        dense: it is a fully connected layer.
        input_shape: (C, H, W).
        output_shape: (O, h, w).
        stride: (rows, columns).
        padding: zeros on the left, right, top and bottom.
        dilation: (rows, columns).
        groups: groups of channels, each with filters of its own.
    """

    name: str
    weight: Tensor
    bias: Tensor | None
    trained: bool
    dense: bool
    input_shape: tuple[int, int, int]
    output_shape: tuple[int, int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs [N, O, h, w] of inputs [N, C, H, W], bias included."""
        padded = F.pad(x, self.padding)
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def transposed(self, delta: Tensor) -> Tensor:
        """The loss gradient at the inputs, [N, C, H, W], from that at the outputs, [N, O, h, w]."""
        left, right, top, bottom = self.padding
        channels, height, width = self.input_shape
        shape = (len(delta), channels, height + top + bottom, width + left + right)
        found = torch.nn.grad.conv2d_input(
            shape, self.weight, delta, self.stride, 0, self.dilation, self.groups
        )
        return found[:, :, top : top + height, left : left + width]

    def taps(self) -> Tensor:
        """[kh * kw, h * w]: the input pixel that each kernel entry meets at each output; H * W is padding."""
        _, height, width = self.input_shape
        pixels = torch.arange(height * width, dtype=torch.float64).view(1, 1, height, width)
        padded = F.pad(pixels, self.padding, value=float(height * width))
        kernel = tuple(self.weight.shape[2:])
        return F.unfold(padded, kernel, dilation=self.dilation, stride=self.stride)[0].long()


@dataclass(frozen=True)
class Block:
    """A layer, and what happens to each of its outputs before the next layer."""

    layer: Layer
    pointwise: tuple[Pointwise, ...] = ()


@dataclass(frozen=True)
class Chain:
    """What a model does to an image, from the image on, as far as it is a chain.

    Attributes:
        head: what happens to each pixel before the first layer.
        blocks: the layers in order.
        end: what ends the chain, such as "the operation `add`"; empty where the chain is the whole model.
    """

    head: tuple[Pointwise, ...]
    blocks: tuple[Block, ...]
    end: str = ""


def read(model: nn.Module, image_shape: tuple[int, int, int]) -> Chain:
    """The chain that `model` begins with, in float64 on the CPU; the model stays as it is.

    A layer belongs to it if its weights serve once and its output goes to one place.

    Args:
        model: takes images [1, C, H, W].
        image_shape: (C, H, W).
    """
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    model = copy.deepcopy(model).double().cpu()
    try:
        traced = fx.symbolic_trace(model)
    except Exception:  # control flow, hooks, custom operations: tracing fails in many ways
        return Chain((), (), f"{type(model).__name__}, which `torch.fx` cannot trace")
    reader = _Reader(traced, trained)
    probe = torch.rand(1, *image_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    try:
        with torch.no_grad():
            reader.run(probe)
    except _Ended as end:
        return Chain(tuple(reader.head), tuple(reader.blocks()), str(end))
    except Exception as error:  # whatever a model may do with an image of float64
        end = f"{type(model).__name__}, which does not run in float64 ({type(error).__name__})"
        return Chain(tuple(reader.head), tuple(reader.blocks()), end)
    return Chain(tuple(reader.head), tuple(reader.blocks()))


class _Ended(Exception):  # noqa: N818 (no error: it ends the reading)
    """The chain ends here; the message says at what."""


ACTIVATIONS = {
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    F.relu: "relu",
    F.leaky_relu: "leaky_relu",
    F.sigmoid: "sigmoid",
    F.tanh: "tanh",
    torch.relu: "relu",
    torch.sigmoid: "sigmoid",
    torch.tanh: "tanh",
    "relu": "relu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
}
"""What a module's class, a function or a tensor's method of these does."""


class _Reader(fx.Interpreter):
    """Runs a traced model on a probe and notes what it does to it, until that is no chain any more."""

    def __init__(self, traced: fx.GraphModule, trained: set[str]) -> None:
        super().__init__(traced, garbage_collect_values=False)
        self.extra_traceback = False  # it would add to the message of `_Ended`
        self.trained, self.head, self.read = trained, [], []
        self.images: set[fx.Node] = set()  # nodes whose value is a tensor that depends on the images
        parameters = list(traced.named_parameters(remove_duplicate=False))
        self.owners = [id(p) for _, p in parameters]
        self.calls = [node.target for node in traced.graph.nodes if node.op in ("call_module", "get_attr")]

    def blocks(self) -> Iterator[Block]:
        """The layers read so far."""
        for layer, pointwise in self.read:
            yield Block(layer, tuple(pointwise))

    def run_node(self, node: fx.Node) -> Any:
        """The node's value, after it was added to the chain."""
        sources = [each for each in node.all_input_nodes if each in self.images]
        if node.op == "placeholder":
            value = super().run_node(node)
        elif node.op == "output" or not sources:
            return super().run_node(node)
        else:
            before = self.env[sources[0]].clone()  # an operation in place would change it
            value = super().run_node(node)
            if isinstance(value, tuple | list) and any(isinstance(part, Tensor) for part in value):
                raise _Ended(self.described(node))  # in parts
            if not isinstance(value, Tensor):
                return value  # a size, say
            if len(sources) > 1:
                raise _Ended(self.described(node))
            self.add(node, sources[0], before, value)
        self.images.add(node)
        if sum(self.takes_values(user) for user in node.users) > 1:
            raise _Ended(f"{self.described(node)}, which goes to more than one place")
        return value

    def takes_values(self, user: fx.Node) -> bool:
        """Whether a node uses more of a tensor than its shape."""
        if user.op == "call_method":
            return user.target not in ("size", "dim", "numel")
        return user.target is not getattr or user.args[1] not in ("shape", "ndim", "dtype", "device")

    def add(self, node: fx.Node, source: fx.Node, before: Tensor, after: Tensor) -> None:
        """Note what `node` does to `before`."""
        module = self.fetch_attr(node.target) if node.op == "call_module" else None
        kind = ACTIVATIONS.get(node.target if module is None else type(module))
        pointwise = self.read[-1][1] if self.read else self.head
        if isinstance(module, nn.Conv2d | nn.Linear):
            self.read.append((self.layer(node, module, before, after), []))
        elif kind is not None:
            slope = module.negative_slope if isinstance(module, nn.LeakyReLU) else 0.0
            if kind == "leaky_relu" and module is None:
                slope = float(-node.target(-torch.ones(1).double(), *node.args[1:], **node.kwargs))
            pointwise.append(Activation(kind, slope))
        elif after.numel() == before.numel() and torch.equal(after.flatten(), before.flatten()):
            return  # another shape, or nothing at all
        elif after.shape == before.shape and (affine := self.affine(node, source, before, after)):
            pointwise.append(affine)
        else:
            raise _Ended(self.described(node))

    def affine(self, node: fx.Node, source: fx.Node, before: Tensor, after: Tensor) -> Affine | None:
        """The node as an affine map of each value by itself; None where it is none."""

        def at(x: Tensor) -> Tensor:
            self.env[source] = x
            return super(_Reader, self).run_node(node)

        offset = at(torch.zeros_like(before)).clone()
        gain = at(torch.ones_like(before)).clone() - offset
        self.env[source] = before
        fits = torch.allclose(gain * before + offset, after, rtol=1e-9, atol=1e-9) and bool((gain != 0).all())
        return Affine(gain.flatten(), offset.flatten()) if fits else None

    def layer(self, node: fx.Node, module: nn.Conv2d | nn.Linear, before: Tensor, after: Tensor) -> Layer:
        """The layer that `module` is."""
        shared = self.calls.count(node.target) + self.calls.count(f"{node.target}.weight") > 1
        if shared or self.owners.count(id(module.weight)) > 1:
            raise _Ended(f"{self.described(node)}, whose weights serve more than once")
        common = {
            "name": str(node.target),
            "weight": module.weight.detach(),
            "bias": None if module.bias is None else module.bias.detach(),
            "trained": f"{node.target}.weight" in self.trained,
        }
        if isinstance(module, nn.Linear):
            if before.dim() != 2:
                raise _Ended(f"{self.described(node)}, which serves several places of an image at once")
            common["weight"] = common["weight"][:, :, None, None]
            shapes = ((module.in_features, 1, 1), (module.out_features, 1, 1))
            return Layer(**common, dense=True, input_shape=shapes[0], output_shape=shapes[1])
        if module.padding_mode != "zeros" or before.dim() != 4:
            raise _Ended(f"{self.described(node)} with `padding_mode` {module.padding_mode}")
        return Layer(
            **common,
            dense=False,
            input_shape=tuple(before.shape[1:]),
            output_shape=tuple(after.shape[1:]),
            stride=module.stride,
            padding=tuple(module._reversed_padding_repeated_twice),
            dilation=module.dilation,
            groups=module.groups,
        )

    def described(self, node: fx.Node) -> str:
        """What the reader of a message knows the node by."""
        if node.op == "placeholder":
            return "the image"
        if node.op == "call_module":
            return f"the layer `{node.target}` ({type(self.fetch_attr(node.target)).__name__})"
        return f"the operation `{node.target if node.op == 'call_method' else node.target.__name__}`"
