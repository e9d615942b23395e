"""Names to the parts of one kind: attacks, defences, metrics, ..."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
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
        classes: whether its parts are classes derived from `Declared`.

    Example:
        >>> colours = Registry("colour")
        >>> colours.add("red", 1)
        >>> colours["blue"]
        Traceback (most recent call last):
        ...
        dpbench.protocol.errors.InputError: Unknown colour 'blue'; known: red.
    """

    def __init__(self, kind: str, group: str | None = None, *, classes: bool = False) -> None:
        self.kind, self._group, self._classes, self._items = kind, group, classes, {}

    def add(self, name: str, item: T) -> None:
        """Register `item`; one that is defined anew, in a notebook's cell that is run again, takes its place.

        Raises:
            ValueError: for a name that something else has already.
            TypeError: for a parameter whose name means something else elsewhere.
        """
        known = self._items.get(name)
        if known is item:  # by a decorator and by an entry point
            return
        if known is not None and not _defined_anew(known, item):
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
            self._add_entry(entry)
        return self._items

    def _add_entry(self, entry: EntryPoint) -> None:
        """What an installed package names: a part, or the module whose decorators register parts.

        Raises:
            InputError: for one that cannot be loaded, is no such part, or has a name that is taken.
        """
        whose = f"The entry point {entry.name!r} of the group {entry.group} ({entry.value})"
        try:
            item = entry.load()
            if isinstance(item, ModuleType) or any(item is known for known in self._items.values()):
                return  # its decorator has registered it, under the name it gave
            if self._classes and not (isinstance(item, type) and issubclass(item, Declared)):
                raise TypeError(f"it is no class of the kind {self.kind}")
            self.add(entry.name, item)
        except Exception as error:  # whatever its author got wrong
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"{whose} cannot be used ({reason}): mend or uninstall its package.") from error

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


defenses_registry: Registry[type[Declared]] = Registry("defense", "dpbench.defenses", classes=True)
"""Here, because attacks import no defence, but an adaptive attacker knows the code of the one it faces."""


def _defined_anew(known: Any, item: Any) -> bool:
    """Whether both come from one definition, that was run again: by a notebook, or by `importlib.reload`."""
    named = hasattr(item, "__qualname__") and "<" not in item.__qualname__
    return named and _home(known) == _home(item)


def _home(item: Any) -> str:
    return f"{getattr(item, '__module__', '')}.{getattr(item, '__qualname__', item)}".strip(".")
