from __future__ import annotations

import io
import sys
from dataclasses import dataclass

import pytest

from dpbench.protocol import InputError
from dpbench.system.command_line import read


@dataclass(frozen=True)
class Words:
    """Some options."""

    size: int = 1
    """A number."""


def test_options_are_read():
    assert read(Words, ["--size", "3"], "python -m words") == Words(3)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(
    ("words", "match"),
    [(["--epz", "1"], "There is no option --epz"), (["--size", "1.5"], "--size"), (["--size"], "--size")],
)
def test_what_is_wrong_is_said_whatever_the_terminal_can_draw(words, match, encoding, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    with pytest.raises(InputError, match=match) as caught:
        read(Words, words, "python -m words")
    assert str(caught.value).endswith("; see python -m words --help.")
    assert not {"\n", "│", "─"} & set(str(caught.value))


def test_help_ends_the_program_with_status_0(capsys):
    with pytest.raises(SystemExit) as end:
        read(Words, ["--help"], "python -m words")
    assert end.value.code == 0
    assert "A number." in capsys.readouterr().out
