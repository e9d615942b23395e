"""Reads a command line into a dataclass, and says in one sentence what cannot be understood."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO, TypeVar

import tyro

from dpbench.protocol import InputError, meant

WIDTH = 100
"""Columns of a paragraph of the help, at most, however wide the terminal."""
Options = TypeVar("Options")
_Parse = Callable[[list[str]], Any]


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

    def parse(words: list[str]) -> Options:
        return tyro.cli(
            options,
            args=words,
            prog=command,
            default=tyro.MISSING_NONPROP if default is None else default,
            config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
        )

    return _understood(parse, list(arguments), command, command)


def subcommand(
    commands: Mapping[str, Callable[..., Any]], arguments: Sequence[str], command: str
) -> Callable[[], Any]:
    """What `arguments` ask for, ready to be called; `--help` is printed and ends the program.

    Args:
        commands: functions by name; their parameters are the options.
        arguments: without the program's name; the first is one of the names.
        command: the program's name, as users type it.

    Raises:
        InputError: for what cannot be understood.
    """
    first, *_ = arguments or [""]
    if first not in commands and first not in ("-h", "--help"):
        said = f"{command} has no {first!r}{meant(first, commands)}" if first else f"{command} needs a word"
        raise InputError(f"{said}: give one of {', '.join(commands)}, or --help.")
    later = {name: _later(function) for name, function in commands.items()}

    def parse(words: list[str]) -> Callable[[], Any]:
        return tyro.extras.subcommand_cli_from_dict(later, prog=command, args=words)

    return _understood(parse, list(arguments), command, f"{command} {first}")


def _later(function: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
    """`function` with its arguments, not called yet: its output is no help text."""

    @functools.wraps(function)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], Any]:
        return functools.partial(function, *args, **kwargs)

    bind.__annotations__ = function.__annotations__ | {"return": Callable[[], Any]}
    return bind


def _understood(parse: _Parse, arguments: list[str], command: str, helpful: str) -> Any:
    """What `parse` makes of `arguments`; for what it does not understand, one sentence."""
    said, shown = io.StringIO(), _Help(sys.stdout)
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(shown):
            return parse(arguments)
    except SystemExit as end:
        if not end.code:
            print(_wrapped(shown.getvalue()), end="")
            raise
        message = _first_paragraph(said.getvalue())
        asked = helpful.removeprefix(command).split()
        if message.startswith(("Unrecognized", "Missing")):
            message = _mistyped(arguments, _flags(parse, [*asked, "--help"])) or message
        raise InputError(f"{_sentence(message)}; see {helpful} --help.") from None


def _mistyped(arguments: Sequence[str], flags: Sequence[str]) -> str:
    """Which of the `arguments` is none of the options `flags`."""
    for word in arguments:
        name = word.partition("=")[0]
        known = name.lstrip("-").replace("_", "-")
        if re.match("-+[a-z]", name) and name not in ("-h", "--help") and known not in flags:
            return f"There is no option {name}{meant(known, flags, '--')}"
    return ""


def _sentence(message: str) -> str:
    """What tyro says, in our words where something may have been meant."""
    if found := re.match(r"Unrecognized options: (.*)", message):
        return f"No option takes {found[1].split(', ')[0]!r}"
    if found := re.match(r"invalid choice '(.*?)' for argument '(\S+?)'\. Expected one of \((.*)\)", message):
        word, flag, choices = found.groups()
        known = [choice.strip("' ") for choice in choices.split(",") if choice.strip()]
        return f"{flag} does not take {word!r}{meant(word, known)}: give one of {', '.join(known)}"
    if found := re.match(r"Missing value for argument '(--\S+)'", message):
        return f"{found[1]} needs a value"
    if found := re.match(r"Error parsing (--\S+): (.*)", message):
        flag, reason = found.groups()
        given = re.search(r"\[(.*?)\]|('[^']*'|\"[^\"]*\")$", reason)
        return f"{flag} {_wanted(reason)} {given[1] or given[2]}" if given else message
    return message


def _wanted(reason: str) -> str:
    """What an option takes, as far as tyro's reason tells, up to the word before what was given."""
    words = [word for word in re.findall(r"\{(\w+)\}\|", reason) if word != "None"]
    kinds = {"int()": "a whole number", "to float": "a number"}
    known = [kind for sign, kind in kinds.items() if sign in reason] + words
    return f"takes {' or '.join(known)}, not" if known else "does not take"


def _flags(parse: _Parse, arguments: list[str]) -> list[str]:
    """All options that the help shows, without their dashes."""
    shown = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(shown):
        parse(arguments)
    return sorted(set(re.findall(r"(?<![\w-])--([a-z][\w-]*)", shown.getvalue())))


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
