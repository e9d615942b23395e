"""The command line: python -m dpbench.audit --defense dp --eps 1."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

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

from dpbench.audit import files
from dpbench.audit.auditor import audit
from dpbench.audit.options import check_place, defence_of, options, parse
from dpbench.audit.report import sentence, tables
from dpbench.protocol import InputError
from dpbench.sweep.reading import as_flags
from dpbench.system import program


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0; 1 where the audit refutes what is claimed; 2 for unusable input."""
    try:
        return _run(parse(sys.argv[1:] if arguments is None else arguments))
    except InputError as error:
        return program.refuse(error, lambda sentence: as_flags(sentence, options()))
    except KeyboardInterrupt:
        print("Interrupted; an audit keeps nothing.", file=sys.stderr)
        return 130


def _run(given: Mapping[str, Any]) -> int:
    warnings.filterwarnings("ignore", message="Secure RNG turned off")
    torch.set_num_threads(1)  # gradients of 48 entries
    defense = defence_of(given)
    check_place(given["out"])
    console = Console(stderr=True, emoji=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    hidden = given["quiet"] or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("releases", total=None)
        report = audit(
            defense,
            claimed_eps=given["claimed_eps"],
            max_grad_norm=given["max_grad_norm"] or 1.0,
            delta=given["delta"] or 1e-5,
            batch_size=given["batch_size"],
            releases=given["releases"],
            confidence=given["confidence"],
            seed=given["seed"],
            seconds=given["seconds"],
            planned=lambda count: bar.update(task, total=count),
            progress=lambda count: bar.update(task, advance=count),
        )
    if given["out"] is not None:
        files.write(given["out"], given["defense"], report)
    if not given["quiet"]:
        Console(emoji=False).print(*tables(report, given["defense"]))
        print(sentence(report, given["defense"]))
    return int(report.failed)


class _Rate(ProgressColumn):
    """How many releases a second are made."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


if __name__ == "__main__":
    sys.exit(main())
