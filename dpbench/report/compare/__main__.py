"""The command line: dpbench compare A B ..."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from dpbench.system import output, program
from dpbench.system.words import counted

COMMAND = "python -m dpbench.report.compare"


@dataclass
class Options:
    """Compare runs with the first of them, image by image; or check and rank the entries of runs."""

    runs: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN")]] = ()
    """folders of runs, two or more"""
    out: str | None = None
    """a folder for compare.csv, compare.md, compare.png and compare.html; of a leaderboard, its page"""
    validate: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATH")] = ()
    """check these entries (dpbench-entry.json, or folders that hold some) and the results beside them"""
    leaderboard: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """rank the entries in this folder and those below it"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0; 1 for entries with faults; 2 for what the user has to change; 130 after Ctrl-C.

    Args:
        arguments: without the program's name; those of this process unless given.
    """
    return program.run(_main, arguments, "Interrupted; older files are as they were.")


def _main(arguments: list[str]) -> int:
    # what takes seconds to import is imported where it can be interrupted
    from dpbench.protocol import InputError
    from dpbench.system.command_line import read

    try:
        return _carry_out(read(Options, arguments, COMMAND))
    except InputError as error:
        return program.refuse(error, lambda sentence: sentence.replace("`out`", "--out"))


def _carry_out(options: Options) -> int:
    from dpbench.cell import registered
    from dpbench.protocol import InputError

    if sum(map(bool, (options.runs, options.validate, options.leaderboard))) != 1:
        raise InputError(
            "Give either folders of runs, or --validate with entries, or --leaderboard with a folder."
        )
    registered.load()
    if options.validate:
        return _validate(options.validate)
    if options.leaderboard:
        return _leaderboard(options.leaderboard, options.out)
    return _compare(options.runs, options.out)


def _compare(paths: Sequence[str], out: str | None) -> int:
    from dpbench.report.compare.comparison import compare
    from dpbench.report.compare.files import write
    from dpbench.report.compare.runs import read
    from dpbench.report.compare.text import text
    from dpbench.report.compare.words import words

    comparison = compare(read(paths))
    said = words(comparison)
    print(text(said).replace("`out`", "--out"))
    if out is not None:
        files = write(out, comparison, said)
        print()
        print(output.plain(f"{out}/  {'  '.join(file.name for file in files)}"))
    return 0


def _validate(paths: Sequence[str]) -> int:
    from dpbench.report.entries.check import check, find

    status = 0
    for file in [file for path in paths for file in find(path)]:
        found = check(file)
        status = status or int(bool(found.faults))
        but = f", but {'; '.join(found.unchecked)}" if found.unchecked else ""
        for line in found.faults or [f"sound{but}"]:
            print(output.plain(f"{file}: {line}."))
    return status


def _leaderboard(folder: str, out: str | None) -> int:
    from dpbench.protocol import InputError
    from dpbench.report.entries.leaderboard import write

    if out is None:
        raise InputError("Give the page of the leaderboard with `out`, leaderboard.html say.")
    page, entries, left_out = write(folder, out)
    print(
        output.plain(
            f"{page}: {counted(entries, 'entry', plural='entries')}"
            + (f", {left_out} left out" if left_out else "")
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
