"""The command line: python -m dpbench.tune --attack inverting-gradients --defense dp --out DIR."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dpbench.system import output, program

COMMAND = "python -m dpbench.tune"
DESCRIPTION = """Choose an attack's parameters for each defence, noise and batch size, and for no defence.

Each setting gets as many trials, in the same space and with as many iterations. Batches are of the seeds 100
to 999; report others. The same command again continues where it stopped. `python -m dpbench.run --tuned
DIR/tuned.toml` uses what was chosen.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0; 2 for what the user has to change; 130 after Ctrl-C or SIGTERM.

    Args:
        arguments: without the program's name; those of this process unless given.
    """
    return program.run(
        _main, arguments, "Interrupted: the searches so far are kept; the same command goes on."
    )


def _main(arguments: list[str]) -> int:
    # what takes seconds to import, PyTorch above all, is imported where it can be interrupted
    from dpbench.protocol import InputError
    from dpbench.system import process
    from dpbench.tune.command import tune
    from dpbench.tune.options import as_typed, parse

    try:
        given = parse(arguments, COMMAND, DESCRIPTION)
        process.configure()
        process.one_thread()
        quiet = given.pop("quiet")
        out = given.pop("out")
        for found in tune(out, **given, progress=not quiet):
            if not quiet:
                print(output.plain(found.sentence()))
        if not quiet:
            print(output.plain(f"{out}/tuned.toml"))
        return 0
    except InputError as error:
        return program.refuse(error, as_typed)


if __name__ == "__main__":
    sys.exit(main())
