"""Small networks of the kinds that people train, with whatever ordinary networks do that is awkward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

from dpbench.protocol import Loss

CLASSES = 4
SIZE = 16


@dataclass(frozen=True)
class Network:
    """What the table tests.

    Attributes:
        build: makes the model, in the mode its user has it in.
        per_sample: what takes the gradients of each sample in a batch above 8.
        channels: of its images.
        loss: what it is trained with.
    """

    build: Callable[[], nn.Module]
    per_sample: str = "opacus"
    channels: int = 3
    loss: Loss = F.cross_entropy


class Returns(nn.Module):
    """A small network that returns `wrap(logits)`."""

    def __init__(self, wrap: Callable[[Tensor], object], classes: int = CLASSES, channels: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 4, 3, stride=4, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(64, classes)
        )
        self.wrap = wrap

    def forward(self, images: Tensor) -> object:
        """Whatever `wrap` makes of the logits."""
        return self.wrap(self.body(images))


def _plain(logits: Tensor) -> Tensor:
    return logits


def _pair(logits: Tensor) -> tuple[Tensor, Tensor]:
    return logits, logits.mean()


def _dict(logits: Tensor) -> dict[str, Tensor]:
    return {"logits": logits, "scale": logits.norm()}


def _object(logits: Tensor) -> SimpleNamespace:
    return SimpleNamespace(logits=logits, hidden_states=None)


def _twins(logits: Tensor) -> tuple[Tensor, Tensor]:
    return logits, 2 * logits


def _squeezed(logits: Tensor) -> Tensor:
    return logits[:, 0]


def binary(outputs: Tensor, labels: Tensor) -> Tensor:
    """The loss of a single logit for each image, [B] or [B, 1]."""
    return F.binary_cross_entropy_with_logits(outputs.reshape(labels.shape), labels.float())


def mobilenet() -> nn.Module:
    """MobileNetV3's parts: Hardswish, Hardsigmoid in squeeze-and-excitation, in place, batch norm."""
    settings = [
        InvertedResidualConfig(8, 3, 8, 8, True, "RE", 2, 1, 0.5),
        InvertedResidualConfig(8, 3, 16, 8, True, "HS", 1, 1, 0.5),
    ]
    return MobileNetV3(settings, 16, CLASSES).eval()


def _resnet(norm: Callable[[int], nn.Module] | None) -> nn.Module:
    """torchvision's ResNet-18 without its two widest stages, one block in each of the others."""
    model = torchvision.models.ResNet(
        torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], CLASSES, norm_layer=norm
    )
    model.layer3 = model.layer4 = nn.Identity()
    model.fc = nn.Linear(128, CLASSES)
    return model.eval()


def _groups(channels: int) -> nn.Module:
    return nn.GroupNorm(4, channels)


def transformer() -> nn.Module:
    """torchvision's VisionTransformer: nn.MultiheadAttention, GELU, LayerNorm, dropout."""
    model = torchvision.models.VisionTransformer(SIZE, 8, 1, 2, 16, 32, dropout=0.1, num_classes=CLASSES)
    nn.init.normal_(model.heads.head.weight, std=0.3)  # zeros until it is trained
    return model.eval()


class Attention(nn.Module):
    """Rows of the image as tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(3 * SIZE, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes]."""
        tokens = self.into(images.transpose(1, 2).flatten(2))
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return self.head((tokens + mixed).mean(1))


class Fused(Attention):
    """The same by `F.scaled_dot_product_attention`."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes]."""
        tokens = self.into(images.transpose(1, 2).flatten(2))
        heads = tokens.unflatten(2, (2, 8)).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).flatten(2)
        return self.head((tokens + self.attention.out_proj(mixed)).mean(1))


class Rows(nn.Module):
    """An LSTM over the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3 * SIZE, 12, batch_first=True), nn.Linear(12, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes]."""
        return self.head(self.lstm(images.transpose(1, 2).flatten(2))[0][:, -1])


