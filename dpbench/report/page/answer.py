"""The card at the top: budget, what attackers got, where it ends, and what would change the verdict."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from dpbench.report import budgets as in_words
from dpbench.report import informed
from dpbench.report.flags import flags
from dpbench.report.naming import EMPTY, Naming
from dpbench.report.page.budget import Budget, budgets
from dpbench.report.page.changes import changes
from dpbench.report.page.figures import at_most, figure, share
from dpbench.report.page.frontiers import meaning, sentences
from dpbench.report.page.templating import render
from dpbench.report.page.trainings import accuracies, trainings, without_defence
from dpbench.report.page.verdicts import PICKED, picked, verdicts
from dpbench.report.rows import ended_well, is_floor
from dpbench.report.sentence import sentence
from dpbench.report.summary import summary
from dpbench.report.units import ONE, protected, units, who_adds_noise
from dpbench.report.verdict import WORKS_DB
from dpbench.store import Store

_ADJACENCY = {"add-remove": "{} added or removed", "replace": "{} replaced by another"}
FIRST = 3
"""Settings that are shown at once; more are a click away."""


def answer(table: pd.DataFrame, store: Store) -> Markup | None:
    """The card; None where no attack ended well."""
    attacked = table[~is_floor(table)]
    if not ended_well(attacked).any():
        return None
    lines = summary(table)
    lines = lines[~is_floor(lines)]
    naming = Naming(table)
    found, more = budgets(lines, naming)
    ends = sentences(store)
    # a frontier ends its batches by what they show, and tests for a number fixed beforehand do not hold then
    fixed = not ends
    bound = informed.sentence(lines, naming).splitlines() if fixed else []
    return render(
        "answer",
        flags=flags(table, store),
        without=len(store.expected().keys() - set(table.loc[ended_well(table), "key"])),
        unit=protected(attacked),
        adjacency=[
            _ADJACENCY.get(word, f"{word} adjacency").format(ONE[unit])
            for word in attacked["adjacency"].dropna().unique()
            for unit in units(attacked)
        ],
        noise=who_adds_noise(attacked),
        words=in_words.budgets(lines),
        defences=[each.defence for each in found],
        rows=_rows(found, store) if found else [],
        single=_single(found),
        sampled=any(each.row["inclusion"] < 1 for each in found),
        trained=any(each.bound is not None for each in found),
        more=more,
        fixed=fixed,
        blocks=verdicts(table) if fixed else [],
        works_db=f"{WORKS_DB:g}",
        first=FIRST,
        picked=picked(lines, naming) if fixed else [],
        titles=PICKED,
        # the bound stands below them, where nothing has to be opened to see it
        said=[line for line in sentence(table).splitlines() if line not in bound] if fixed else [],
        bound=bound,
        ends=ends,
        meaning=meaning(store),
        changes=changes(table, store),
    )


def _single(found: list[Budget]) -> bool:
    """Whether one release was attacked under every budget."""
    return all(pd.isna(each.row["releases"]) or each.row["releases"] == 1 for each in found)


def _below_one(inclusion: float) -> Markup | str:
    """The chance of the image to be in a release; empty where it is in each."""
    return at_most(inclusion) if inclusion < 1 else EMPTY


def _rows(found: list[Budget], store: Store) -> list[tuple[str, list[Markup | str]]]:
    """One line for each quantity that has values, one column for each budget."""
    trained = trainings(store)
    reached = [accuracies(each.row, trained) for each in found]
    which = "one release" if _single(found) else "attacked releases"
    # a budget of releases has no training: no sampling, and no steps beside these releases
    told = [(each, not pd.isna(each.row["eps"])) for each in found]
    rows = [
        ("ε of the training", [at_most(each.row["eps"]) for each in found]),
        (f"ε of {which}", [at_most(each.row["eps_release"]) for each in found]),
        ("chance of inclusion", [_below_one(each.row["inclusion"]) for each in found]),
        ("releases", [figure(None if _single(found) else each.row["releases"], "d") for each in found]),
        ("noise multiplier σ", [at_most(each.row["noise_multiplier"]) for each in found]),
        ("sample rate q", [figure(e.row["sample_rate"] if t else None) for e, t in told]),
        ("steps T", [figure(e.row["steps"] if t else None, ",d") for e, t in told]),
        ("δ", [at_most(each.row["delta"], 6) for each in found]),
        ("ε comes from", [each.accounting or EMPTY for each in found]),
        (f"bound, {which}", [at_most(each.row["rero_release"]) for each in found]),
        ("bound, training", [at_most(each.bound) for each in found]),
        ("bound, batches known", [at_most(each.server) for each in found]),
        ("membership advantage", [at_most(each.advantage) for each in found]),
    ]
    for model in sorted({name for each in reached for name in each}):
        means = [each[model].mean() if model in each else None for each in reached]
        bare = without_defence(trained, model)
        title = Markup("accuracy, {}").format(model)
        if bare is not None:
            title += Markup(" (undefended {})").format(share(bare, 1))
        rows.append((title, [share(mean, 1) for mean in means]))
    return [(title, cells) for title, cells in rows if set(cells) != {EMPTY}]
