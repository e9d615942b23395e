"""python -m dpbench.assets list | fetch NAME... | verify | export [--half] DIR [--names NAME...]."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from dpbench import assets
from dpbench.assets import cache, export
from dpbench.protocol import InputError
from dpbench.system import interrupts
from dpbench.system.command_line import subcommand

COMMAND = "python -m dpbench.assets"


def show() -> int:
    """List the assets: what each is for, its licence, and whether it is on this machine."""
    table = Table("asset", "what it is", "licence", "on this machine", title=f"assets in {cache.folder()}")
    for asset in assets.ASSETS.values():
        file = cache.location(asset.name)
        here = f"{file.stat().st_size / 1e6:.0f} MB" if file.is_file() else "no"
        table.add_row(asset.name, asset.about, asset.licence, here)
    Console(emoji=False).print(table)
    return 0


def fetch(names: Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")]] = ()) -> int:
    """Fetch assets that are missing or damaged.

    Args:
        names: assets by name, or `all`.
    """
    status = 0
    for name in _chosen(names):
        try:
            print(f"{name}: {assets.refresh(name)}", flush=True)
        except assets.AssetUnavailable as error:
            print(error, file=sys.stderr)
            status = 2
    return status


def verify() -> int:
    """Check every asset on this machine against its record."""
    status = 0
    for asset in assets.ASSETS.values():
        file = cache.location(asset.name)
        try:
            if file.is_file():
                cache.check(asset, file)
            print(f"{asset.name}: {'good' if file.is_file() else 'not on this machine'}")
        except assets.AssetUnavailable as error:
            print(error, file=sys.stderr)
            status = 2
    return status


def carry(
    folder: Positional[Annotated[Path, tyro.conf.arg(metavar="DIR")]],
    half: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    names: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = (),
) -> int:
    """Write the assets of this machine into a folder to carry to one without a network.

    Args:
        folder: where to write; set DPBENCH_ASSETS to it over there.
        half: floats in half precision, except batch-norm statistics, which half precision overflows.
        names: which assets; all that are on this machine where none is named.
    """
    for name in _chosen(names) if names else assets.ASSETS:
        if not names and not cache.location(name).is_file():
            print(f"{name}: not on this machine, left out")
            continue
        file = export.export(name, folder, half)
        print(f"{name}: {file} ({file.stat().st_size / 1e6:.0f} MB)", flush=True)
    return 0


def _chosen(names: Sequence[str]) -> list[str]:
    """`names` with `all` spelt out; the unknown ones are an error before anything is done."""
    if not names:
        raise InputError(f"Name at least one asset, or all; known: {', '.join(assets.ASSETS)}.")
    chosen = list(assets.ASSETS) if "all" in names else list(names)
    for name in chosen:
        assets.record(name)
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 2 with one line on stderr, or 130 after Ctrl-C or SIGTERM."""
    commands = {"list": show, "fetch": fetch, "verify": verify, "export": carry}
    try:
        with interrupts.in_order():
            return subcommand(commands, sys.argv[1:] if arguments is None else arguments, COMMAND)()
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; what was fetched before is kept.", file=sys.stderr)
        return interrupts.STATUS


if __name__ == "__main__":
    sys.exit(main())
