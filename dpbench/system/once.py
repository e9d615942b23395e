"""Results that many parts of a report need of the same table, computed once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

Given = TypeVar("Given")
More = ParamSpec("More")
Found = TypeVar("Found")
_kept: ContextVar[dict[Any, tuple[Any, Any]] | None] = ContextVar("_kept", default=None)


@contextmanager
def kept() -> Iterator[None]:
    """Within it, functions that are marked with `once` keep their results; at its end they are forgotten.

    Within another one, it is part of that one. Nothing may be changed in place meanwhile: neither what such
    functions are given nor what they return.
    """
    if _kept.get() is not None:
        yield
        return
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def once(compute: Callable[Concatenate[Given, More], Found]) -> Callable[Concatenate[Given, More], Found]:
    """Function decorator: within `kept`, the same object and equal further arguments give the same result.

    The first argument is known by its identity, as tables cannot be hashed. The others have to be hashable.
    Outside `kept`, the function is as it was.

    Example:
        >>> @once
        ... def total(numbers):
        ...     print("adding")
        ...     return sum(numbers)
        >>> numbers = [1, 2]
        >>> with kept():
        ...     total(numbers), total(numbers)
        adding
        (3, 3)
    """

    @wraps(compute)
    def remembered(given: Given, *others: More.args, **named: More.kwargs) -> Found:
        known = _kept.get()
        if known is None:
            return compute(given, *others, **named)
        key = (compute, id(given), others, tuple(sorted(named.items())))
        if key not in known:
            # with the object itself: while it lives, no other has its identity
            known[key] = given, compute(given, *others, **named)
        return known[key][1]

    return remembered
