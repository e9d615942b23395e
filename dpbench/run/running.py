"""What the command line does with its options: plan, run, tables, exit status."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from dpbench import __version__, metrics, store
from dpbench.cell import parts
from dpbench.cell.rows import describe
from dpbench.cell.scene import dataset
from dpbench.cell.spec import Runtime
from dpbench.protocol import InputError
from dpbench.report import check
from dpbench.report.exceedances import exceedances
from dpbench.report.export import export
from dpbench.report.fields import SHORT, chosen
from dpbench.report.terminal import show
from dpbench.store.runs import check_version, configuration
from dpbench.sweep import engines, executors, status
from dpbench.sweep.estimate import estimate
from dpbench.sweep.inputs import Inputs
from dpbench.sweep.options import (
    COMMAND,
    Options,
    in_words_of_the_command_line,
)
from dpbench.sweep.plan import Plan, plan
from dpbench.sweep.resumed import from_configuration
from dpbench.sweep.session import Session
from dpbench.sweep.tuned import Tuned
from dpbench.sweep.tuned import load as load_tuned
from dpbench.system import devices, digest, interrupts, output, process
from dpbench.system.once import kept
from dpbench.system.paths import absolute, expanded, kind_of
from dpbench.system.words import counted

if TYPE_CHECKING:
    from dpbench.accuracy.trial import Trial

PATIENCE = 2.0
"""Seconds after which planning says that it goes on."""
SMALL = 64
"""Pixels up to which one thread is used on the CPU, unless OMP_NUM_THREADS says otherwise."""
Note = Callable[[str], None]


def carry_out(options: Options, arguments: list[str]) -> int:
    """Do what `options` ask for.

    Args:
        options: checked.
        arguments: as they were typed, for the line that says how to go on.

    Returns:
        The exit status.

    Raises:
        InputError: for what the user has to change; options stand in backquotes.
    """
    if options.status is not None:
        print(status.describe(expanded(options.status), COMMAND))
        return 0
    if options.resume:
        options = _resumed(options)
    if options.columns is not None:
        chosen(options.columns)  # a name that is none is said before anything is run
    stored = check.read(expanded(options.check)) if options.check is not None else None
    process.configure()
    notes = Console(stderr=True, emoji=False)

    def note(line: str) -> None:
        if not options.quiet:
            text = output.plain(in_words_of_the_command_line(line))
            notes.print(text, markup=False, highlight=False, soft_wrap=True)

    runtime = _runtime(options, note)
    tuned = None if options.tuned is None else load_tuned(options.tuned)
    planned = _plan(options, runtime, tuned, note)
    for line in (*(f"Left out: {reason}" for reason in planned.left_out), *planned.cautions()):
        note(line)
    inputs = {cell.batch.images_digest + cell.batch.weights_digest: "" for cell in planned.cells}
    if tuned is not None:
        inputs[tuned.digest] = ""
        for line in (*tuned.left, *tuned.changed(planned.cells)):
            note(line)
    configuration = options.configuration() | {
        "device": runtime.device,
        "lpips_net": runtime.lpips_net or "",
        "version": runtime.version,
        "inputs": digest.described(inputs),
    }
    # absolute, as an attack may change the working directory
    folder = (
        expanded(options.out) if options.out is not None else Path("results") / _name(options, configuration)
    )
    if options.check is not None and absolute(folder).resolve() == expanded(options.check).resolve():
        raise InputError(
            f"The results in {folder} would be compared with themselves: give a folder by `out` that is not "
            "that of `check`."
        )
    executor = executors.create(
        options.executor,
        runtime.device,
        options.workers,
        options.ray_address,
        options.gpus_per_cell,
        planned.cells,
    )
    if options.dry_run:
        store.is_begun(absolute(folder), configuration)  # refused as the run itself would be
        return _dry_run(planned, folder, executor.slots)
    trials = _trials(options, runtime.device, note) if options.utility else []
    results = store.open_run(absolute(folder), configuration)
    session = Session.begin(results, planned.cells)
    for line in session.sort_out():
        note(line)
    missing = session.missing()
    if len(missing) < len(session.cells):
        there = len(session.cells) - len(missing)
        note(f"{there} of {counted(len(session.cells), 'cell')} in {folder} already.")
    try:
        session.run(missing, executor, notes, options.quiet)
        ended = _finish(session, options, folder, trials)
        return ended if stored is None else max(ended, _check(stored, folder, options.quiet))
    except KeyboardInterrupt:
        done = len(results.counts()[0] & session.cells.keys())
        line = f"Interrupted: {done} of {counted(len(session.cells), 'cell')} kept in {folder}; "
        print(output.plain(f"{line}go on with: {COMMAND} {shlex.join(arguments)}"), file=sys.stderr)
        return interrupts.STATUS


def _runtime(options: Options, note: Note) -> Runtime:
    device = devices.chosen(None if options.device == "auto" else options.device)
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
    return Runtime(
        device=device,
        engine=options.engine,
        lpips_net="alex" if reason is None else None,
        version=__version__,
        plugins=options.plugin,
    )


def _plan(options: Options, runtime: Runtime, tuned: Tuned | None, note: Note) -> Plan:
    """The cells; whatever is wrong with a defence or an attack comes out here, before anything is run."""
    values = {name: value for name, value in options.items() if isinstance(value, tuple)}
    inputs = Inputs(options.data, options.image_size, options.weights)
    change = {} if tuned is None else {"change": tuned.applied}
    planned = plan(values, inputs, runtime, _patiently(note), **change)
    checked = {(c.defence, c.threat, c.batch.batch_size, c.batch.clients): c for c in planned.cells}
    for cell in checked.values():
        parts.defence_of(cell)
    return replace(planned, cells=tuple(engines.choose(planned.cells)))


def _trials(options: Options, device: str, note: Note) -> list[Trial]:
    from dpbench.accuracy import command as utility  # Opacus, which takes seconds to import

    trials = utility.trials(options, device)
    if trials:
        note(utility.note(trials))
    return trials


def _patiently(note: Note) -> Callable[[int], None]:
    """Says how many cells are planned, where planning takes long."""
    said = None

    def tell(count: int) -> None:
        nonlocal said
        now = time.monotonic()
        if said is None:  # loading data before the first batch is no planning
            said = now
        elif now - said > PATIENCE:
            said = now
            note(f"Planning: {count:,} cells so far.")

    return tell


def _dry_run(planned: Plan, folder: Path, slots: int) -> int:
    for cell in planned.cells:
        print(output.plain(describe(cell)))
    print(estimate(planned.cells).sentence(slots))
    print(output.plain(f"{counted(len(planned.cells), 'cell')}; the results would go to {folder}."))
    return 0


def _name(options: Options, configuration: dict[str, Any]) -> str:
    words = [Path(options.suite).stem] if options.suite else [*options.defense]
    if not options.suite and any("dp" in defense.split("+") for defense in options.defense):
        words += [f"eps{eps:g}" for eps in options.eps]
        words += [f"sigma{sigma:g}" for sigma in options.noise_multiplier]
    return f"{'-'.join(words)[:60]}-{digest.described(configuration)[:8]}"


def _resumed(options: Options) -> Options:
    if options.out is None:
        raise InputError("`resume` needs the folder to go on with: give it as `out`.")
    file = expanded(options.out) / "config.toml"
    if kind_of(file) is None:
        raise InputError(
            f"{file} does not exist: name a run's folder, or give the run's own options in place of `resume`."
        )
    stored, here = configuration(file), __version__
    check_version(file.parent, stored.get("version", here), here)  # before its options, which may be others
    return from_configuration(stored, options)


def _check(stored: check.Stored, folder: Path, quiet: bool) -> int:
    """Says where the run in `folder` departs from what was stored; 1 if it does."""
    found = check.compare(stored, check.read(folder))
    if not (quiet and found.agrees):
        print("\n".join(output.plain(line) for line in check.lines(stored, found)))
    return 0 if found.agrees else 1


def _finish(session: Session, options: Options, folder: Path, trials: list[Trial]) -> int:
    """Tables, pictures and the exit status."""
    table = store.attach_floors(session.results.frame(session.cells))
    with kept():
        files = export(session.results, table)
        if trials:
            from dpbench.accuracy import command as utility

            accuracies = utility.carry_out(trials, session.results.path, options.quiet)
            files = export(session.results, table)  # once more, with accuracies
        if not options.quiet:
            show(table, folder, files, chosen(options.columns) if options.columns is not None else SHORT)
            if trials:
                utility.show(accuracies)
        above = exceedances(table)
    asked = table[table["floor"].isna() & table["defense"].isin(options.defense)]
    if not (asked["status"] == "ok").any():
        reason = asked["error"].iloc[0] if len(asked) else "No cell left a result."
        raise InputError(f"Nothing that was asked for could be run. {reason}")
    lost = session.cells.keys() - set(table["key"])
    if lost:
        print(
            f"{len(lost)} of {counted(len(session.cells), 'cell')} left no result; run the same command "
            "again.",
            file=sys.stderr,
        )
    for line in above:
        print(output.plain(f"Above what differential privacy allows: {line}."), file=sys.stderr)
    return 1 if lost or above or (table["status"] == "failed").any() else 0
