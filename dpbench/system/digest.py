"""Short hashes of what decides a result: 16 hexadecimal digits of SHA-256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

from dpbench.protocol import InputError


def described(fields: Mapping[str, object]) -> str:
    """The hash of plain values by name, whatever their order.

    Example:
        >>> described({"eps": 1, "attack": "dlg"}) == described({"attack": "dlg", "eps": 1.0})
        True
    """
    # 1 and 1.0 are the same epsilon, whether typed in a shell or in a notebook
    plain = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in fields.items()}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tensors(named: Mapping[str, Tensor]) -> str:
    """The hash of names, shapes, types and values."""
    found = hashlib.sha256()
    for name, value in sorted(named.items()):
        found.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def changed(what: object) -> InputError:
    """The error to raise where `what` is no longer what a run was planned with."""
    return InputError(f"{what} has changed since the run was planned: start it again.")


def unchanged(what: object, planned: str, found: str) -> None:
    """Compare the hash that a run was planned with and the hash of what was read now.

    Args:
        what: a path, or words such as `The batch of samples`.
        planned: of earlier; empty where nothing was noted, and then nothing is compared.
        found: of now.

    Raises:
        InputError: where they differ.

    Example:
        >>> unchanged("victim.pt", planned="ab12", found="ab12")
    """
    if planned and planned != found:
        raise changed(what)


def content(data: bytes) -> str:
    """The hash of bytes that were read already: that of the file they are from."""
    return hashlib.sha256(data).hexdigest()[:16]
