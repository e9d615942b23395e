"""The command line: python -m dpbench.run --defense dp --eps 1."""

from __future__ import annotations

from collections.abc import Sequence

from dpbench.system import program


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: without the program's name; those of this process unless given.

    Returns:
        The exit status: 0; 1 where a cell failed or is missing, or an attack passed its bound; 2 for what the
        user has to change; 130 after Ctrl-C or SIGTERM.
    """
    return program.run(_main, arguments, "Interrupted before anything was run.")


def _main(arguments: list[str]) -> int:
    # what takes seconds to import, PyTorch above all, is imported where it can be interrupted
    from dpbench.protocol import InputError

    try:
        from dpbench.sweep.options import parse

        options = parse(arguments)
        from dpbench.run.running import carry_out

        return carry_out(options, arguments)
    except InputError as error:
        from dpbench.sweep.options import in_words_of_the_command_line

        return program.refuse(error, in_words_of_the_command_line)