class Patches(nn.Module):
    """A patch embedding and blocks over the last dimension, as ConvNeXt and MLP-Mixer have them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 12, 4, stride=4)
        self.norm, self.mix, self.head = nn.LayerNorm(12), nn.Linear(12, 12), nn.Linear(12, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes]."""
        h = self.embed(images).permute(0, 2, 3, 1)
        return self.head((h + F.gelu(self.mix(self.norm(h)))).mean((1, 2)))


def channels_last() -> nn.Module:
    """Weights in the memory format `channels_last`."""
    return Returns(_plain).to(memory_format=torch.channels_last)


def mlp() -> nn.Module:
    """Two linear layers."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 8), nn.ReLU(), nn.Linear(8, CLASSES))


def dropout() -> nn.Module:
    """Left in training mode, as it is in a training loop."""
    return nn.Sequential(nn.Dropout(0.2), *mlp(), nn.Dropout(0.1)).train()


class Tied(nn.Module):
    """One matrix used twice, once transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(48, 16), nn.Linear(16, 16), nn.Linear(16, CLASSES)
        self.again = nn.Linear(16, 16)
        self.again.weight = self.second.weight

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes]."""
        h = torch.tanh(self.first(images.mean(3).flatten(1)))
        h = torch.tanh(self.again(torch.tanh(self.second(h))))
        return self.head(h + F.linear(h, self.second.weight.t()))


def repeated() -> nn.Module:
    """One layer in two places, and so under two names; between them one that is frozen."""
    layer, frozen = nn.Linear(16, 16), nn.Linear(16, 16).requires_grad_(False)
    first = nn.Sequential(nn.Flatten(), nn.Linear(768, 16), nn.Tanh())
    return nn.Sequential(first, layer, nn.Tanh(), frozen, nn.Tanh(), layer, nn.Linear(16, CLASSES))


class Unused(nn.Module):
    """A head that the output does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Returns(_plain, classes=8)
        self.head, self.other = nn.Linear(8, CLASSES), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes]."""
        return self.head(torch.tanh(self.trunk(images)))


def frozen() -> nn.Module:
    """Only the head is trained."""
    model = Unused()
    model.trunk.requires_grad_(False)
    return model


def inplace() -> nn.Module:
    """Normalises its input in place, adds a residual in place, and has a ReLU in place."""

    class Subtract(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.sub_(0.5)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=True)

        def forward(self, images: Tensor) -> Tensor:
            h = self.conv(images)
            h += images
            return self.relu(h)

    return nn.Sequential(Subtract(), Block(), Block(), *mlp())


NETWORKS: dict[str, Network] = {
    "MobileNetV3": Network(mobilenet, per_sample="functorch"),
    "ResNet, group norm": Network(lambda: _resnet(_groups), per_sample="functorch"),
    "ResNet, batch norm in evaluation mode": Network(lambda: _resnet(None), per_sample="functorch"),
    "ResNet, batch norm in training mode": Network(lambda: _resnet(None).train()),
    "VisionTransformer": Network(transformer),
    "MultiheadAttention": Network(Attention, per_sample="functorch"),
    "scaled_dot_product_attention": Network(Fused, per_sample="functorch"),
    "MLP": Network(mlp),
    "patch embedding": Network(Patches),
    "channels_last": Network(channels_last),
    "LSTM over rows": Network(Rows, per_sample="loop"),
    "one logit [B, 1]": Network(lambda: Returns(_plain, classes=1), loss=binary),
    "one logit [B]": Network(lambda: Returns(_squeezed, classes=1), loss=binary),
    "one logit, default loss": Network(lambda: Returns(_plain, classes=1)),
    "tuple": Network(lambda: Returns(_pair)),
    "dict": Network(lambda: Returns(_dict)),
    "object with logits": Network(lambda: Returns(_object)),
    "two candidates": Network(lambda: Returns(_twins)),
    "one channel": Network(lambda: Returns(_plain, channels=1), channels=1),
    "dropout": Network(dropout),
    "tied weights": Network(Tied, per_sample="functorch"),
    "one layer twice": Network(repeated),
    "unused head": Network(Unused),
    "frozen trunk": Network(frozen),
    "bfloat16 weights": Network(lambda: Returns(_plain).bfloat16()),
    "in place": Network(inplace, per_sample="functorch"),
}
