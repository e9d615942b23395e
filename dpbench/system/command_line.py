"""Reads a command line into a dataclass, and says in one sentence what cannot be understood."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO, TypeVar

import tyro

from dpbench.protocol import InputError

WIDTH = 100
"""Columns of a paragraph of the help, at most, however wide the terminal."""
Options = TypeVar("Options")


def read(
    options: type[Options], arguments: Sequence[str], command: str, default: Options | None = None
) -> Options:
    """The `options` that `arguments` stand for; `--help` is printed and ends the program.

    Args:
        options: a dataclass, one field an option.
        arguments: without the program's name.
        command: the program's name, as users type it.
        default: what holds for options that are not given; the dataclass's own defaults unless given.

    Raises:
        InputError: for what cannot be understood.
    """
    said, shown = io.StringIO(), _Help(sys.stdout)
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(shown):
            return tyro.cli(
                options,
                args=list(arguments),
                prog=command,
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
            )
    except SystemExit as end:
        if not end.code:
            print(_wrapped(shown.getvalue()), end="")
            raise
        raise InputError(f"{_first_paragraph(said.getvalue())}; see {command} --help.") from None


class _Help(io.StringIO):
    """Takes down what tyro prints, and looks to it like the stream that it will be printed on."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    @property
    def encoding(self) -> str:
        """Decides whether boxes or dashes are drawn."""
        return getattr(self._stream, "encoding", None) or "ascii"

    def isatty(self) -> bool:
        """Decides whether there is colour."""
        return self._stream.isatty()


def _wrapped(text: str) -> str:
    """`text` with long lines wrapped to the terminal; tyro draws boxes that fit and leaves the rest long."""
    width = min(shutil.get_terminal_size().columns, WIDTH)
    return "\n".join(textwrap.fill(line, width) if line[:1].isalpha() else line for line in text.split("\n"))


def _first_paragraph(message: str) -> str:
    """Up to the second rule; tyro draws a box, or plain dashes where stdout is not UTF-8."""
    paragraphs: list[list[str]] = [[]]
    for line in message.splitlines():
        text = line.strip("│ ")
        if text[:1] in ("╭", "╰") or (text and not text.strip("─-")):
            paragraphs.append([])
        else:
            paragraphs[-1].append(text)
    return " ".join(paragraphs[1]).strip().rstrip(".")
