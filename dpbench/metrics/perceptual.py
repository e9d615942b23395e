"""LPIPS 0.1 (Zhang et al. 2018), with a trunk whose hash is checked.

The `lpips` package brings the calibrated heads. It would download the trunk, or accept any file of that name.
Here the trunk comes from `dpbench.assets`, which checks it. Without it there is no LPIPS: random features
would give plausible numbers that mean nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dpbench.metrics.base import Scored, Values, metric
from dpbench.metrics.checks import checked_pair
from dpbench.protocol import InputError
from dpbench.store.columns import Column

SMALLEST = {"alex": 31, "vgg": 16}
"""Height and width, px, below which a net's pooling has nothing left."""
CHUNK = 16
"""Images sent through the trunk at a time, which bounds memory at 224 px."""
_refusals: dict[str, Exception] = {}


class LpipsEmbedding(nn.Module):
    """Maps images to vectors whose squared Euclidean distance is LPIPS.

    LPIPS is sum_layers mean_pixels sum_c w_c (f_c(x) - f_c(y))^2 with unit-length features f and weights w >=
    0, so features scaled by sqrt(w_c / pixels) carry all of it: B x B distances cost 2B passes, not B^2.

    Args:
        net: `alex` or `vgg`.
        trunk: the convolutions under torchvision's names (`features.0.weight`, ...).
    """

    def __init__(self, net: str, trunk: dict[str, Tensor]) -> None:
        import lpips

        super().__init__()
        constructor = {"alex": lpips.pretrained_networks.alexnet, "vgg": lpips.pretrained_networks.vgg16}[net]
        # On the meta device, or torchvision would draw 138 million random weights for VGG16 from the caller's
        # generator.
        with torch.device("meta"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The parameter 'pretrained'")
            warnings.filterwarnings("ignore", message="Arguments other than a weight enum")
            self.net = constructor(pretrained=False)
        names = {name: "features." + name.split(".", 1)[1] for name in self.net.state_dict()}
        # assets that were exported with --half are stored in half precision; LPIPS is computed in float32
        self.net.load_state_dict({name: trunk[key].float() for name, key in names.items()}, assign=True)
        self.scaling, self.unit_length = lpips.ScalingLayer(), lpips.normalize_tensor
        file = Path(lpips.__file__).with_name("weights") / "v0.1" / f"{net}.pth"
        heads = torch.load(file, map_location="cpu", weights_only=True)
        for i in range(len(heads)):
            self.register_buffer(f"head{i}", heads[f"lin{i}.model.1.weight"])

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """The trunk's maps [B, D, h, w] of `images` [B, 3, H, W] in [0, 1], first layer first."""
        return tuple(self.net(self.scaling(2 * images - 1)))

    def forward(self, images: Tensor) -> Tensor:
        """Vectors [B, D] of `images` [B, 3, H, W] in [0, 1]."""
        parts = []
        for i, features in enumerate(self.features(images)):
            weight = (self.get_buffer(f"head{i}") / features[0, 0].numel()).sqrt()
            parts.append((self.unit_length(features) * weight).flatten(1))
        return torch.cat(parts, 1)


def _trunk(net: str) -> Path:
    """The trunk's file. Once all sources have failed, this process only looks for a local file."""
    from dpbench import assets

    name = f"lpips-{net}"
    try:
        return assets.path(name, fetch=name not in _refusals)
    except assets.AssetUnavailable as refusal:
        raise _refusals.setdefault(name, refusal) from None


@cache
def _embedding(net: str, trunk: Path, device: torch.device) -> LpipsEmbedding:
    return LpipsEmbedding(net, load_file(trunk)).eval().to(device)


def _too_small(height: int, width: int, net: str) -> str | None:
    """The sentence about images too small for `net`, if they are; an unknown net is an InputError."""
    if net not in SMALLEST:
        raise InputError(f"Unknown LPIPS net {net!r}; known: {', '.join(SMALLEST)}.")
    side = SMALLEST[net]
    if min(height, width) < side:
        return f"LPIPS ({net}) needs images of at least {side} x {side} px; these are {height} x {width}."
    return None


@torch.no_grad()
def embed(images: Tensor, net: str = "alex") -> Tensor:
    """Vectors whose squared Euclidean distances are LPIPS.

    Args:
        images: floating point [B, 3, H, W] in [0, 1] (or grey, [B, 1, H, W]), on any device.
        net: `alex` or `vgg`.

    Returns:
        float32 [B, D].

    Raises:
        InputError: for an unknown net or images too small for it.
        dpbench.assets.AssetUnavailable: if no source has the net's trunk.
    """
    return _in_chunks(lambda network, chunk: network(chunk), images, net)


@torch.no_grad()
def pooled(images: Tensor, net: str = "alex") -> Tensor:
    """The trunk's last convolutional features, averaged over the image.

    Args:
        images: floating point [B, 3, H, W] in [0, 1] (or grey, [B, 1, H, W]), on any device.
        net: `alex` (256 features) or `vgg` (512).

    Returns:
        float32 [B, D], none negative.

    Raises:
        InputError: for an unknown net or images too small for it.
        dpbench.assets.AssetUnavailable: if no source has the net's trunk.
    """
    return _in_chunks(lambda network, chunk: network.features(chunk)[-1].mean((2, 3)), images, net)


def _in_chunks(work: Callable[[LpipsEmbedding, Tensor], Tensor], images: Tensor, net: str) -> Tensor:
    if reason := _too_small(*images.shape[2:], net):
        raise InputError(reason)
    network = _embedding(net, _trunk(net), images.device)
    # TF32, PyTorch's default for convolutions on CUDA, would move the third digit.
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        colours = images.expand(-1, 3, -1, -1)  # a grey image is one of three equal channels
        return torch.cat([work(network, chunk.float()) for chunk in colours.split(CHUNK)])


def lpips(images: Tensor, originals: Tensor, net: str = "alex") -> Tensor:
    """Learned perceptual distance, version 0.1, inputs scaled to [-1, 1] as the nets expect; lower is closer.

    Args:
        images: [B, 3, H, W] in [0, 1]; at least 31 px for `alex`, 16 px for `vgg`.
        originals: the same shape, aligned.
        net: `alex` or `vgg`; their values are on different scales, so name the net beside the number.

    Returns:
        float64 [B], from 0 (identical) to about 1; beyond 1 is possible.

    Raises:
        InputError: for an unknown net or images too small for it; see `checked_pair` for the rest.
        dpbench.assets.AssetUnavailable: if no source has the net's trunk.
    """
    images, originals = checked_pair(images, originals)
    return (embed(images, net) - embed(originals, net)).double().square().sum(1)


def why_no_lpips(height: int, width: int, net: str = "alex") -> str | None:
    """One sentence that says why LPIPS cannot be computed for images of this size here; None where it can.

    Raises:
        InputError: for an unknown net.

    Example:
        >>> why_no_lpips(28, 28)
        'LPIPS (alex) needs images of at least 31 x 31 px; these are 28 x 28.'
    """
    if reason := _too_small(height, width, net):
        return reason
    from dpbench.assets import AssetUnavailable

    try:
        _trunk(net)
    except AssetUnavailable as refusal:
        return str(refusal)
    return None


@metric(
    "lpips",
    columns=(
        Column(
            "lpips",
            "float64",
            "measured",
            "perceptual distance, lower is more alike; empty without the real trunk",
        ),
        Column("lpips_net", "string", "provenance", "its trunk: `alex` or `vgg`"),
    ),
    better="lower",
    floor=True,
)
def of_scored(scored: Scored) -> Values:
    """The columns `lpips` and `lpips_net`."""
    if scored.lpips_net is None:
        return {}
    found = lpips(scored.images, scored.originals, scored.lpips_net)
    return {"lpips": found, "lpips_net": [scored.lpips_net] * len(found)}
