"""The command line: python -m dpbench.audit --defense dp --eps 1."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

import defenses
from dpbench import privacy
from dpbench.audit.auditor import audit
from dpbench.audit.report import sentence, tables
from dpbench.protocol import InputError
from dpbench.system.command_line import read

COMMAND = "python -m dpbench.audit"
CANARIES = 4


@dataclass(frozen=True, kw_only=True)
class Options:
    """Find out what a defence's releases give away of one sample, and whether that is more than it claims.

    The exit status is 1 where the audited epsilon is above the claimed one, or where the noise is not that of
    the Gaussian release which is claimed: both are bugs. An audit finds leaks; it cannot prove there is none.
    """

    defense: str = "dp"
    """The defence: dp, clip, noise, prune, one of your own; chained by +, as in dp+prune."""
    eps: float | None = None
    """Privacy budget of the one audited release of dp; 1 unless --noise-multiplier is given."""
    noise_multiplier: float | None = None
    """Sigma of dp, in place of --eps."""
    claimed_eps: float | None = None
    """Check this claim in place of the defence's own guarantee."""
    delta: float = 1e-5
    """Delta of the budget."""
    max_grad_norm: float = 1.0
    """Clip norm C; the canaries have gradients of norm C and 100 C."""
    noise_std: float = 0.01
    """Standard deviation that noise adds to every entry of the mean gradient."""
    prune_ratio: float = 0.9
    """Share of gradient entries that prune sets to zero, in [0, 1)."""
    prune_scope: Literal["layer", "global"] = "layer"
    """Where prune seeks the smallest entries."""
    batch_size: int = 4
    """Samples in a batch, the canary among them."""
    releases: int = 20_000
    """Releases made for each of the four canaries, half of them with it."""
    confidence: float = 0.95
    """Chance of a correct defence to pass, at least."""
    seed: int = 0
    """Decides canaries and noise."""
    quiet: bool = False
    """Print errors only; the exit status tells the outcome."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0; 1 where the audit refutes what is claimed; 2 for unusable input."""
    try:
        options = read(Options, sys.argv[1:] if arguments is None else arguments, COMMAND)
        return _run(options)
    except InputError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; an audit keeps nothing.", file=sys.stderr)
        return 130


def _run(options: Options) -> int:
    warnings.filterwarnings("ignore", message="Secure RNG turned off")
    torch.set_num_threads(1)  # gradients of 48 entries
    defense = _defense(options)
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    hidden = options.quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("releases", total=CANARIES * options.releases)
        report = audit(
            defense,
            claimed_eps=options.claimed_eps,
            max_grad_norm=options.max_grad_norm,
            delta=options.delta,
            batch_size=options.batch_size,
            releases=options.releases,
            confidence=options.confidence,
            seed=options.seed,
            progress=lambda count: bar.update(task, advance=count),
        )
    if not options.quiet:
        Console().print(*tables(report, options.defense))
        print(sentence(report, options.defense))
    return int(report.failed)


class _Rate(ProgressColumn):
    """How many releases a second are made."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


def _defense(options: Options) -> defenses.Chain:
    """The defence, given those of the options that its stages take."""
    if options.eps is not None and options.noise_multiplier is not None:
        raise InputError("Give --eps or --noise-multiplier, not both: one follows from the other.")
    stages = options.defense.split("+")
    wanted: set[str] = set()
    for stage in stages:
        if stage in defenses.defenses_registry:  # `create` says it where not
            wanted |= inspect.signature(defenses.defenses_registry[stage]).parameters.keys()
    parameters: dict[str, Any] = {name: value for name, value in vars(options).items() if name in wanted}
    if "noise_multiplier" in wanted:
        guarantee = privacy.calibrate(
            eps=1.0 if options.eps is None and options.noise_multiplier is None else options.eps,
            noise_multiplier=options.noise_multiplier,
            eps_scope="release",
            delta=options.delta,
            train_size=options.batch_size,
            epochs=1,
            batch_size=options.batch_size,
            max_grad_norm=options.max_grad_norm,
        )
        parameters["noise_multiplier"] = guarantee.noise_multiplier
        if "guarantee" in wanted:
            parameters["guarantee"] = guarantee
    elif options.eps is not None or options.noise_multiplier is not None:
        raise InputError(f"{options.defense} takes no noise multiplier: leave out --eps (see --claimed-eps).")
    return defenses.create(options.defense, **parameters)


if __name__ == "__main__":
    sys.exit(main())
