"""The backends of the attack engine compared.

    python -m benchmarks.engine                                          # the standard cases of this machine
    python -m benchmarks.engine --case convnet:32:1 lenet:32:4 --iterations 200     # MODEL:SIZE:BATCH

Each backend first runs once alone, without programs or Inductor's cache: that gives its compile time and its
peak memory. Then all take turns, from the same start; the table shows medians of the repeats so far, and is
written after each of them. Operations are ATen calls other than views, and kernels that Inductor generated;
on a graphics card, the profiler's kernels and copies. There, `waits` counts the host's synchronisations per
iteration of the backends that should have none. `pays from` is the number of iterations after which a
backend has saved its compile time.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch._inductor import metrics
from torch._inductor.utils import fresh_cache

from attacks.engine import Outcome, Schedule, forget, search, step_decay
from attacks.engine.search import REPORTS
from benchmarks.cases import CASES, Case, Scene, scene
from benchmarks.measure import Operations, Row, peak, seconds, show
from dpbench.system.process import configure

TIMED = ("ms/iteration", "times eager", "pays from", "iterations", "distance", "PSNR dB")
BACKENDS = {"cpu": ("eager", "compiled"), "cuda": ("eager", "graph", "compiled")}


@dataclass(frozen=True)
class Options:
    """Backends side by side.

    Attributes:
        case: MODEL:SIZE:BATCH, in place of the standard cases.
        iterations: of each timed search.
        repeats: of each backend's search.
        device: `cpu` or `cuda`; empty is what there is.
        out: the CSV's folder.
    """

    case: tuple[str, ...] = ()
    iterations: int = 100
    repeats: int = 3
    device: str = ""
    out: Path = Path("results/benchmarks")

    def kind(self) -> str:
        """The device."""
        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")

    def cases(self) -> Sequence[Case]:
        """What to run."""
        return [parsed(word) for word in self.case] or CASES[self.kind()]


def parsed(word: str) -> Case:
    """The case that MODEL:SIZE:BATCH names; 1,000 classes from 64 px on."""
    model, size, batch = word.split(":")
    return Case(model, int(size), int(batch), 1000 if int(size) >= 64 else 10)


def run(found: Scene, engine: str, iterations: int) -> Outcome:
    """One search."""
    schedule = Schedule(step_decay(0.1, iterations))
    return search(found.problem(), [[found.start]], found.labels, schedule, engine=engine, signed=True)


def measured(case: Case, device: str, iterations: int, repeats: int) -> Iterator[list[Row]]:
    """One row for each backend: first what it takes to begin, then after each repeat the times so far."""
    found, first = scene(case, device), []
    with fresh_cache():  # what the first search compiles serves the others
        for engine in BACKENDS[device]:
            forget()
            with peak(device) as mib:
                metrics.reset()
                outcome = run(found, engine, 2)
            row = {
                "case": str(case),
                "engine": outcome.engine,
                "compile s": outcome.compile_seconds,
                "peak MiB": mib(),
                "operations": operations(found, engine, device, metrics.generated_kernel_count),
                "waits": waits(found, engine) if device == "cuda" and engine != "eager" else float("nan"),
            }
            first.append(row | dict.fromkeys(TIMED, float("nan")))
            yield [*first]
        yield from timed(found, first, device, iterations, repeats)


def timed(
    found: Scene, first: Sequence[Row], device: str, iterations: int, repeats: int
) -> Iterator[list[Row]]:
    """The rows of `first` with the medians of the repeats so far."""
    engines = BACKENDS[device]
    times: dict[str, list[float]] = {engine: [] for engine in engines}
    outcomes: dict[str, Outcome] = {}
    for engine in engines:
        run(found, engine, 2)
    for _ in range(repeats):
        for engine, taken in times.items():
            taken.append(seconds(lambda e=engine: outcomes.update({e: run(found, e, iterations)}), device))
        medians = {engine: statistics.median(taken) / iterations for engine, taken in times.items()}
        rows = []
        for engine, row in zip(engines, first, strict=True):
            best, saved = outcomes[engine].found[0], medians["eager"] - medians[engine]
            values = (
                1000 * medians[engine],
                medians["eager"] / medians[engine],
                row["compile s"] / saved if saved > 0 else float("nan"),
                iterations,
                best.distance,
                found.psnr(best.variables[0]),
            )
            rows.append(row | dict(zip(TIMED, values, strict=True)))
        yield rows


def operations(found: Scene, engine: str, device: str, generated: int) -> int:
    """Of one iteration: a search of two less a search of one, and on the CPU what Inductor `generated`."""
    counts = []
    for iterations in (1, 2):
        if device == "cuda":
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                run(found, engine, iterations)
                torch.cuda.synchronize()
            on_device = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
            counts.append(len(on_device))
        else:
            with Operations() as counted:
                run(found, engine, iterations)
            counts.append(counted.count)
    return counts[1] - counts[0] + (generated if device == "cpu" else 0)


def waits(found: Scene, engine: str) -> float:
    """Synchronisations per iteration: of twice as many iterations as there are reports, less as many.

    Both searches report as often, and each report waits. With fewer iterations than reports the longer search
    would report more often, and its reports would be counted as iterations that wait.
    """
    counts = []
    torch.cuda.set_sync_debug_mode("warn")
    try:
        for iterations in (REPORTS, 2 * REPORTS):
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                run(found, engine, iterations)
            counts.append(sum("synchroniz" in str(warning.message) for warning in said))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return (counts[1] - counts[0]) / REPORTS


def each_case(
    options: Options, measure: Callable[[Case, str], Iterator[list[Row]]], title: str, name: str
) -> None:
    """Measure each case on the device, on one thread of a CPU, and show all rows whenever there are new ones.

    Args:
        options: which cases, where.
        measure: (case, device) -> the case's rows, ever more complete.
        title: the table's.
        name: the CSV's, without its ending.
    """
    device, done = options.kind(), []
    configure()
    if device == "cpu":
        torch.set_num_threads(1)
    for case in options.cases():
        rows: list[Row] = []
        for rows in measure(case, device):
            show(title, [*done, *rows], options.out / f"{name}.csv")
        done += rows


def main(options: Options) -> None:
    """Measure and show."""
    each_case(
        options,
        lambda case, on: measured(case, on, options.iterations, options.repeats),
        "Backends",
        "engine",
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
