"""Runs: their folders begun, taken up again, and read."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import tomli_w

from dpbench.protocol import InputError
from dpbench.store import schema
from dpbench.store.columns import columns
from dpbench.store.folder import CELLS, TABLES, Store
from dpbench.system.atomic import clear_leftovers, is_temporary, made_folder, refused_as_sentence, replacing
from dpbench.system.paths import check_place, expanded, kind_of, open_file, read_toml

(_TABLE, _TEXT), _CONFIG = TABLES, "config.toml"
_INPUTS = "inputs"
"""The setting that stands for the contents of files, by hash: no option."""
_PLUGIN = "plugin"
"""The setting that names files and modules whose code the cells' keys hold: only where it lies may change."""


def open_run(path: str | Path, config: Mapping[str, Any]) -> Store:
    r"""Start a run in a folder, or take up the one of the same configuration.

    Args:
        path: the run's folder, made if it is not there.
        config: what decides the run; None means unset and is left out of `config.toml`.

    Returns:
        The folder's store. What `has` finds there need not be run again.

    Raises:
        InputError: the folder holds a run of another configuration, or something that is no run, or cannot
            be written.

    Example:
        >>> folder = tempfile.TemporaryDirectory()
        >>> open_run(Path(folder.name) / "run", {"eps": [1.0]}).keys()
        []
        >>> (Path(folder.name) / "run" / "config.toml").read_text()
        'eps = [\n    1.0,\n]\n'
        >>> folder.cleanup()
    """
    path = expanded(path)
    begun, wanted = is_begun(path, config), _toml(config)
    made_folder(path)
    if not begun or configuration(path / _CONFIG) != wanted:  # plug-ins have moved
        with replacing(path / _CONFIG) as temporary:
            temporary.write_text(tomli_w.dumps(wanted), encoding="utf-8")
    cells = path / "cells"
    with refused_as_sentence(cells):
        cells.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=cells):  # hours of attack must not end in a read-only folder
            pass
        for folder in (path, cells, path / "failed"):
            clear_leftovers(folder)
    return Store(path)


def is_begun(path: str | Path, config: Mapping[str, Any]) -> bool:
    """Whether a folder holds the run of a configuration already; nothing is written.

    Raises:
        InputError: the folder holds a run of another configuration, or something that is no run.
    """
    path, wanted = expanded(path), _toml(config)
    check_place(path)
    with refused_as_sentence(path):
        if kind_of(path / _CONFIG) is not None:
            _same(path, configuration(path / _CONFIG), wanted)
            return True
        entries = path.iterdir() if kind_of(path) else ()
        foreign = sorted(entry.name for entry in entries if not is_temporary(entry))
        # a run's folder that lost this file is taken up: its cells' keys say what decided them
        ours = kind_of(path / CELLS) == "file" and kind_of(path / "cells") == "folder"
        if foreign and not ours:
            raise InputError(
                f"{path} holds other files ({foreign[0]}, ...) and no {_CONFIG} of a run; "
                "choose an empty or new folder with `out`."
            )
    return False


def load(path: str | Path) -> pd.DataFrame:
    """Read a run's results.

    Args:
        path: a run's folder, or a Parquet or CSV file that was exported from one. A folder whose run has not
            ended yet, or was taken up again since it was exported and has not ended, gives the cells that are
            there, floors not filled in; one that was kept without cells and Parquet gives its `results.csv`.

    Returns:
        One row per image, with the columns, order and dtypes of `dpbench.store.columns`.

    Raises:
        InputError: nothing there that dpbench wrote.
    """
    path = expanded(path)
    if kind_of(path) == "folder":
        if kind_of(path / _CONFIG) != "file":
            raise InputError(f"{path} is no folder of results: it has no {_CONFIG}.")
        store = Store(path)
        if kind_of(path / _TABLE) is None:
            if not store.keys() and kind_of(path / _TEXT):
                return _read_csv(path / _TEXT)
            return store.frame()
        exported = _read(path / _TABLE)
        return store.frame(store.expected()) if _is_outdated(exported, store) else exported
    return _read(path)


def _is_outdated(exported: pd.DataFrame, store: Store) -> bool:
    """Whether the run was taken up again since: of other cells, or with cells that were run in between."""
    expected, (finished, failed) = store.expected().keys(), store.counts()
    if not expected:  # kept without its cells
        return False
    told, well = (set(rows["key"].dropna()) for rows in (exported, exported[exported["status"] != "failed"]))
    return bool(told - expected or (finished & expected) - well or (failed & expected) - told)


