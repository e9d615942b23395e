"""Puts a file of weights into a victim network: strictly, and without running anything the file holds."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dpbench.assets.cache import facts
from dpbench.protocol import InputError
from dpbench.victim.networks import Bottleneck


def load_weights(model: nn.Module, path: Path | str) -> nn.Module:
    """Load a state dict into `model`, in place.

    A safetensors file may carry facts in its metadata (`dpbench.assets` writes them): where the blocks carry
    their stride, the eps of the batch norms, mean and standard deviation of the images. They are set too.

    Args:
        model: a network of `dpbench.victim.networks`.
        path: a `.safetensors` file, or a file that `torch.save(model.state_dict(), FILE)` wrote. Half
            precision is widened; counters of batches (`num_batches_tracked`) are ignored.

    Returns:
        `model`.

    Raises:
        InputError: where the file is missing, damaged, not finite, does not fit, or holds more than tensors.
    """
    path = Path(path)
    state, noted = read(path)
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    own = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    if problem := _mismatch(state, own):
        raise InputError(f"{path} does not fit this model: {problem}.")
    if bad := next((k for k, v in state.items() if not v.isfinite().all()), None):
        raise InputError(f"{path} cannot be used: {bad} holds values that are not finite.")
    for name, tensor in own.items():
        tensor.copy_(state[name])
    _apply(model, noted)
    return model


def outputs(path: Path | str) -> int:
    """How many classes the network in a file of weights knows: the rows of its last layer, `fc`.

    Raises:
        InputError: where the file is missing, damaged or holds more than tensors, or has no `fc.weight`.
    """
    path = Path(path)
    state, _ = read(path)
    if "fc.weight" not in state or state["fc.weight"].ndim != 2:
        raise InputError(f"{path} does not fit this model: it lacks fc.weight.")
    return len(state["fc.weight"])


def large_stem(path: Path | str) -> bool:
    """Whether the state dict in `path` is of a residual network with the 7x7 stem of larger images.

    Raises:
        InputError: where the file is missing, damaged or holds more than tensors.
    """
    state, _ = read(Path(path))
    return (
        "conv1.weight" in state and "layer1.0.conv1.weight" in state and state["conv1.weight"].shape[-1] == 7
    )


def read(path: Path) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    """The state dict in `path` and the facts beside it.

    Raises:
        InputError: where the file is missing, damaged or holds more than tensors.
    """
    if not path.is_file():
        raise InputError(f"There is no weights file {path}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path), facts(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} is not a state dict of tensors alone, and loading anything else could run code: "
            f"save it again with torch.save(model.state_dict(), FILE)."
        ) from None
    except Exception as error:  # rubbish makes PyTorch's restricted unpickler raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be read as weights ({reason}).") from None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path} is not a state dict: save torch.save(model.state_dict(), FILE).")
    return state, {}


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


def _apply(model: nn.Module, noted: Mapping[str, Any]) -> None:
    """Set what a network's weights do not say: stride, eps and normalisation."""
    for module in model.modules():
        if "bn_eps" in noted and hasattr(module, "running_mean"):
            module.eps = noted["bn_eps"]
        if noted.get("stride_in") == "conv1" and isinstance(module, Bottleneck):
            stride = max(module.conv1.stride, module.conv2.stride)
            module.conv1.stride, module.conv2.stride = stride, (1, 1)
    for name in ("mean", "std"):
        if name in noted:
            getattr(model.normalise, name).copy_(torch.tensor(noted[name])[:, None, None])
