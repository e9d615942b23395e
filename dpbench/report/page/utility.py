"""What each defence costs: the accuracies of `utility.csv`, summarised over seeds."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from dpbench.report.page.figures import figure, share
from dpbench.report.page.templating import render
from dpbench.report.page.trainings import done, trainings
from dpbench.store import Store
from dpbench.store.columns import columns, conditions

_SAME = ("delta", "sample_rate", "steps", "train_size", "train_batch_size", "epochs")
"""Columns that say which training it is; with the defence's parameters they tell the rows apart."""


def utility(table: pd.DataFrame, store: Store) -> Markup | None:
    """One line for each defence and model; None where the folder has no `utility.csv`."""
    trained = trainings(store)
    if trained is None:
        return None
    named = [n for n in dict.fromkeys((*conditions("defence"), *_SAME)) if n in trained and n != "defense"]
    varying = [n for n in named if trained[n].nunique(dropna=False) > 1]
    well, rows = done(trained), []
    keys = ["defense", *varying, "utility_model"]
    for values, part in well.groupby(keys, dropna=False, sort=False):
        of = dict(zip(keys, values, strict=True))
        chance = part["chance"].iloc[0] if "chance" in part else None
        rows.append(
            [
                of["defense"],
                of["utility_model"],
                *(_value(of[name]) for name in varying),
                *(share(part["accuracy"].agg(each), ".1f") for each in ("mean", "min", "max")),
                figure(len(part), "d"),
                share(chance, ".3g"),
            ]
        )
    known = columns()
    symbols = [(known[n].symbol if n in known else "") or n.replace("_", " ") for n in varying]
    lost = trained[trained["status"] != "ok"]
    return render(
        "utility",
        header=["Defence", "Model", *symbols, "Accuracy", "least", "most", "Seeds", "Chance"],
        rows=rows,
        lost=len(lost),
        reason=str(lost["error"].dropna().iloc[0]) if "error" in lost and lost["error"].notna().any() else "",
    )


def _value(value: object) -> Markup | str:
    return value if isinstance(value, str) else figure(value)
