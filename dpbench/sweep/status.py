"""How far a run is, from the names of its files: nothing is started, nothing is written."""

from __future__ import annotations

import shlex
from collections import defaultdict
from itertools import islice
from pathlib import Path

from dpbench import __version__
from dpbench.protocol import InputError
from dpbench.store import TABLES, Store
from dpbench.sweep.claims import running
from dpbench.sweep.loop import RUNNING
from dpbench.system.output import plain
from dpbench.system.paths import kind_of, read_toml
from dpbench.system.words import counted

SHOWN = 10
"""Cells in hand, and reasons of failure, that are listed."""
READ = 500
"""Failed cells that are read for their reason."""


def describe(folder: Path, command: str = "python -m dpbench.run") -> str:
    """Done, running, failed and left; who runs what; why what failed; how to go on.

    Args:
        folder: a run's folder.
        command: the program's name in the line that says how to go on.

    Raises:
        InputError: the folder holds no run.
    """
    if kind_of(folder / "config.toml") is None:
        raise InputError(f"{folder} is no folder of results: it has no config.toml.")
    config, store = read_toml(folder / "config.toml"), Store(folder)
    names, (done, failed), busy = store.expected(), store.counts(), running(folder / RUNNING)
    if not names and not done and not failed and any(kind_of(folder / table) for table in TABLES):
        return plain(f"{folder}: its tables were kept without its cells, so how far it went is not known.")
    strays = (done | failed) - names.keys() if names else set()
    done, failed = done - strays, failed - strays
    busy = {key: who for key, who in busy.items() if key not in done}
    failed -= busy.keys()
    left = len(names.keys() - done - failed - busy.keys()) if names else "an unknown number"
    lines = [
        f"{folder}: {counted(len(done), 'cell')} done, {len(busy)} running, {len(failed)} failed, {left} left"
        + (f", of {len(names)}." if names else ".")
    ]
    older = (wrote := config.get("version")) not in (None, __version__)
    if older:
        lines.append(f"It was written by dpbench {wrote}; this is {__version__}.")
    if strays:
        lines.append(f"Not counted: {counted(len(strays), 'cell')} of other code or another run.")
    lines += [f"running: {names.get(key, key)} ({who})" for key, who in islice(busy.items(), SHOWN)]
    lines += _reasons(store, sorted(failed), names)
    if (failed or left) and not older:  # another version cannot go on with it
        lines.append(
            f"Go on, failed cells included, with: {command} --resume --out {shlex.quote(str(folder))}"
        )
    return "\n".join(map(plain, lines))  # names and reasons come from files of others


def _reasons(store: Store, failed: list[str], names: dict[str, str]) -> list[str]:
    by_reason = defaultdict(list)
    for key in failed[:READ]:
        by_reason[store.failure(key)].append(key)
    lines = []
    for reason, keys in islice(sorted(by_reason.items(), key=lambda item: -len(item[1])), SHOWN):
        example = keys[0]
        lines.append(f"failed: {len(keys)} x {reason}")
        lines.append(f"        as {names.get(example, example)}; traceback: {store.log_file(example)}")
    if len(failed) > READ:
        lines.append(f"        and {len(failed) - READ} more, not read")
    return lines
