"""BigGAN-deep (Brock et al. 2019), ImageNet's 1000 classes, through the package pytorch-pretrained-biggan.

The package would fetch the weights and unpickle them freely; here they come from a file and are only read as
tensors.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import ModuleType

from torch import Tensor, nn

from dpbench.generators.registry import generator
from dpbench.protocol import InputError
from dpbench.system.paths import expanded
from dpbench.victim.weights import read

WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class BigGAN(nn.Module):
    """The package's network behind dpbench's interface.

    Args:
        network: the package's `BigGAN`: (z, class weights, truncation) -> images in [-1, 1].
        truncation: in (0, 1]; scales z and selects the batch statistics that were gathered at that scale. 1
            leaves the most to search.

    Raises:
        InputError: for a truncation outside (0, 1].
    """

    def __init__(self, network: nn.Module, truncation: float = 1.0) -> None:
        super().__init__()
        if not 0 < truncation <= 1:
            raise InputError(f"BigGAN's truncation must lie in (0, 1], and {truncation} does not.")
        self.network, self.truncation = network, truncation
        config = network.config
        self.latent_dim, self.num_classes = config.z_dim, config.num_classes
        self.image_shape = (3, config.output_dim, config.output_dim)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] of latents `z` [B, latent_dim] and class weights `y` [B, K]."""
        return (self.network(self.truncation * z, y, self.truncation) + 1) / 2


@generator("biggan")
def load(where: str, size: int) -> BigGAN:
    """BigGAN with the weights the user names, or those in the package's own cache.

    Args:
        where: a folder with config.json and pytorch_model.bin (or model.safetensors), as the package's
            authors publish them; a file of weights with config.json beside it; empty for the package's cache.
        size: 128, 256 or 512 pixels: which weights to look for in the cache.

    Raises:
        InputError: where the package or the weights are missing, or the weights do not fit.
    """
    package = _package()
    weights, config = _files(expanded(where)) if where else _cached(size)
    state = read(weights).tensors
    try:
        network = package.BigGAN(package.BigGANConfig.from_json_file(str(config)))
        missing = network.load_state_dict(state, strict=False).missing_keys
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{weights} does not fit the BigGAN that {config} describes ({reason}).") from None
    if missing:
        raise InputError(f"{weights} does not fit the BigGAN that {config} describes: it lacks {missing[0]}.")
    if bad := next((name for name, value in state.items() if not value.isfinite().all()), None):
        raise InputError(f"{weights} cannot be used: {bad} holds values that are not finite.")
    return BigGAN(network)


def _package() -> ModuleType:
    try:
        import pytorch_pretrained_biggan
    except ImportError as error:
        raise InputError(
            f"--generator biggan needs a package that is not here ({error}): pip install "
            "pytorch-pretrained-biggan."
        ) from None
    return pytorch_pretrained_biggan


def _files(where: Path) -> tuple[Path, Path]:
    """The weights and the configuration in a folder, or a file of weights and the configuration beside it."""
    if where.is_dir():
        found = next((where / name for name in WEIGHTS if (where / name).is_file()), None)
        if found is None:
            raise InputError(f"{where} holds no BigGAN weights: put {' or '.join(WEIGHTS)} there.")
        where = found
    config = where.with_name("config.json")
    if not where.is_file():
        raise InputError(f"There is no file or folder of BigGAN weights {where}.")
    if not config.is_file():
        raise InputError(f"The configuration of {where} is missing: put BigGAN's config.json beside it.")
    return where, config


def _cached(size: int) -> tuple[Path, Path]:
    """What the package downloaded earlier: files named by hashes, each with a note of its address."""
    home = "~/.pytorch_pretrained_biggan"
    home = expanded(os.environ.get("PYTORCH_PRETRAINED_BIGGAN_CACHE", home))
    name, found = f"biggan-deep-{size}", {}
    for note in sorted(home.glob("*.json")):
        try:
            address = json.loads(note.read_text())["url"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found[address.rpartition("/")[2]] = note.with_suffix("")
    try:
        return found[f"{name}-pytorch_model.bin"], found[f"{name}-config.json"]
    except KeyError:
        raise InputError(
            f"The weights of {name} are not in {home}: give --generator biggan:FOLDER, a folder with "
            "config.json and pytorch_model.bin."
        ) from None
