"""Is an entry what it says? Its form, the files beside it, and its numbers computed once more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpbench import __version__, store
from dpbench.protocol import InputError
from dpbench.report.entries import provenance
from dpbench.report.entries.budgets import too_small
from dpbench.report.entries.entry import FILE, entry
from dpbench.report.entries.results import differing
from dpbench.report.entries.schema import FaultyError, misshapen, read
from dpbench.store import environment, schema
from dpbench.system.paths import absolute, kind_of, listed

_RECOMPUTED = ("results", "cells_without_result", "suite")
_MAKER = (("packages", "dpbench"), ("git", "commit"))
_DEPTH = 4
"""Folders below the one named in which entries are looked for."""


@dataclass(frozen=True)
class Checked:
    """What came of the check of one file.

    Attributes:
        found: the entry; None where it is none.
        faults: what is wrong, one sentence each, without a full stop.
        unchecked: what could not be checked, for it is not there.
    """

    found: dict[str, Any] | None
    faults: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


def find(path: str | Path) -> list[Path]:
    """The entries at `path`: a file, or all files of that name in a folder and those below it.

    Raises:
        InputError: there is none.
    """
    place = absolute(path)
    if kind_of(place) == "file":
        return [place]
    if kind_of(place) is None:
        raise InputError(f"There is no file or folder {path}.")
    found = _below(place, _DEPTH)
    if not found:
        raise InputError(f"{path} holds no {FILE}: name a run's folder, or one that holds such folders.")
    return found


def check(path: Path) -> Checked:
    """Check an entry against the schema, and against the run in whose folder it lies.

    Raises:
        InputError: it cannot be read, or a newer dpbench wrote it.
    """
    try:
        found = read(path)
    except FaultyError as error:
        return Checked(None, (str(error),))
    if faults := misshapen(found):
        return Checked(None, tuple(faults))
    folder = path.parent
    stated = found["provenance"]["files"]
    there = provenance.hashes(folder)
    missing = [name for name in stated if name not in there]
    unchecked = [f"{name} is not beside it" for name in missing]
    faults = [
        f"{name} is not the file that the entry was made from"
        for name in stated
        if _other(name, stated, there)
    ]
    faults += [f"{name} came after the entry: export the run again" for name in there if name not in stated]
    if "results.csv" in there:
        faults += _of_results(found, folder, unchecked)
    return Checked(found, tuple(faults), tuple(unchecked))


def _of_results(found: dict[str, Any], folder: Path, unchecked: list[str]) -> list[str]:
    """Faults that show when the entry is made once more."""
    try:
        table = store.load(folder / "results.csv")
        if unknown := schema.undeclared(table, least=1):  # all settings are in the entry's ids
            unchecked.append(f"the plug-in with the column {unknown[0]} is not loaded: no result was checked")
            return []
        again = entry(folder, table)
        faults = too_small(table)
    except InputError as error:
        return [str(error).removesuffix(".")]
    faults += [said for name in _RECOMPUTED if (said := differing(found[name], again[name], name))]
    faults += [said for said in [_made_elsewhere(found)] if faults and said]
    # there may be more of them: an audit that was made of the defence need not lie beside the entry
    faults += [f"a flag is missing: {flag['text']}" for flag in again["flags"] if not _raised(flag, found)]
    stated, kept = found["provenance"]["cells"], again["provenance"]["cells"]
    if stated and not kept:
        unchecked.append("its cells are not beside it")
    elif stated != kept:
        faults.append("the cells are not those that the entry was made from")
    return faults


def _made_elsewhere(found: dict[str, Any]) -> str:
    """What made an entry, where that is not this dpbench: it need not be the entry that is wrong."""
    version, commit = (found["provenance"][name].get(key) for name, key in _MAKER)
    here = environment.git_state(Path(__file__))["commit"]
    if version in (None, __version__) and (None in (commit, here) or commit == here):
        return ""
    then, now = (
        f"{each or 'of an unknown version'}" + (f", commit {made[:7]}" if made else "")
        for each, made in ((version, commit), (__version__, here))
    )
    return (
        f"it was made by dpbench {then}, and this is {now}, which may count otherwise: give the run's own "
        "command again, which makes its entry again, or check it with the version that made it"
    )


def _raised(flag: dict[str, Any], found: dict[str, Any]) -> bool:
    """Whether an entry has a flag, in whatever words: another version may word it otherwise."""
    return any(
        each["kind"] == flag["kind"] and {*flag["results"]} <= {*each["results"]} for each in found["flags"]
    )


def _other(name: str, stated: dict[str, str], there: dict[str, str]) -> bool:
    return name in there and stated[name] != there[name]


def _below(folder: Path, depth: int) -> list[Path]:
    found = [folder / FILE] if kind_of(folder / FILE) == "file" else []
    if depth:
        for name in listed(folder):
            below = folder / name
            if name not in ("cells", "failed", "logs", "set-aside") and kind_of(below) == "folder":
                found += _below(below, depth - 1) if not below.is_symlink() else []
    return found
