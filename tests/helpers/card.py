"""A card that does not exist: tensors that say they are on a device of their own, computed on the CPU.

PyTorch takes it for a real device. An operation on tensors of both devices fails there as on a graphics card,
and so does handing its tensors to NumPy. Values are those of the CPU to the last bit, so whatever runs there
has a known result. It cannot be taken out of a process again, so tests use it in one of their own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import Library
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "card"
DEVICE = torch.device("privateuseone:0")
_COPIES = {"aten::_to_copy", "aten::copy_"}
_INDEXED = {"aten::index", "aten::index_put_", "aten::index_put"}
"""A graphics card takes indices from the CPU, too."""
_LIBRARIES: list[Library] = []
"""What they register is gone with them."""


class OnCard(Tensor):
    """A tensor of the card; `plain` holds its values on the CPU, in the same layout."""

    plain: Tensor

    @staticmethod
    def __new__(cls, plain: Tensor) -> OnCard:
        made = Tensor._make_wrapper_subclass(
            cls,
            plain.size(),
            strides=plain.stride(),
            storage_offset=plain.storage_offset(),
            dtype=plain.dtype,
            device=DEVICE,
        )
        made.plain = plain
        return made

    def __repr__(self, **_: Any) -> str:
        return f"{self.plain!r} on the card"

    def tolist(self) -> Any:
        """PyTorch's own refuses subclasses."""
        return self.plain.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """On the CPU, if all tensors are of the card."""
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    name, device = func._schema.name, kwargs.get("device")
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    here = [x for x in tensors if isinstance(x, OnCard)]
    mixed = [
        x for x in tree_leaves(args[:1] if name in _INDEXED else (args, kwargs)) if isinstance(x, Tensor)
    ]
    if name not in _COPIES and any(x.dim() for x in mixed if not isinstance(x, OnCard)):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found the CPU's in {name}.")
    stays = bool(here) if device is None else torch.device(device).type == NAME
    if name == "aten::copy_":
        stays = isinstance(args[0], OnCard)
    if device is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    made = func(*tree_map(_plain, args), **tree_map(_plain, kwargs))
    same = {id(x.plain): x for x in here}  # what an operation in place hands back

    def there(x: Any) -> Any:
        if not isinstance(x, Tensor) or not stays:
            return x
        return same[id(x)] if id(x) in same else OnCard(x)

    return tree_map(there, made)


def _plain(x: Any) -> Any:
    return x.plain if isinstance(x, OnCard) else x


def _empty(size: list[int], *, dtype: Any = None, memory_format: Any = None, **_: Any) -> Tensor:
    return OnCard(torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format))


def _empty_strided(size: list[int], stride: list[int], *, dtype: Any = None, **_: Any) -> Tensor:
    return OnCard(torch.empty_strided(size, stride, dtype=dtype))


def _copy(self: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    _plain(self).copy_(_plain(source))
    return self


class _Generator(torch.Generator):
    """Draws for the card as for the CPU."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        return super().__new__(cls, "cpu")


def plug_in() -> torch.device:
    """Gives this process the card."""
    _setup_privateuseone_for_python_backend(NAME)
    library = Library("aten", "IMPL")
    for name, kernel in {
        "empty.memory_format": _empty,
        "empty_strided": _empty_strided,
        "copy_": _copy,
    }.items():
        library.impl(name, kernel, "PrivateUse1")
    _LIBRARIES.append(library)
    torch.Generator = _Generator
    # a conversion in place, as `module.double()`, would leave `OnCard.plain` as it was
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    return torch.device(NAME, 0)