def _read(path: Path) -> pd.DataFrame:
    if kind_of(path) is None:
        raise InputError(f"There are no results at {path}; name a run's folder or its {_TABLE}.")
    if path.suffix == ".csv":
        return _read_csv(path)
    with open_file(path) as file:
        try:
            return _ours(pd.read_parquet(file))
        except (
            Exception
        ) as error:  # pandas and pyarrow raise many kinds where a file is not what it should be
            exported = kind_of(path.parent / _CONFIG) == "file"
            advice = "give the run's command again" if exported else f"name a run's folder or its {_TABLE}"
            raise InputError(
                f"{path} is no readable Parquet file of results ({_first_line(error)}); {advice}."
            ) from error


def _read_csv(path: Path) -> pd.DataFrame:
    dtypes = {name: column.dtype for name, column in columns().items()}
    with open_file(path) as file:
        try:
            # a word such as "None" is a word; only what is empty is missing
            table = _ours(pd.read_csv(file, dtype=dtypes, keep_default_na=False, na_values=[""]))
            if (bare := table[["attack", "defense"]].isna().any(axis=1)).any():  # cut, or edited by hand
                raise ValueError(f"its row {int(bare.argmax()) + 1} has no attack or no defense")
        except Exception as error:  # as above
            raise InputError(
                f"{path} is no readable table of results ({_first_line(error)}): undo what was changed in "
                "it, or give the run's command again."
            ) from error
        return table


def _ours(table: pd.DataFrame) -> pd.DataFrame:
    if "attack" not in table or "defense" not in table:  # in those of every version
        raise ValueError("it has no columns attack and defense")
    return schema.conform(table)


def _have_moved(held: Any, wanted: Any) -> bool:
    """Whether every plug-in that was `held` is one of those `wanted`, or a file that is no longer there."""
    if not (isinstance(held, list) and isinstance(wanted, list)):
        return False
    here = {str(expanded(name).resolve()) if name.endswith(".py") else name for name in wanted}
    for name in map(str, held):
        if name in wanted:
            continue
        if not name.endswith(".py"):
            return False
        if str(expanded(name).resolve()) not in here and kind_of(expanded(name)) is not None:
            return False
    return True


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _toml(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _toml(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_toml(item) for item in value]
    text = value if isinstance(value, bool | int | float | str) else str(value)
    if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError(
            f"{text!r} is not UTF-8 and cannot be kept in {_CONFIG}: rename that file or folder, or use a "
            "UTF-8 locale (LC_ALL=C.UTF-8) if it is."
        )
    return text


def configuration(file: Path) -> dict[str, Any]:
    """What the `config.toml` of a run's folder holds.

    Raises:
        InputError: it cannot be read, is damaged, or is empty.
    """
    try:
        found, reason = read_toml(file), f"{file} is empty"
    except InputError as error:
        found, reason = {}, str(error).removesuffix(".")
    if not found:
        raise InputError(
            f"{reason}: restore that file, or remove it and start the same run again with all its options, "
            "which keeps its cells; else choose another folder with `out`."
        )
    return found


def check_version(path: Path, written: Any, here: str) -> None:
    """InputError where the run in `path` was `written` by another version of dpbench than `here`."""
    if written != here:
        raise InputError(
            f"{path} was written by dpbench {written}, and this is {here}: it is left as it is and can still "
            "be read (dpbench.load); name another folder with `out`, or install that version to resume it."
        )


def _same(path: Path, held: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if "version" in wanted:
        check_version(path, held.get("version", wanted["version"]), wanted["version"])
    differing = [key for key in {**held, **wanted} if held.get(key) != wanted.get(key)]
    if _PLUGIN in differing and _have_moved(held.get(_PLUGIN), wanted.get(_PLUGIN)):
        differing.remove(_PLUGIN)
    if differing == [_INPUTS]:
        raise InputError(
            f"The weights, the images or the tuned settings have changed since the run in {path} began: "
            "choose another folder with `out`, or put the old files back to resume it."
        )
    if differing := [key for key in differing if key != _INPUTS]:
        shown = ", ".join(
            f"{key} is {held.get(key, 'unset')!r} there and {wanted.get(key, 'unset')!r} here"
            for key in differing[:3]
        )
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise InputError(
            f"{path} holds a run of another configuration ({shown}{more}); choose another folder with `out`, "
            f"or give the options in its {_CONFIG} to resume it."
        )
