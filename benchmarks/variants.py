"""What would make a compiled iteration faster: `IDEAS`, each in a process of its own, timed in turns.

    python -m benchmarks.variants
    python -m benchmarks.variants --case resnet50:224:8 --idea joined pointwise --wait 300

All processes compile at once; then one at a time searches, while the others wait, and each turn begins with
another of them. `ms` is the median over the turns of the time between iterations: a search of twice as many
iterations less one of these. `times` compares it with the first row's, turn by turn, and the quartiles are
over the turns. The last row is the first one's program in another process: a smaller difference than theirs
means nothing. `off` is how far the idea moves the gradient of the first iteration, relative to the plain
iteration in full precision: TF32 alone moves it by several percent.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import tyro
from torch import multiprocessing

from attacks.engine import Schedule, step_decay
from attacks.engine.iteration import Iteration, State
from benchmarks.cases import Case, Scene, scene
from benchmarks.engine import Options, each_case, run
from benchmarks.ideas import AS_IS, IDEAS, ON_CPU
from benchmarks.measure import Row, peak, seconds
from dpbench.protocol import InputError, full_precision
from dpbench.system.process import configure

QUARTILES = (0.25, 0.75)


@dataclass(frozen=True)
class VariantOptions(Options):
    """Which ideas.

    Attributes:
        idea: names of ideas; all that the device can try unless given.
        wait: seconds after which an idea that is still compiling is given up.
    """

    idea: tuple[str, ...] = ()
    wait: float = 300.0

    def ideas(self) -> list[str]:
        """The names, with `AS_IS` first and, as a control, once more at the end.

        Raises:
            InputError: for a name that does not exist.
        """
        possible = list(IDEAS) if self.kind() == "cuda" else list(ON_CPU)
        if unknown := sorted(set(self.idea) - set(IDEAS)):
            raise InputError(f"No idea is called {', '.join(unknown)}; there are {', '.join(IDEAS)}.")
        return [AS_IS, *(name for name in self.idea or possible if name != AS_IS), AS_IS]


@dataclass
class Candidate:
    """One idea in a process of its own, and what that said.

    Attributes:
        idea: its name.
        process: to be ended.
        connection: its other end.
        row: what is known before the turns.
        times: seconds of an iteration, one for each turn.
    """

    idea: str
    process: Any
    connection: Connection
    row: Row
    times: list[float]


def serve(connection: Connection, case: Case, device: str, idea: str) -> None:
    """Compile, say what came of it, then search for as many iterations as asked, until they are 0."""
    configure()
    if device == "cpu":
        torch.set_num_threads(1)
    found = scene(case, device)
    with full_precision(torch.device(device)):
        exact = first_gradient(found)
    with IDEAS[idea]():
        off = first_gradient(found) - exact
        with peak(device) as mib:
            outcome = run(found, "compiled", 2)
        connection.send(
            {
                "engine": outcome.engine,
                "compile s": outcome.compile_seconds,
                "peak MiB": mib(),
                "off": float(off.norm() / exact.norm()),
            }
        )
        while iterations := connection.recv():
            short, long = (
                seconds(lambda n=n: run(found, "compiled", n), device) for n in (iterations, 2 * iterations)
            )
            connection.send((long - short) / iterations)


def first_gradient(found: Scene) -> torch.Tensor:
    """Of the plain iteration by the images, flat."""
    schedule = Schedule(step_decay(0.1, 1))
    iteration = Iteration(found.problem(), True, (0.9, 0.999)).to(found.start.device)
    rows = schedule.rows(len(iteration.problem.regularisers), (0.9, 0.999), found.start)
    new = iteration(State.at([found.start]).flat(), rows[0], found.labels, [])
    return torch.cat([g.flatten() for g in State.unflat(new).gradient])


def measured(
    case: Case, device: str, ideas: Sequence[str], iterations: int, repeats: int, wait: float
) -> Iterator[list[Row]]:
    """A row for each idea: first what compiling it took, then after each turn of all the times so far."""
    context = multiprocessing.get_context("spawn")
    begun, candidates = time.monotonic(), []
    try:
        for idea in ideas:
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, case, device, idea), daemon=True)
            process.start()
            theirs.close()  # or its end would go unnoticed
            candidates.append(Candidate(idea, process, ours, {"case": str(case), "idea": idea}, []))
        for one in candidates:
            one.row = one.row | answer(one, max(0.0, begun + wait - time.monotonic()))
        yield table(candidates)
        ready = [one for one in candidates if one.process.is_alive()]
        for turn in range(repeats):
            for one in ready[turn % len(ready) :] + ready[: turn % len(ready)]:
                one.connection.send(iterations)
                one.times.append(one.connection.recv())
            yield table(candidates)
    finally:
        end(candidates)


def end(candidates: Sequence[Candidate]) -> None:
    """Let the processes end by themselves if they can."""
    for one in candidates:
        with suppress(OSError):
            one.connection.send(0)
    for one in candidates:
        one.process.join(20)
        one.process.kill()


def answer(one: Candidate, wait: float) -> Row:
    """What an idea has to say once it is compiled; its process is ended if that takes too long."""
    try:
        if one.connection.poll(wait):
            return one.connection.recv()
        said = "not compiled in time"
    except EOFError:
        said = "its process ended"
    one.process.kill()
    one.process.join()
    return {"engine": said} | dict.fromkeys(("compile s", "peak MiB", "off"), float("nan"))


def table(candidates: Sequence[Candidate]) -> list[Row]:
    """The rows."""
    first, rows = candidates[0].times, []
    for one in candidates:
        ratios = [a / b for a, b in zip(first, one.times, strict=False)]
        low, high = np.quantile(ratios or [float("nan")], QUARTILES).tolist()
        values = {
            "ms": 1000 * statistics.median(one.times) if one.times else float("nan"),
            "times": statistics.median(ratios) if ratios else float("nan"),
            "lower quartile": low,
            "upper quartile": high,
            "turns": len(one.times),
        }
        rows.append(one.row | values)
    return rows


def main(options: VariantOptions) -> None:
    """Measure and show."""
    ideas = options.ideas()
    each_case(
        options,
        lambda case, on: measured(case, on, ideas, options.iterations, options.repeats, options.wait),
        "Variants of the compiled iteration",
        "variants",
    )


if __name__ == "__main__":
    main(tyro.cli(VariantOptions))
