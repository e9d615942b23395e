"""Puts a file of weights into a network: strictly, and without running anything the file holds."""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn

from dpbench.protocol import InputError
from dpbench.system import digest
from dpbench.system.paths import expanded, open_file
from dpbench.victim.facts import Facts, parsed

_WRAPPERS = ("module", "_orig_mod", "_module")
"""What DataParallel, torch.compile and Opacus put before the names of a network's parameters."""
_COUNTERS = ("num_batches_tracked", "n_averaged")


@dataclass(frozen=True)
class Weights:
    """The content of a file of weights, checked: plain tensors with all their values in memory.

    Attributes:
        path: where it was read from.
        tensors: by the names of the network itself, without those of wrappers around it.
        facts: what the file says besides.
        digest: as `dpbench.system.digest.content` of the bytes that were read.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    facts: Facts
    digest: str

    def outputs(self) -> int:
        """How many classes the network knows: the rows of its last layer, `fc`.

        Raises:
            InputError: where it has no `fc.weight`.
        """
        last = self.tensors.get("fc.weight")
        if last is None or last.ndim != 2 or not len(last):
            raise InputError(f"{self.path} does not fit this model: it lacks fc.weight.")
        return len(last)

    def rows(self) -> list[int]:
        """The numbers of rows that matrices in the file have, the likeliest to be the outputs' first.

        The output layer is as a rule the only one of its width, so the rarest come first, and the smallest of
        these. The order of the tensors decides nothing: a file need not keep that of the layers.
        """
        found = Counter(len(t) for t in self.tensors.values() if t.ndim > 1)
        return sorted(found, key=lambda count: (found[count], count))


def read(path: Path | str, planned: str = "") -> Weights:
    """The weights in a file.

    Args:
        path: a `.safetensors` file, or a file that `torch.save(model.state_dict(), FILE)` wrote; `~` is the
            home folder.
        planned: the file's digest when the run was planned; empty where there is none to compare with.

    Raises:
        InputError: where the file is missing, damaged, changed, or holds more than plain tensors.
    """
    path = expanded(path)
    if not os.path.isfile(path):
        raise InputError(f"There is no weights file {path}.")
    with open_file(path) as file:
        content = file.read()
    found = digest.content(content)
    digest.unchanged(path, planned, found)
    state, facts = _parsed(path, content)
    if not _is_state(state):
        for key, value in state.items() if isinstance(state, Mapping) else ():
            if value and _is_state(value):
                raise InputError(
                    f"{path} is a checkpoint whose key {key!r} holds the state dict: save that alone, "
                    f"torch.save(checkpoint[{key!r}], FILE)."
                )
        raise InputError(f"{path} is not a state dict: save torch.save(model.state_dict(), FILE).")
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        own = unwrapped(str(name))
        if own in tensors:
            raise InputError(f"{path} cannot be used: it holds {own} twice, in a wrapper and without.")
        if problem := _not_plain(value):
            raise InputError(f"{path} cannot be used: {own} {problem}; save plain tensors of floats.")
        tensors[own] = value.detach()
    return Weights(path, tensors, facts, found)


def load_weights(model: nn.Module, source: Path | str | Weights) -> nn.Module:
    """Load a state dict into `model`, in place.

    A safetensors file may carry facts in its metadata (`dpbench.assets` writes them): where the blocks carry
    their stride, the eps of the batch norms, mean and standard deviation of the images. They are set too.

    Args:
        model: a network of `dpbench.victim.networks`.
        source: a file as `read` takes it, or what `read` gave. Half precision is widened; counters of batches
            (`num_batches_tracked`) are ignored.

    Returns:
        `model`.

    Raises:
        InputError: where the file is missing, damaged, not finite, does not fit, or holds more than tensors.
    """
    weights = source if isinstance(source, Weights) else read(source)
    path, facts = weights.path, weights.facts
    if hasattr(model, "suit"):
        model.suit(weights.tensors, facts)
    check_fit(model, weights)
    tensors, own = _without_counters(weights.tensors), _own(model)
    if (facts.mean or facts.std) and not hasattr(model, "normalise"):
        raise InputError(f"{path} sets the mean of the images, and this model does not normalise them.")
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise InputError(f"{path} cannot be used: {name} holds {tensor.dtype}, not floats.")
        if not tensor.isfinite().all():
            raise InputError(f"{path} cannot be used: {name} holds values that are not finite.")
        if name.endswith("running_var") and (tensor < 0).any():
            raise InputError(f"{path} cannot be used: {name} holds negative variances.")
    for name, tensor in own.items():
        tensor.copy_(tensors[name])
    for module in model.modules():
        if facts.bn_eps is not None and hasattr(module, "running_mean"):
            module.eps = facts.bn_eps
    for name, values in (("mean", facts.mean), ("std", facts.std)):
        if values is not None:
            getattr(model.normalise, name).copy_(torch.tensor(values)[:, None, None])
    return model


def check_fit(model: nn.Module, weights: Weights) -> None:
    """InputError where names or shapes of the tensors are not those of `model`."""
    if problem := _mismatch(_without_counters(weights.tensors), _own(model)):
        raise InputError(f"{weights.path} does not fit this model: {problem}.")


def unwrapped(name: str) -> str:
    """A parameter's name without those of the wrappers around its network.

    Example:
        >>> unwrapped("_orig_mod.module.conv1.weight"), unwrapped("layer1._orig_mod.0.bias")
        ('conv1.weight', 'layer1.0.bias')
    """
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts = parts[1:]
    return ".".join(part for part in parts if part != "_orig_mod")  # parts can be compiled by themselves


def _parsed(path: Path, content: bytes) -> tuple[object, Facts]:
    """Whatever the bytes of a file hold, and the facts beside it."""
    try:
        if path.suffix == ".safetensors":
            state = dict(sorted(load(content).items()))  # which checks the header, too, and keeps no order
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            return state, parsed((header.get("__metadata__") or {}).get("dpbench", "{}"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sparse and quantised tensors, which are refused later
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), Facts()
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} is not a state dict of tensors alone, and loading anything else could run code: "
            f"save it again with torch.save(model.state_dict(), FILE)."
        ) from None
    except Exception as error:  # rubbish makes PyTorch's restricted unpickler raise nearly anything
        reason = (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
        raise InputError(f"{path} cannot be read as weights ({reason}).") from None


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(each, Tensor) for each in value.values())


def _not_plain(tensor: Tensor) -> str:
    """What keeps a tensor from being read like any other; empty where nothing does."""
    if tensor.is_nested or tensor.layout != torch.strided:
        return "is sparse or nested"
    if tensor.is_quantized or tensor.is_complex() or (tensor.is_floating_point() and tensor.itemsize < 2):
        return f"holds {tensor.dtype}"
    if tensor.is_meta or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.itemsize:
        return "is not stored in full"
    return ""


def _without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name.rpartition(".")[2] not in _COUNTERS}


def _own(model: nn.Module) -> dict[str, Tensor]:
    return {unwrapped(name): tensor for name, tensor in _without_counters(model.state_dict()).items()}


def _mismatch(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str | None:
    """What does not fit, in words, or None."""
    missing, extra = [k for k in own if k not in state], [k for k in state if k not in own]
    if missing or extra:
        lacks = f"it lacks {_some(missing)}" if missing else ""
        has = f"the model has no {_some(extra)}" if extra else ""
        return " and ".join(filter(None, (lacks, has)))
    for name, tensor in own.items():
        if state[name].shape != tensor.shape:
            return f"{name} is {list(state[name].shape)} in the file and {list(tensor.shape)} in the model"
    return None


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
