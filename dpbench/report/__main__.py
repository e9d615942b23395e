"""The command line: dpbench report DIR."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from dpbench.system import output, program

COMMAND = "python -m dpbench.report"


@dataclass
class Options:
    """Make report.html of a run again: of an old one, one that was interrupted, or tables without cells."""

    folders: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR")]] = ()
    """folders of runs, of `dpbench decide --out` or of `dpbench frontier`"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0; 2 for what the user has to change; 130 after Ctrl-C or SIGTERM.

    Args:
        arguments: without the program's name; those of this process unless given.
    """
    return program.run(_main, arguments, "Interrupted; older pages are as they were.")


def _main(arguments: list[str]) -> int:
    from dpbench.protocol import InputError
    from dpbench.system.command_line import read

    try:
        return _report(read(Options, arguments, COMMAND).folders)
    except InputError as error:
        return program.refuse(error, str)


def _report(folders: Sequence[str]) -> int:
    from dpbench.cell import registered
    from dpbench.protocol import InputError
    from dpbench.report import page
    from dpbench.report.page import folder

    if not folders:
        raise InputError(f"Name the folder of a run: {COMMAND} DIR.")
    registered.load()
    for name in folders:
        print(output.plain(str(page.write(*folder.read(name)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
