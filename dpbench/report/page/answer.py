"""The card at the top: budget, what attackers got, where it ends, and what would change the verdict."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from dpbench.report import budgets as in_words
from dpbench.report.exceedances import exceedances
from dpbench.report.naming import Naming
from dpbench.report.page.budget import Budget, budgets
from dpbench.report.page.changes import changes
from dpbench.report.page.figures import at_most, figure, share
from dpbench.report.page.frontiers import sentences
from dpbench.report.page.templating import render
from dpbench.report.page.trainings import accuracies, trainings
from dpbench.report.rows import ended_well, is_floor
from dpbench.report.sentence import sentence
from dpbench.report.summary import summary
from dpbench.store import Store


@dataclass(frozen=True)
class _Line:
    """A budget as the card's table has it: finished text."""

    defence: str
    cells: tuple[Markup, ...]


HEADER = (
    "ε training",
    "ε release",
    "σ",
    "q",
    "T",
    "δ",
    "bound, one release",
    "bound, training",
    "membership advantage",
)


def answer(table: pd.DataFrame, store: Store) -> Markup | None:
    """The card; None where no attack ended well."""
    attacked = table[~is_floor(table)]
    if not ended_well(attacked).any():
        return None
    lines = summary(table)
    lines = lines[~is_floor(lines)]
    found, more = budgets(lines, Naming(table))
    trained = trainings(store)
    reached = {name for each in found for name in accuracies(each.row, trained)}
    models = sorted(reached)
    return render(
        "answer",
        words=in_words.budgets(lines),
        adjacency=[str(word) for word in attacked["adjacency"].dropna().unique()],
        header=(*HEADER, *(f"accuracy, {model}" for model in models)),
        lines=[_line(each, trained, models) for each in found],
        more=more,
        said=sentence(table).split("\n"),
        above=exceedances(table),
        ends=sentences(store),
        changes=changes(table, store),
    )


def _line(each: Budget, trained: pd.DataFrame | None, models: list[str]) -> _Line:
    row, reached = each.row, accuracies(each.row, trained)
    return _Line(
        each.defence,
        (
            figure(row["eps"]),
            at_most(row["eps_release"]),
            figure(row["noise_multiplier"]),
            figure(row["sample_rate"]),
            figure(row["steps"], ",d"),
            figure(row["delta"], "g"),
            at_most(row["rero_release"]),
            at_most(each.bound),
            at_most(each.advantage),
            *(share(reached[m].mean() if m in reached else None, ".1f") for m in models),
        ),
    )
