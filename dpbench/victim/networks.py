"""Victim networks that per-sample gradients can be taken of: every block out of place, every norm per-sample.

Parameter names are torchvision's, so its ResNet weights load. Torchvision's own ResNets add the shortcut in
place, which Opacus' backward hooks refuse. All networks take RGB images in [0, 1] and normalise inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpbench.data.channels import CIFAR10_MEAN, CIFAR10_STD
from dpbench.protocol import InputError, Registry

models: Registry[Callable[..., nn.Module]] = Registry("model")
NORMS = ("none", "frozen-bn", "gn", "bn")


class Normalise(nn.Module):
    """Maps images in [0, 1] to zero mean and unit variance per channel; owns buffers only."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise `images` [B, C, H, W]."""
        return (images - self.mean) / self.std


class FrozenBatchNorm2d(nn.Module):
    """Batch norm that always uses its stored public statistics, with a trainable affine map.

    Each sample's output depends on that sample only, so per-sample gradients (and DP-SGD) are well defined.
    State-dict names are those of `nn.BatchNorm2d`.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def normalised(self, x: Tensor) -> Tensor:
        """`x` [B, C, H, W] with the stored statistics taken out, before the affine map."""
        scale = torch.rsqrt(self.running_var + self.eps)
        return x * scale[:, None, None] - (self.running_mean * scale)[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        """One fused affine map, which makes the attack's double backward cheaper than batch norm's."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return x * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]


def norm_layer(norm: str) -> Callable[[int], nn.Module]:
    """The constructor `channels -> module` of a norm in `NORMS`; `bn` is for training victims only."""
    if norm not in NORMS:
        raise InputError(f"Unknown norm {norm!r}; choose one of {', '.join(NORMS[:-1])}.")
    return {
        "none": lambda channels: nn.Identity(),
        "frozen-bn": FrozenBatchNorm2d,
        "gn": lambda channels: nn.GroupNorm(min(32, channels // 4), channels),
        "bn": nn.BatchNorm2d,
    }[norm]


class LeNet(nn.Module):
    """DLG's LeNet: sigmoids, strides instead of pooling, smooth everywhere (Zhu et al. 2019)."""

    def __init__(
        self, num_classes: int, norm: str, size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        if norm != "none":
            raise InputError("lenet has no norm layers; use --norm none.")
        self.normalise = Normalise(mean, std)
        self.conv1 = nn.Conv2d(3, 12, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(12, 12, 5, stride=2, padding=2)
        self.conv3 = nn.Conv2d(12, 12, 5, padding=2)
        self.fc = nn.Linear(12 * (-(-size // 4)) ** 2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes]."""
        h = self.normalise(images)
        for conv in (self.conv1, self.conv2, self.conv3):
            h = torch.sigmoid(conv(h))
        return self.fc(h.flatten(1))


class ConvNet(nn.Module):
    """Three 3x3 convolutions of stride 2, ReLU, one linear layer."""

    def __init__(
        self, num_classes: int, norm: str, size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        layer, widths = norm_layer(norm), (32, 64, 96)
        self.normalise = Normalise(mean, std)
        for i, (before, after) in enumerate(zip((3, *widths), widths, strict=False), 1):
            self.add_module(f"conv{i}", nn.Conv2d(before, after, 3, stride=2, padding=1))
            self.add_module(f"norm{i}", layer(after))
        self.fc = nn.Linear(widths[-1] * (-(-size // 8)) ** 2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes]."""
        h = self.normalise(images)
        for i in (1, 2, 3):
            h = F.relu(self.get_submodule(f"norm{i}")(self.get_submodule(f"conv{i}")(h)))
        return self.fc(h.flatten(1))


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


def with_large_stem(model: ResNet) -> ResNet:
    """`model` with the 7x7 stem and pooling of larger images: weights made for them want it at any size."""
    model.conv1 = nn.Conv2d(3, model.conv1.out_channels, 7, 2, 3, bias=False)
    model.maxpool = nn.MaxPool2d(3, 2, 1)
    return model


models.add("lenet", LeNet)
models.add("convnet", ConvNet)
for _name, _block, _depths, _width in (
    ("resnet20", BasicBlock, (3, 3, 3), 16),
    ("resnet18", BasicBlock, (2, 2, 2, 2), 64),
    ("resnet50", Bottleneck, (3, 4, 6, 3), 64),
):
    models.add(
        _name,
        lambda *args, b=_block, d=_depths, w=_width: ResNet(b, d, w, *args),
    )
DEFAULT_NORM = {"lenet": "none", "convnet": "none"}


def build(
    name: str,
    num_classes: int = 10,
    norm: str | None = None,
    size: int = 32,
    mean: Sequence[float] = CIFAR10_MEAN,
    std: Sequence[float] = CIFAR10_STD,
    seed: int = 0,
) -> nn.Module:
    """A victim network with freshly drawn weights, in evaluation mode.

    Args:
        name: one of `models`.
        num_classes: outputs of the last layer.
        norm: one of `NORMS`; None takes the network's usual one (none for lenet and convnet, else frozen-bn).
        size: height and width of the images, pixels.
        mean: per-channel mean of the images in [0, 1], taken out inside the network.
        std: per-channel standard deviation, likewise.
        seed: decides the weights; the caller's random state is left as it was.

    Raises:
        InputError: for an unknown network or norm, or a network that cannot have that norm.

    Example:
        >>> sum(p.numel() for p in build("resnet20").parameters())
        272474
    """
    constructor = models[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = constructor(num_classes, norm or DEFAULT_NORM.get(name, "frozen-bn"), size, mean, std)
        if name == "lenet":  # DLG's own start: with PyTorch's default its sigmoids leak next to nothing
            for p in model.parameters():
                nn.init.uniform_(p, -0.5, 0.5)
    return model.eval()
