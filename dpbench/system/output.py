"""Output that never ends a run: what a terminal cannot show is replaced, what nobody reads is dropped."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO


class Notice(RuntimeWarning):
    """A warning for users, in whole sentences: commands print it without the place in the code."""


OWN = tuple(f"{Path(__file__).parents[2] / name}{os.sep}" for name in ("attacks", "defenses", "dpbench"))
"""The folders of dpbench's packages: what is warned of from there is a sentence for users, too."""


def plain(text: str) -> str:
    r"""Replace line breaks and control characters (terminal escapes among them) by spaces.

    Example:
        >>> plain("a\x1b[31mred" + chr(10) + "b")
        'a [31mred b'
    """
    return "".join(character if character.isprintable() else " " for character in text)


@contextmanager
def notices_alone() -> Iterator[None]:
    """Within the block, what dpbench warns of is printed as its sentence and nothing else, and that once."""
    before, said = warnings.formatwarning, set[str]()

    def formatted(
        message: Warning | str, category: type[Warning], filename: str, *where: Any, **more: Any
    ) -> str:
        if not (issubclass(category, Notice) or filename.startswith(OWN)):
            return before(message, category, filename, *where, **more)
        text = f"{plain(str(message))}\n"
        if text in said:  # Python tells a warning once for each place that gives it
            return ""
        said.add(text)
        return text

    warnings.formatwarning = formatted
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextmanager
def guarded() -> Iterator[None]:
    """Within the block, writing to stdout and stderr cannot fail.

    Characters that the terminal's encoding lacks are shown as question marks. Where nobody reads any more (a
    closed terminal, `| head`, a full disk), the rest of the output is dropped.
    """
    _open_standard_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Guarded(stream or open(os.devnull, "w")) for stream in before)  # noqa: SIM115
    try:
        yield
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        sys.stdout, sys.stderr = before


def _open_standard_descriptors() -> None:
    """Where the caller closed one of them, the next file opened would take its place, and our output."""
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            return


class _Guarded:
    """A text stream whose `write` and `flush` never raise."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            with suppress(OSError, ValueError):
                stream.reconfigure(errors="replace")

    def write(self, text: str) -> int:
        """As the stream's own."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):  # nobody reads; or it is closed
            self._drop()
            return len(text)

    def flush(self) -> None:
        """As the stream's own."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._drop()

    def _drop(self) -> None:
        """Let the rest, and what Python flushes as it ends, go nowhere."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
