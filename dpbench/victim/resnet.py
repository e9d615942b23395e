"""Residual networks with torchvision's parameter names, so that its weights load.

Torchvision's own ResNets add the shortcut in place, which Opacus' backward hooks refuse; these do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from dpbench.protocol import InputError
from dpbench.victim.facts import Facts
from dpbench.victim.layers import Normalise, norm_layer
from dpbench.victim.networks import network


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016)."""

    expansion = 1

    def __init__(self, before: int, width: int, stride: int, layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = layer(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = layer(width)
        self.downsample = shortcut(before, width, stride, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Features of half the size where stride is 2."""
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; the 3x3 carries the stride (torchvision's v1.5)."""

    expansion = 4

    def __init__(self, before: int, width: int, stride: int, layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        after = width * self.expansion
        self.conv1 = nn.Conv2d(before, width, 1, bias=False)
        self.bn1 = layer(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = layer(width)
        self.conv3 = nn.Conv2d(width, after, 1, bias=False)
        self.bn3 = layer(after)
        self.downsample = shortcut(before, after, stride, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Features of half the size where stride is 2."""
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(self.bn2(self.conv2(h)))
        return F.relu(self.bn3(self.conv3(h)) + self.downsample(x))


def shortcut(before: int, after: int, stride: int, layer: Callable[[int], nn.Module]) -> nn.Module:
    """The identity, or a 1x1 convolution where the shape changes."""
    if stride == 1 and before == after:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), layer(after))


class ResNet(nn.Module):
    """A residual network with torchvision's names; images up to 64 px get a 3x3 stem without pooling."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        width: int,
        num_classes: int,
        norm: str,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        if norm == "none":
            raise InputError("A ResNet needs a norm: use --norm frozen-bn or gn (convnet runs without one).")
        layer, small = norm_layer(norm), size <= 64
        self.normalise = Normalise(mean, std)
        self.conv1 = nn.Conv2d(3, width, *((3, 1, 1) if small else (7, 2, 3)), bias=False)
        self.bn1 = layer(width)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        before = width
        for i, depth in enumerate(depths):
            blocks, inner = [], width * 2**i
            for j in range(depth):
                blocks.append(block(before, inner, 2 if i and j == 0 else 1, layer))
                before = inner * block.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.stages = len(depths)
        self.fc = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes]."""
        h = self.maxpool(F.relu(self.bn1(self.conv1(self.normalise(images)))))
        for i in range(self.stages):
            h = self.get_submodule(f"layer{i + 1}")(h)
        return self.fc(h.mean((2, 3)))

    def suit(self, tensors: Mapping[str, Tensor], facts: Facts) -> None:
        """Take over the stem that `tensors` were made with, and the place of the stride that `facts` name.

        Args:
            tensors: a state dict in torchvision's names.
            facts: what its file says besides.
        """
        stem = tensors.get("conv1.weight")
        if stem is not None and "layer1.0.conv1.weight" in tensors and stem.shape[-2:] == (7, 7):
            self.conv1 = nn.Conv2d(3, self.conv1.out_channels, 7, 2, 3, bias=False)
            self.maxpool = nn.MaxPool2d(3, 2, 1)
        for module in self.modules():
            if facts.stride_in == "conv1" and isinstance(module, Bottleneck):
                stride = max(module.conv1.stride, module.conv2.stride)
                module.conv1.stride, module.conv2.stride = stride, (1, 1)


@network("resnet20")
def resnet20(num_classes: int, norm: str, size: int, mean: Sequence[float], std: Sequence[float]) -> ResNet:
    """Three stages of three blocks, 16 channels at first: the CIFAR network of He et al. (2016)."""
    return ResNet(BasicBlock, (3, 3, 3), 16, num_classes, norm, size, mean, std)


@network("resnet18")
def resnet18(num_classes: int, norm: str, size: int, mean: Sequence[float], std: Sequence[float]) -> ResNet:
    """Torchvision's ResNet-18."""
    return ResNet(BasicBlock, (2, 2, 2, 2), 64, num_classes, norm, size, mean, std)


@network("resnet50")
def resnet50(num_classes: int, norm: str, size: int, mean: Sequence[float], std: Sequence[float]) -> ResNet:
    """Torchvision's ResNet-50."""
    return ResNet(Bottleneck, (3, 4, 6, 3), 64, num_classes, norm, size, mean, std)
