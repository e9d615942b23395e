"""What a check says when it fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from dpbench.protocol import InputError


def claim(holds: Any, sentence: str) -> None:
    """AssertionError with that sentence, unless `holds`; also under `python -O`."""
    if not holds:
        raise AssertionError(sentence)


@contextmanager
def refused(pattern: str, sentence: str) -> Iterator[None]:
    """The block has to raise an `InputError` whose words `pattern` finds; else AssertionError."""
    try:
        yield
    except InputError as error:
        claim(
            re.search(pattern, str(error)),
            f"{sentence} The InputError says: {error}",
        )
    except Exception as error:
        raise AssertionError(f"{sentence} It raised {type(error).__name__}: {error}") from error
    else:
        raise AssertionError(f"{sentence} It raised nothing.")


@contextmanager
def works(name: str) -> Iterator[None]:
    """Whatever the block raises is an AssertionError of one sentence, which blames the part of that name."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise AssertionError(f"{name} fails where it has to work ({reason}).") from error


def same(first: Any, second: Any) -> bool:
    """Whether two sequences hold equal tensors."""
    return len(first) == len(second) and all(_equal(a, b) for a, b in zip(first, second, strict=True))


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a == b).all())
