"""The command line: python -m dpbench.run --defense dp --eps 1."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dpbench.system import interrupts, output


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: without the program's name; those of this process unless given.

    Returns:
        The exit status: 0; 1 where a cell failed or is missing, or an attack passed its bound; 2 for what the
        user has to change; 130 after Ctrl-C or SIGTERM.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with output.guarded():
        try:
            with interrupts.in_order():
                return _main(arguments)
        except KeyboardInterrupt:
            print("Interrupted before anything was run.", file=sys.stderr)
            return interrupts.STATUS


def _main(arguments: list[str]) -> int:
    # what takes seconds to import, PyTorch above all, is imported where it can be interrupted
    from dpbench.protocol import InputError

    try:
        from dpbench.sweep.options import parse

        options = parse(arguments)
        from dpbench.running import carry_out

        return carry_out(options, arguments)
    except InputError as error:
        from dpbench.sweep.options import in_words_of_the_command_line

        sentence = in_words_of_the_command_line(" ".join(str(error).split()))
        print(output.plain(sentence), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
