"""The words of the command line: a sweep's, but for what a tuning sets itself, and some of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpbench.protocol import Parameter
from dpbench.sweep.axes import changed
from dpbench.sweep.option import ATTACKS, FIRST, Option
from dpbench.sweep.reading import as_flags, read_changed

SEEDS = (100, 999)
"""First and last seed of the batches that attacks may be tuned on; others are for results."""
NOT_HERE = ("suite", "resume", "status", "dry_run", "columns", "candidates", "trials", "tuned", "utility")
"""Options of a sweep that make no sense where each trial depends on the ones before."""
OWN_DEFAULTS = {"data": "cifar10", "batch_size": (1,), "batch_seed": tuple(range(100, 108))}
"""Where a tuning begins with something else than a sweep."""
_HINTS = {"out": "one is needed", "batch_seed": ""}
OWN = (
    Option(
        Parameter("trials", int, (), False, 20, "values tried in each setting, defaults first", at_least=2),
        20,
        False,
        FIRST,
    ),
    Option(
        Parameter("parameters", str, (), False, (), "which of the attack's parameters are chosen"),
        (),
        True,
        ATTACKS,
        hint="all with a declared range",
    ),
    Option(
        Parameter("metric", str, ("psnr", "lpips"), False, "psnr", "whose mean over the images is made best"),
        "psnr",
        False,
        ATTACKS,
    ),
    Option(
        Parameter("tuning_seed", int, (), False, 0, "seed of the choice of values", at_least=0),
        0,
        False,
        ATTACKS,
    ),
    Option(
        Parameter(
            "check_seed",
            int,
            (),
            False,
            (),
            "further batches, on which the best values have to do better than the defaults, too",
            at_least=0,
        ),
        (),
        True,
        ATTACKS,
        hint="as many as in `batch_seed`, the next ones",
    ),
)


def options() -> dict[str, Option]:
    """Every option by name."""
    return {each.name: each for each in OWN} | changed(NOT_HERE, OWN_DEFAULTS, _HINTS)


def parse(arguments: Sequence[str], command: str, description: str) -> dict[str, Any]:
    """The keywords of `dpbench.tune.tune`, and `quiet`; `--help` is printed and ends the program.

    Raises:
        InputError: for what cannot be understood, or no folder; options stand in backquotes.
    """
    return read_changed(options, arguments, command, description)


def as_typed(sentence: str) -> str:
    """A message with the options as they are typed."""
    return as_flags(sentence, options())
