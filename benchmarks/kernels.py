"""Kernels and bytes of one iteration on an H100 that is not there, from the code that Inductor generates.

    python -m benchmarks.kernels
    python -m benchmarks.kernels --case resnet20:32:4 --attack inverting-gradients

Needs Triton and no card: nothing is compiled or run, so there are no times in the table. `operations` are
those of the plain iteration. `launches` are those of Triton kernels, `kernels` the different ones among them.
`calls` are convolutions, matrix products and whatever else libraries do. GB are bytes read and written, each
buffer once for every kernel that uses it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import tyro
from torch.nn import functional as F

import attacks
from attacks.engine import search, steps
from attacks.engine.iteration import Iteration
from attacks.engine.runners import Inputs
from attacks.engine.watch import named_batch_norms
from benchmarks.cases import Case
from benchmarks.codegen import generate
from benchmarks.engine import parsed
from benchmarks.measure import Row, show
from dpbench.data.channels import CIFAR10_MEAN, CIFAR10_STD
from dpbench.protocol import ImageStatistics, Knowledge, Release
from dpbench.victim.networks import build

CASES = (Case("resnet20", 32, 4), Case("resnet18", 32, 1), Case("resnet50", 224, 8, 1000))
SEARCHES: dict[str, Mapping[str, Any]] = {
    "inverting-gradients paper": {"preset": "paper"},
    "inverting-gradients tuned": {"preset": "tuned"},
    "gradinversion gradient": {"terms": "gradient"},
    "gradinversion fidelity": {"terms": "fidelity"},
    "gradinversion lazy": {"terms": "lazy"},
}
"""Attacks and what they are asked; `registered` runs the iteration of `lazy`."""


@dataclass(frozen=True)
class Options:
    """Which iterations.

    Attributes:
        case: MODEL:SIZE:BATCH, in place of the standard cases.
        attack: parts of the names of searches; all unless given.
        out: the CSV's folder.
    """

    case: tuple[str, ...] = ()
    attack: tuple[str, ...] = ()
    out: Path = Path("results/benchmarks")


class _Caught(BaseException):
    """Carries a search's iteration and its inputs out of an attack."""


def first_iteration(case: Case, name: str) -> tuple[Iteration, Inputs]:
    """What a search is about to run, laid out as on a card; weights are drawn and the release is zero."""
    model = build(case.model, case.classes, size=case.size)
    release = Release(
        *zip(*((n, torch.zeros_like(p)) for n, p in model.named_parameters()), strict=True), case.batch
    )
    shape = (3, case.size, case.size)
    knowledge = Knowledge(
        model,
        F.cross_entropy,
        shape,
        case.classes,
        CIFAR10_MEAN,
        CIFAR10_STD,
        torch.arange(case.batch),
        bn_stats="exact",
        statistics=tuple(
            (torch.zeros_like(layer.running_mean), torch.ones_like(layer.running_var))
            for layer in named_batch_norms(model).values()
        ),
        image_statistics=ImageStatistics(torch.zeros(shape), torch.eye(3), torch.ones(shape)),
    )

    def catch(_: str, iteration: Iteration, states: Any, row: Any, labels: Any, noise: Any, __: Any) -> None:
        raise _Caught(iteration, Inputs(steps.tensors_of(iteration), states[0], row, labels, noise).copied())

    attack = attacks.create(name.split()[0], engine="eager", **SEARCHES[name])
    with mock.patch.dict(search.__globals__, _runners=catch), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            attack(release, knowledge, seed=0)
        except _Caught as caught:
            return caught.args
    raise AssertionError(f"{name} searches nothing.")


def row(case: Case, name: str) -> Row:
    """One iteration's."""
    made = generate(*first_iteration(case, name))
    return {
        "case": str(case),
        "search": name,
        "operations": made.operations,
        "launches": made.launches,
        "kernels": made.kernels,
        "calls": made.calls,
        "GB": made.moved / 1e9,
        "library GB": made.library_moved / 1e9,
        "GFLOP": made.flop / 1e9,
        "torch": version("torch"),
        "triton": version("triton"),
    }


def main(options: Options) -> None:
    """Generate, count and show."""
    rows: list[Row] = []
    names = [n for n in SEARCHES if not options.attack or any(part in n for part in options.attack)]
    for case in [parsed(word) for word in options.case] or CASES:
        for name in names:
            rows.append(row(case, name))
            show("Generated code", rows, options.out / "kernels.csv")


if __name__ == "__main__":
    main(tyro.cli(Options))
