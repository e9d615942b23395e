"""How a command begins and ends: its arguments, Ctrl-C and SIGTERM, and a sentence instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from dpbench.system import interrupts, output

REFUSED = 2
"""Exit status for what the user has to change."""


def run(carry_out: Callable[[list[str]], int], arguments: Sequence[str] | None, interrupted: str) -> int:
    """Carries out a command, on a terminal that may go away.

    Args:
        carry_out: takes the arguments and returns the exit status.
        arguments: without the program's name; None for those of this process.
        interrupted: what is said after Ctrl-C or SIGTERM.

    Returns:
        The exit status of `carry_out`; `interrupts.STATUS` after Ctrl-C or SIGTERM.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    with output.guarded(), output.notices_alone():
        try:
            with interrupts.in_order():
                return carry_out(given)
        except KeyboardInterrupt:
            print(interrupted, file=sys.stderr)
            return interrupts.STATUS


def refuse(error: Exception, in_words: Callable[[str], str]) -> int:
    """Says what is wrong on one line of stderr; the exit status `REFUSED`.

    Args:
        error: its message names parameters in backquotes.
        in_words: turns these names into what users type.
    """
    print(output.plain(in_words(" ".join(str(error).split()))), file=sys.stderr)
    return REFUSED
