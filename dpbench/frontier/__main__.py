"""The command line: python -m dpbench.frontier --attack inverting-gradients --out DIR."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dpbench.system import output, program

COMMAND = "python -m dpbench.frontier"
DESCRIPTION = """Find up to which noise attacks are seen to get something, and from which on they are not.

Batches are attacked, one image of each counted, until the noise level has a verdict; the same command again
continues where it stopped. The attacks must be fixed beforehand, on batches of seeds below 1000.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0; 2 for what the user has to change; 130 after Ctrl-C or SIGTERM."""
    return program.run(
        _main, arguments, "Interrupted: the batches so far are kept; the same command goes on."
    )


def _main(arguments: list[str]) -> int:
    # what takes seconds to import, PyTorch above all, is imported where it can be interrupted
    from dpbench.frontier.command import frontier
    from dpbench.frontier.options import as_typed, parse
    from dpbench.protocol import InputError
    from dpbench.system import process

    try:
        given = parse(arguments, COMMAND, DESCRIPTION)
        process.configure()
        process.one_thread()
        quiet = given.pop("quiet")
        for found in frontier(**given, progress=not quiet):
            if not quiet:
                print(output.plain(found.sentence()))
        return 0
    except InputError as error:
        return program.refuse(error, as_typed)


if __name__ == "__main__":
    sys.exit(main())
