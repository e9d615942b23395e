"""What each defence costs: the accuracies of `utility.csv`, summarised over seeds."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from dpbench.report.naming import settings_of
from dpbench.report.page.figures import figure, share
from dpbench.report.page.templating import render
from dpbench.report.page.trainings import done, trainings
from dpbench.store import Store
from dpbench.store.columns import columns

_SAME = ("delta", "sample_rate", "steps", "train_size", "train_batch_size", "epochs", "learning_rate")
"""Columns that say which training it is; with the defence's parameters they tell the rows apart."""
_ALWAYS = ("eps", "noise_multiplier")
"""Of these, what is shown even where it is the same in all rows."""


def utility(table: pd.DataFrame, store: Store) -> Markup | None:
    """One line for each defence and model; None where the folder has no `utility.csv`."""
    trained = trainings(store)
    if trained is None:
        return None
    named = [
        n
        for n in dict.fromkeys((*settings_of("defence", leave_out=()), *_SAME))
        if n in trained and n != "defense"
    ]
    shown = [n for n in named if trained[n].nunique() > (0 if n in _ALWAYS else 1)]
    rows = []
    for _, part in done(trained).groupby(["defense", *named, "utility_model"], dropna=False, sort=False):
        first = part.iloc[0]
        rows.append(
            [
                first["defense"],
                first["utility_model"],
                *(_value(first[name]) for name in shown),
                *(share(part["accuracy"].agg(each), 1) for each in ("mean", "min", "max")),
                figure(len(part), "d"),
                share(first["chance"] if "chance" in part else None, 1),
            ]
        )
    known = columns()
    symbols = [(known[n].symbol if n in known else "") or n.replace("_", " ") for n in shown]
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
