"""Whether each backend of the attack engine runs on this machine, and computes what the plain one does.

    python -m benchmarks.parity

The first minute of a graphics card. Every backend searches a little on a small network. It is right if
nothing made it fall back on another (the engine compares each compiled gradient with the plain one, in full
precision) and its distance after two iterations is the plain one's to 1e-3. TF32 rounds more than a wrong
program may be off, so what it does to the plain distance is a row of its own. The exit status is 1 if a
backend is not right.
"""

from __future__ import annotations

import sys

import tyro

from benchmarks.cases import Case, Scene, scene
from benchmarks.engine import BACKENDS, Options, run
from benchmarks.measure import Row, show
from dpbench.protocol import full_precision
from dpbench.system.process import configure

SMALL = {"cuda": (Case("convnet", 32, 1), Case("resnet18", 32, 8)), "cpu": (Case("convnet", 32, 1),)}
SAME = 1e-3
"""Relative difference of two distances from which they are not the same."""


def checked(found: Scene, engine: str, plain: float) -> Row:
    """One backend against the plain distance, in full precision."""
    with full_precision(found.images.device):
        outcome = run(found, engine, 2)
    deviation = abs(outcome.found[0].distance / plain - 1)
    return {
        "case": str(found.case),
        "engine": engine,
        "ran": outcome.engine,
        "compile s": outcome.compile_seconds,
        "deviation": deviation,
        "right": "yes" if outcome.engine == engine and deviation < SAME else "NO",
    }


def rounded(found: Scene, plain: float) -> Row:
    """What TF32 alone does."""
    first = run(found, "eager", 2).found[0].distance
    return {
        "case": str(found.case),
        "engine": "eager, TF32",
        "ran": "eager",
        "compile s": 0.0,
        "deviation": abs(first / plain - 1),
        "right": "",
    }


def main(options: Options) -> int:
    """Check, show, and name what is wrong."""
    device, rows = options.kind(), []
    configure()
    for case in options.cases() if options.case else SMALL[device]:
        found = scene(case, device)
        with full_precision(found.images.device):
            plain = run(found, "eager", 2).found[0].distance
        for engine in BACKENDS[device]:
            rows.append(checked(found, engine, plain))
            show("Parity", rows, options.out / "parity.csv")
        if device == "cuda":
            rows.append(rounded(found, plain))
    show("Parity", rows, options.out / "parity.csv")
    wrong = [f"{row['engine']} on {row['case']}: {row['ran']}" for row in rows if row["right"] == "NO"]
    print("; ".join(wrong) if wrong else "Every backend runs and agrees with the plain one.")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
