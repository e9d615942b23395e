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
_SEPARATORS = "+,:/\\"
"""What names are parted by on the command line and in paths."""


class Registry(Generic[T], Mapping[str, T]):
    """The parts of one kind by name; third-party packages add theirs through an entry-point group.

    A class that is added gets its name as the attribute `name`; one derived from `Declared` is made a frozen
    keyword-only dataclass, and the parameters it declares are checked against all others in the program.

    Args:
        kind: what a part is called in messages.
        group: of the entry points; None where third parties cannot add any.
        base: the class that its parts are derived from; None for functions. It has to derive from `Declared`.
        reserved: names that mean something else where a part is named.

    Example:
        >>> colours = Registry("colour")
        >>> colours.add("red", 1)
        >>> colours["blue"]
        Traceback (most recent call last):
        ...
        dpbench.protocol.errors.InputError: Unknown colour 'blue'; known: red.
    """

    def __init__(
        self,
        kind: str,
        group: str | None = None,
        *,
        base: type[Declared] | None = None,
        reserved: tuple[str, ...] = (),
    ) -> None:
        self.kind, self.base, self._group, self._reserved = kind, base, group, reserved
        self._items: dict[str, T] = {}

    def add(self, name: str, item: T) -> None:
        """Register `item`; one that is defined anew, in a notebook's cell that is run again, takes its place.

        Raises:
            ValueError: for a name that something else has already, or that could not be typed.
            TypeError: for what is no such part or lacks a method, and for a parameter whose name means
                something else elsewhere.
        """
        self._check_name(name)
        known = self._items.get(name)
        if known is item:  # by a decorator and by an entry point
            return
        if known is not None and not _defined_anew(known, item):
            raise ValueError(f"The {self.kind} {name!r} is registered already: {_home(known)}.")
        if self.base is not None:
            self._check_class(item)
            if "__dataclass_fields__" not in vars(item):
                dataclass(frozen=True, kw_only=True)(item)
            declare(item)
        if isinstance(item, type):
            item.name = name
        self._items[name] = item

    def _check_name(self, name: str) -> None:
        if not name.isprintable() or not name.strip() or name[0] == "-" or set(name) & set(_SEPARATORS):
            raise ValueError(
                f"{name!r} is no {self.kind}'s name: take one that begins with a letter and has none of "
                f"{' '.join(_SEPARATORS)}, which part names and paths."
            )
        if name in self._reserved:
            raise ValueError(f"The name {name!r} means something else where {self.kind}s are named.")

    def _check_class(self, item: Any) -> None:
        if not (isinstance(item, type) and issubclass(item, self.base)):
            raise TypeError(f"{_home(item)} has to be a class derived from {self.base.__name__}.")
        if lacking := sorted(getattr(item, "__abstractmethods__", ())):
            raise TypeError(f"{_home(item)} lacks a method: define {', '.join(lacking)}.")

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds what it stands above.

        Raises:
            TypeError: for a name that is no word.
        """
        self.check_word(name, self.kind.replace(" ", "_"))

        def add(item: T) -> T:
            self.add(name, item)
            return item

        return add

    def check_word(self, name: object, decorator: str) -> None:
        """TypeError for a decorator without parentheses, which is given what it stands above, not a name."""
        if not isinstance(name, str):
            raise TypeError(f'{_home(name)} needs a name: write @{decorator}("NAME") above it.')

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


defenses_registry: Registry[type[Declared]] = Registry(
    "defense", "dpbench.defenses", base=Declared, reserved=("none",)
)
"""Here, because attacks import no defence, but an adaptive attacker knows the code of the one it faces."""


def _defined_anew(known: Any, item: Any) -> bool:
    """Whether both come from one definition, that was run again: by a notebook, or by `importlib.reload`."""
    named = hasattr(item, "__qualname__") and "<" not in item.__qualname__
    return named and _home(known) == _home(item)


def _home(item: Any) -> str:
    return f"{getattr(item, '__module__', '')}.{getattr(item, '__qualname__', item)}".strip(".")
