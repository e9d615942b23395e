"""How a run can be repeated: its command, its configuration, and the versions that made it."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from dpbench import __version__
from dpbench.report.page import beside
from dpbench.report.page.templating import render
from dpbench.store import Store

_OUTCOMES = ("version", "inputs", "lpips_net", "ranking")
"""Entries of a configuration that are no options: they say what the run found."""


def provenance(table: pd.DataFrame, store: Store) -> Markup | None:
    """Whatever of it lies in the folder; None where there is nothing."""
    config = beside.text(store.path / "config.toml")
    environment = beside.from_json(store.path / "environment.json")
    environment = environment if isinstance(environment, dict) else {}
    if config is None and not environment:
        return None
    packages, git = environment.get("packages"), environment.get("git")
    devices = [str(each) for each in table["device"].dropna().unique()]
    return render(
        "provenance",
        command=None if config is None else command(config),
        made_by=[each for each in _versions(table, config or "") if each != __version__],
        version=__version__,
        config=config,
        packages=[(n, v) for n, v in packages.items() if v] if isinstance(packages, dict) else [],
        facts=[
            (name, value)
            for name, value in (
                ("Python", environment.get("python")),
                ("Platform", environment.get("platform")),
                ("Attacked on", ", ".join(devices)),
                ("Commit", _commit(git) if isinstance(git, dict) else None),
            )
            if value
        ],
    )


def _versions(table: pd.DataFrame, config: str) -> list[str]:
    """Those that wrote the rows; without any row, the one in the configuration."""
    written = [str(each) for each in table["version"].dropna().unique()]
    found = None if written else _read(config).get("version")
    return written or ([str(found)] if found else [])


def _read(config: str) -> dict[str, Any]:
    try:
        return tomllib.loads(config)
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}


def command(config: str) -> str | None:
    r"""The line that makes a run of this configuration; None where it was none of a command line.

    Example:
        >>> command('defense = ["dp"]\neps = [1.0]\nadaptive = [true]\ndevice = "cpu"\nversion = "0.2.0"')
        'python -m dpbench.run --defense dp --eps 1.0 --adaptive yes --device cpu'
    """
    found = _read(config)
    if not isinstance(found.get("defense"), list):  # `benchmark()` writes its arguments down as text
        return None
    program = "frontier" if "levels" in found else "run"
    words = [word for name, value in found.items() if name not in _OUTCOMES for word in _option(name, value)]
    return shlex.join(["python", "-m", f"dpbench.{program}", *words])


def _option(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag.removeprefix('--')}"]
    if isinstance(value, list):
        return [flag, *({True: "yes", False: "no"}[v] if isinstance(v, bool) else str(v) for v in value)]
    return [flag, str(value)]


def _commit(git: Mapping[str, Any]) -> str | None:
    commit = git.get("commit")
    return f"{commit}{', with changes' if git.get('dirty') else ''}" if commit else None
