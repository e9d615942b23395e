"""The command line: python -m dpbench.run --defense dp --eps 1."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from dpbench import metrics, store
from dpbench.cell.grid import Axes, Plan, plan
from dpbench.cell.trial import attach_floors, code_of, dataset, defence_of
from dpbench.data import draw_batch
from dpbench.generators import load_generator
from dpbench.protocol import InputError
from dpbench.report import sentence, tables
from dpbench.report.export import export as write_reports
from dpbench.report.published import published
from dpbench.sweep import engines, status, suite
from dpbench.sweep import executors as executor
from dpbench.sweep import loop as sweep
from dpbench.sweep.estimate import estimate
from dpbench.sweep.options import COMMAND, Options, from_configuration, parse
from dpbench.sweep.progress import Display
from dpbench.system import digest, interrupts, process
from dpbench.victim import weights_digest

SMALL = 64
"""Pixels up to which one thread is used on the CPU, unless OMP_NUM_THREADS says otherwise."""
WIDTH = 120
"""Columns of the table where it goes to a file or a pipe."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: without the program's name; those of this process unless given.

    Returns:
        The exit status: 0; 1 where a cell failed; 2 for what the user has to change; 130 after Ctrl-C or
        SIGTERM.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with interrupts.in_order():
            return _run(parse(arguments), arguments)
    except InputError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted before anything was run.", file=sys.stderr)
        return interrupts.STATUS


def _run(options: Options, arguments: list[str]) -> int:
    if options.status:
        print(status.describe(Path(options.status), COMMAND))
        return 0
    if options.resume:
        options = _resumed(options)
    process.configure()
    notes = Console(stderr=True)

    def note(line: str) -> None:
        if not options.quiet:
            notes.print(line, markup=False, highlight=False, soft_wrap=True)

    axes = _axes(options, note)
    planned = _plan(axes, options)
    for reason in planned.left_out:
        note(f"Left out: {reason}")
    configuration = options.configuration() | {
        "device": axes.device,
        "lpips_net": axes.lpips_net or "",
        "version": axes.version,
        "inputs": digest.described({cell.images_digest + cell.weights_digest: "" for cell in planned.cells}),
    }
    folder = Path(options.out) if options.out else Path("results") / _name(options, configuration)
    if options.dry_run:
        return _dry_run(planned, folder, options, axes.device)
    results = store.open_run(folder, configuration)
    keys = {cell.key(): cell for cell in planned.cells}
    results.expect((key, cell.describe()) for key, cell in keys.items())
    done = results.done()
    missing = [cell for key, cell in keys.items() if key not in done]
    if len(missing) < len(keys):
        note(f"{len(keys) - len(missing)} of {len(keys)} cells are in {folder} already.")
    try:
        if missing:
            with Display(missing, notes, options.quiet) as display:
                sweep.run(missing, results, _executor(options, axes.device), display)
        return _finish(results, options)
    except KeyboardInterrupt:
        done = len(results.counts()[0] & keys.keys())
        print(
            f"Interrupted: {done} of {len(keys)} cells are kept in {folder}; "
            f"go on with: {COMMAND} {shlex.join(arguments)}",
            file=sys.stderr,
        )
        return interrupts.STATUS


def _executor(options: Options, device: str) -> executor.Executor:
    return executor.create(
        options.executor, device, options.workers, options.ray_address, options.gpus_per_cell
    )


def _axes(options: Options, note: Any) -> Axes:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.device == "cuda" and device == "cpu":
        raise InputError("--device cuda: PyTorch finds no graphics card here; use --device cpu.")
    data = dataset(options.data, options.image_size)
    if data.images.shape[-1] <= SMALL:
        # a second thread gains 1.6 times at best on an idle machine, and loses twentyfold on a busy one;
        # and with one the numbers do not depend on how many cores there are
        process.one_thread()
    if data.note:
        note(f"Data: {data.note}.")
    reason = metrics.why_no_lpips(*data.images.shape[2:])
    if reason is not None:
        note(f"The columns lpips and iip stay empty: {reason}")
    asked = options.configuration()
    del asked["device"]
    for name in ("iterations", "restarts", "matching"):
        asked[name] = getattr(options, name) or (None,)
    asked["adaptive"] = tuple(word == "yes" for word in options.adaptive)
    return Axes(
        **asked,
        device=device if options.device == "auto" else options.device,
        version=importlib.metadata.version("dpbench"),
        lpips_net="alex" if reason is None else None,
    )


def _plan(axes: Axes, options: Options) -> Plan:
    """The cells; whatever is wrong with a defence or an attack comes out here, before anything is run."""
    data = dataset(options.data, options.image_size)

    def weights(model: str, norm: str, victim: str) -> str:
        return weights_digest(model, norm, victim, options.weights, data, data.images.shape[-1])

    @cache
    def images(size: int, seed: int, draw: str) -> str:
        batch = draw_batch(data, size, seed, draw)
        return digest.tensors({"images": batch.images, "labels": batch.labels})

    @cache
    def generator(spec: str) -> str:
        try:
            found = load_generator(spec, num_classes=data.num_classes, size=data.images.shape[-1])
        except InputError:  # the cell that wants it says why it cannot be had
            return ""
        return digest.tensors(found.state_dict())

    planned = plan(axes, weights, images, code_of, generator)
    for cell in planned.cells:
        defence_of(cell)
    return replace(planned, cells=tuple(engines.choose(planned.cells)))


def _dry_run(planned: Plan, folder: Path, options: Options, device: str) -> int:
    for cell in planned.cells:
        print(cell.describe())
    print(estimate(planned.cells).sentence(_executor(options, device).slots))
    print(f"{len(planned.cells)} cells; the results would go to {folder}.")
    return 0


def _name(options: Options, configuration: dict[str, Any]) -> str:
    words = [Path(options.suite).stem] if options.suite else [*options.defense]
    if not options.suite and any("dp" in defense.split("+") for defense in options.defense):
        words += [f"eps{eps:g}" for eps in options.eps]
        words += [f"sigma{sigma:g}" for sigma in options.noise_multiplier]
    return f"{'-'.join(words)[:60]}-{digest.described(configuration)[:8]}"


def _resumed(options: Options) -> Options:
    if options.out is None:
        raise InputError("--resume needs the folder to go on with: give it as --out DIR.")
    file = Path(options.out) / "config.toml"
    if not file.exists():
        raise InputError(f"{file} does not exist; --out must name a run's folder.")
    return from_configuration(suite.read(file), options)


def export(results: store.Store) -> tuple[pd.DataFrame, list[Path]]:
    """Writes tables and pictures of the cells that are there, into their folder.

    Returns:
        The results with their floors, and the files.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    table = attach_floors(results.frame())
    return table, write_reports(results, table)


def _finish(results: store.Store, options: Options) -> int:
    """Tables, pictures and the exit status."""
    table, files = export(results)
    asked = table[~table["attack"].str.startswith("floor:") & table["defense"].isin(options.defense)]
    if not options.quiet:
        console = Console()
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console = Console(width=WIDTH)
        console.print(tables.rich_table(table))
        for line in (sentence.sentence(table), *(f"{line}." for line in published(table))):
            console.print(line, markup=False, highlight=False)
        console.print(f"\n{results.path}/", markup=False, highlight=False)
        console.print("  " + "  ".join(file.name for file in files), markup=False, highlight=False)
    if not (asked["status"] == "ok").any():
        raise InputError(f"Nothing that was asked for could be run. {asked['error'].iloc[0]}")
    return 1 if (table["status"] == "failed").any() else 0


if __name__ == "__main__":
    sys.exit(main())
