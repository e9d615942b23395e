"""Reads a command line into a dataclass, and says in one sentence what cannot be understood."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import TypeVar

import tyro

from dpbench.protocol import InputError

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
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                options,
                args=list(arguments),
                prog=command,
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise InputError(f"{_first_paragraph(said.getvalue())}; see {command} --help.") from None


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
