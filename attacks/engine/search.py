"""Several starts of one problem, searched side by side on one backend."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.base import Progress, Task
from attacks.engine import programs, steps
from attacks.engine.choice import auto, checked
from attacks.engine.failures import out_of_memory
from attacks.engine.iteration import Iteration, State
from attacks.engine.problem import Problem
from attacks.engine.runners import ChannelsLast, Direct, Graph, Inputs, Step, channels_last
from attacks.engine.schedule import Schedule
from dpbench.protocol import InputError, Reconstruction, full_precision

REPORTS = 100
"""How often a search reports, at most; each report waits for the device once."""
MEMORY = 0.9
"""Share of a graphics card's free memory that searches side by side may use."""
PARITY = 1e-2
"""Relative difference from the plain iteration's gradient from which a compiled one is not trusted."""
Runner = Direct | Graph
Refresh = Callable[[int, list[list[Tensor]]], None]
"""(iterations done, each start's variables) -> None; may change the problem's buffers in place."""


@dataclass(frozen=True)
class Found:
    """One start's best point, distance and objective there, last point, history and the iterations of it."""

    variables: list[Tensor]
    distance: float
    total: float
    last: list[Tensor]
    history: tuple[float, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """What each start led to, and what the search cost.

    Attributes:
        found: one for each start.
        engine: what ran, with the reason in brackets where it is not the one asked for.
        compile_seconds: spent on tracing, compiling and capturing; 0 where a kept program served.
        iterations: over all starts.
    """

    found: tuple[Found, ...]
    engine: str
    compile_seconds: float
    iterations: int

    @property
    def best(self) -> int:
        """Index of the start that reached the lowest objective."""
        return min(range(len(self.found)), key=lambda i: self.found[i].total)

    def reconstruction(
        self,
        task: Task,
        which: int,
        images: Tensor,
        start: Tensor,
        labels: Tensor,
        label_source: str,
        distance: float | None = None,
    ) -> Reconstruction:
        """What the attack hands back: `images` from start number `which`, and what the search cost.

        Args:
            task: what the attack was asked to do.
            which: index of the start.
            images: [B, C, H, W] in [0, 1].
            start: the first guess, likewise.
            labels: int64 [B].
            label_source: `known` or `inferred`.
            distance: the gradient distance at `images`; that of the best point found unless given.
        """
        found = self.found[which]
        return Reconstruction(
            images=images,
            labels=labels,
            label_source=label_source,
            gradient_distance=found.distance if distance is None else distance,
            start=start,
            iterations=self.iterations,
            seconds=task.seconds() - self.compile_seconds,
            compile_seconds=self.compile_seconds,
            engine=self.engine,
            history=found.history,
            history_steps=found.steps,
        )


def search(
    problem: Problem,
    starts: Sequence[Sequence[Tensor]],
    labels: Tensor,
    schedule: Schedule,
    *,
    engine: str = "auto",
    signed: bool = False,
    betas: tuple[float, float] = (0.9, 0.999),
    seed: int = 0,
    progress: Progress = lambda *_: None,
    refresh: Refresh | None = None,
    every: int = 0,
) -> Outcome:
    """Adam from each start; keeps each one's point of the lowest objective.

    Args:
        problem: what to minimise.
        starts: for each search its variables, those of `problem.variables`.
        labels: int64 [B].
        schedule: step sizes, Langevin noise and the regularisers' factors over the iterations.
        engine: one of `ENGINES`.
        signed: feed Adam the sign of the gradient.
        betas: Adam's decay rates.
        seed: of the Langevin noise.
        progress: told (done, all, lowest objective so far) over all starts; (0, all, NaN) before it compiles,
            (0, all, infinity) before the first iteration.
        refresh: called before the first iteration and after every `every` of them, with all starts' points.
        every: see `refresh`.

    Raises:
        FloatingPointError: where the objective was finite at no point of any start.
        InputError: where the victim has an operation without a second derivative.
        torch.OutOfMemoryError: where not even one search fits.
    """
    device, iterations = starts[0][0].device, len(schedule)
    iteration = Iteration(problem, signed, betas).to(device)
    rows = schedule.rows(len(problem.regularisers), betas, starts[0][0])
    noises = [_noise(start, schedule.langevin, seed + i) for i, start in enumerate(starts)]
    engine = auto(checked(engine, device.type), device.type, iterations * len(starts))
    spent = programs.seconds()
    states = [State.at(start).flat() for start in starts]
    noise = [torch.zeros_like(v) for v in starts[0]] if schedule.langevin else []
    announce = functools.partial(progress, 0, iterations * len(starts))
    runners, engine = _runners(engine, iteration, states, rows[0], labels, noise, lambda: announce(torch.nan))
    compile_seconds = programs.seconds() - spent
    announce(torch.inf)

    histories: list[list[float]] = [[] for _ in starts]
    stops = {*range(0, iterations, max(1, iterations // REPORTS)), iterations}
    refreshes = set(range(0, iterations, every)) if refresh is not None else set()
    stops = sorted(stops | refreshes)
    for begin, end in itertools.pairwise(stops):
        if begin in refreshes:
            refresh(begin, [State.unflat(flat).variables for flat in states])
            for runner in runners:
                runner.adopt(steps.tensors_of(iteration), labels)
        for first in range(0, len(states), len(runners)):
            group = range(first, min(first + len(runners), len(states)))
            for runner, i in zip(runners, group, strict=False):
                runner.load(states[i])
            for row in rows[
                begin:end
            ].unbind():  # the searches take turns, or the card would finish one first
                for runner, i in zip(runners, group, strict=False):
                    runner.run(row, noises[i])
            for runner, i in zip(runners, group, strict=False):
                states[i] = runner.read()
        for flat, history in zip(states, histories, strict=True):
            history.append(float(State.unflat(flat).total))
        progress(end * len(states), iterations * len(states), min(history[-1] for history in histories))
    if all(history[-1] == torch.inf for history in histories):
        raise FloatingPointError(
            "The objective was NaN or infinite at every point of the search; smaller weights or a smaller "
            "`learning_rate` may help."
        )
    if lost := sum(history[-1] == torch.inf for history in histories):
        warnings.warn(
            f"{lost} of {len(states)} starts had no finite objective and count for nothing.",
            RuntimeWarning,
            stacklevel=2,
        )
    found = []
    for flat, history in zip(states, histories, strict=True):
        state, ended = State.unflat(flat), (tuple(history), tuple(stops[1:]))
        found.append(Found(state.best, float(state.distance), float(state.total), state.variables, *ended))
    return Outcome(tuple(found), engine, compile_seconds, iterations * len(states))


def _noise(start: Sequence[Tensor], langevin: float, seed: int) -> Callable[[], list[Tensor]]:
    """What draws one iteration's noise for one start, on its device."""
    if not langevin:
        return list
    generator = torch.Generator(start[0].device).manual_seed(seed)
    return lambda: [torch.randn(v.shape, generator=generator, device=v.device, dtype=v.dtype) for v in start]


def _runners(
    engine: str,
    iteration: Iteration,
    states: Sequence[list[Tensor]],
    row: Tensor,
    labels: Tensor,
    noise: list[Tensor],
    announce: Callable[[], None],
) -> tuple[list[Runner], str]:
    """Runners for as many searches at a time as fit, and the name of the engine they run on."""
    inputs, reasons = Inputs(steps.tensors_of(iteration), states[0], row, labels, noise), []
    for name in dict.fromkeys((engine, "graph", "eager")):
        if name == "graph" and row.device.type != "cuda":
            continue
        try:
            runners = _built(name, iteration, inputs, len(states), announce)
        except InputError:  # no engine would do better
            raise
        except Exception as error:  # Inductor, Triton and C++ compilers fail in many ways
            if out_of_memory(error):  # the engine must not depend on who else uses the card
                raise
            reasons.append(f"{name} failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
            warnings.warn(f"The engine {reasons[-1]}; the search goes on without it.", stacklevel=3)
        else:
            return runners, f"{name} ({'; '.join(reasons)})" if reasons else name
    raise AssertionError("eager always works")


def _built(
    name: str, iteration: Iteration, inputs: Inputs, wanted: int, announce: Callable[[], None]
) -> list[Runner]:
    if name == "eager":
        return [Direct(lambda _, *rest: iteration(*rest), inputs.tensors, inputs.labels)]
    device = inputs.row.device.type
    on_card = device == "cuda"
    # the names belong to the key: they say which tensor plays which role in the program
    key = (programs.structure(iteration), tuple(inputs.tensors), programs.shapes(inputs.all()))

    def make() -> tuple[Step, Iteration]:
        announce()
        if name == "graph":
            return steps.plain(iteration), iteration
        # the layout of what a graph or `ChannelsLast` will feed, not of what the search has
        seen = inputs.copied() if on_card else inputs._replace(tensors=channels_last(inputs.tensors))
        step = steps.compiled(iteration, seen)
        _compare(step, iteration, seen)
        return step, iteration  # kept alive: the key holds addresses of the iteration's functions

    step, _ = programs.cached((name, key), make, device)
    if not on_card:
        return [ChannelsLast(step, inputs.tensors, inputs.labels)]
    graphs = programs.cached(
        (name, key, wanted), lambda: _side_by_side(lambda: Graph(step, inputs.copied()), wanted), device
    )
    for graph in graphs:
        graph.adopt(inputs.tensors, inputs.labels)
    return graphs


def _side_by_side(capture: Callable[[], Graph], wanted: int) -> list[Graph]:
    """As many graphs as are wanted and fit in memory, found by capturing one after the other."""
    graphs: list[Graph] = []
    while len(graphs) < wanted:
        before = torch.cuda.mem_get_info()[0]
        try:
            graphs.append(capture())
        except Exception as error:
            if graphs and out_of_memory(error):
                break
            raise
        free = torch.cuda.mem_get_info()[0]
        if before - free > MEMORY * free:  # one more like this one would not fit
            break
    return graphs


def _compare(step: Step, iteration: Iteration, inputs: Inputs) -> None:
    """Raise ArithmeticError where the compiled iteration's gradient differs from the plain one's.

    In full precision: TF32 alone moves an attack's gradient by several percent, whoever computes it.
    """
    with full_precision(inputs.row.device):
        gradients = [
            torch.cat([g.flatten() for g in State.unflat(new).gradient]).double()
            for new in (step(*inputs), iteration(*inputs[1:]))
        ]
    difference = float((gradients[0] - gradients[1]).norm() / gradients[1].norm().clamp_min(1e-30))
    if not difference < PARITY:
        raise ArithmeticError(f"its gradient is {difference:.2g} (relative) off the plain iteration's")
