"""Names to the parts of one kind: attacks, defences, metrics, ..."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from dpbench.protocol.errors import InputError
from dpbench.protocol.parameters import Declared, declare
from dpbench.protocol.spelling import meant

T = TypeVar("T")


class Registry(Generic[T], Mapping[str, T]):
    """The parts of one kind by name; third-party packages add theirs through an entry-point group.

    A class that is added gets its name as the attribute `name`; one derived from `Declared` is made a frozen
    keyword-only dataclass, and the parameters it declares are checked against all others in the program.

    Args:
        kind: what a part is called in messages.
        group: of the entry points; None where third parties cannot add any.

    Example:
        >>> colours = Registry("colour")
        >>> colours.add("red", 1)
        >>> colours["blue"]
        Traceback (most recent call last):
        ...
        dpbench.protocol.errors.InputError: Unknown colour 'blue'; known: red.
    """

    def __init__(self, kind: str, group: str | None = None) -> None:
        self.kind, self._group, self._items = kind, group, {}

    def add(self, name: str, item: T) -> None:
        """Register `item`.

        Raises:
            ValueError: for a name that something else has already.
            TypeError: for a parameter whose name means something else elsewhere.
        """
        known = self._items.get(name)
        if known is item:  # by a decorator and by an entry point
            return
        if known is not None:
            raise ValueError(f"The {self.kind} {name!r} is registered already: {_home(known)}.")
        if isinstance(item, type):
            if issubclass(item, Declared):
                if "__dataclass_fields__" not in vars(item):
                    dataclass(frozen=True, kw_only=True)(item)
                declare(item)
            item.name = name
        self._items[name] = item

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds what it stands above."""

        def add(item: T) -> T:
            self.add(name, item)
            return item

        return add

    def _load(self) -> dict[str, T]:
        group, self._group = self._group, None
        for entry in entry_points(group=group) if group else ():
            self.add(entry.name, entry.load())
        return self._items

    def __getitem__(self, name: str) -> T:
        items = self._load()
        if name not in items:
            raise InputError(f"Unknown {self.kind} {name!r}{meant(name, items)}; known: {', '.join(items)}.")
        return items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())

    def __contains__(self, name: object) -> bool:
        return name in self._load()


defenses_registry: Registry[type[Declared]] = Registry("defense", "dpbench.defenses")
"""Here, because attacks import no defence, but an adaptive attacker knows the code of the one it faces."""


def _home(item: Any) -> str:
    return f"{getattr(item, '__module__', '')}.{getattr(item, '__qualname__', item)}".strip(".")
