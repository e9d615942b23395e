"""The plot of privacy against utility: what leaks under each defence, over the accuracy that it leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from dpbench.privacy.rounding import up_percent
from dpbench.report import escape
from dpbench.report.naming import Naming, number
from dpbench.report.plots import labels
from dpbench.report.plots.axes import short
from dpbench.report.plots.leakage_ticks import budget_of
from dpbench.report.plots.registry import plot
from dpbench.report.plots.style import COLOURS, COLUMN, GREY, INK, MARKERS, MOST, SMALL
from dpbench.report.plots.wrap import width as width_of
from dpbench.report.plots.wrap import wrap
from dpbench.report.rows import is_floor
from dpbench.report.summary import grouped
from dpbench.store import Store, conditions, schema
from dpbench.system.paths import open_file
from dpbench.system.words import per_cent

FILE = "utility.csv"
_OF_THE_BUDGET = {
    *("eps_release", "eps_replace", "sample_rate", "steps", "adjacency", "rero_release", "eps", "eps_scope"),
    *("delta", "train_size", "train_batch_size", "epochs", "accountant"),
}
"""What follows from noise and training, or says the same in another way: no part of a defence's identity."""
_RECIPE = ("train_size", "train_batch_size", "epochs", "learning_rate")
"""What decides an accuracy beside the defence."""
_DIGITS = 5
"""Digits to which numbers of the two tables agree."""
_MEASURES = {
    "over_floor": "worst attack: PSNR\nabove its floor, dB",
    "ranked": "worst attack: image\nranks first of 200",
    "bound": "bound on any attacker\n(prior 10 %)",
}
CEILING = 40
"""Exact copies are drawn so many dB above the floor."""
_HIGH = 2.6  # of a panel, inches


def joined(table: pd.DataFrame, store: Store | None) -> pd.DataFrame:
    """What leaks and what accuracy is left, for each defence, strength and model of `utility.csv`.

    Rows belong together where the defence and all its parameters that both tables have agree. Trainings of
    another length, batch or learning rate are points of their own, and their names say so; of learning rates
    only where one defence was trained at several.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: the run's folder.

    Returns:
        `name` (with its strength), `defense`, `utility_model`, `mean`, `least`, `most` (accuracy over
        seeds, 0 to 1), `over_floor` (dB by which the worst attack's median PSNR is above the floor, over all
        attacks and batch sizes; NaN in a frontier's folder, which has no floors), `ranked` (share of images
        that the worst attack ranked first in a frontier; else NaN) and `bound` (on reconstruction from the
        release at prior .1; 1 without a guarantee).
    """
    columns = ["name", "defense", "utility_model", "mean", "least", "most", "over_floor", "ranked", "bound"]
    trained = _trained(store)
    if trained.empty:
        return pd.DataFrame(columns=columns)
    table = schema.numbered(table)
    lines, group = grouped(table)
    lines = lines.assign(_ranked=table["ranked_first"].astype("Float64").groupby(group).mean().astype(float))
    judged = lines["psnr_over_floor_median"].notna() | lines["_ranked"].notna()
    lines = lines[~is_floor(lines) & (lines["images"] > 0) & judged]
    same = [n for n in conditions("defence") if n in trained and n not in _OF_THE_BUDGET]
    naming = Naming(table)
    lines = lines.assign(_key=_keys(lines, same))
    leaks = {
        key: {
            "name": _name(naming, part.iloc[0].to_dict()),
            "over_floor": float(part["psnr_over_floor_median"].max()),
            "ranked": float(part["_ranked"].max()),
            "bound": float(part["rero_release"].fillna(1.0).max()),
        }
        for key, part in lines.groupby("_key", sort=False)
    }
    found = []
    trained = trained.assign(_key=_keys(trained, same))
    recipe = [n for n in _RECIPE if n in trained]
    by = ["_key", "utility_model", *recipe]
    for (key, model, *values), part in trained.groupby(by, sort=False, dropna=False):
        if key in leaks:
            others = trained.loc[trained["utility_model"] == model]
            # which rate suits depends on the noise, and says nothing of how fair a comparison is
            alike = {
                name: others[others["_key"] == key] if name == "learning_rate" else others for name in recipe
            }
            told = [
                f"{name.replace('_', ' ')} {value:g}"
                for name, value in zip(recipe, values, strict=True)
                if alike[name][name].nunique() > 1 and not pd.isna(value)
            ]
            accuracy = part["accuracy"]
            spread = {"mean": accuracy.mean(), "least": accuracy.min(), "most": accuracy.max()}
            named = {"defense": part["defense"].iloc[0], "utility_model": str(model)}
            name = ", ".join([leaks[key]["name"], *told])
            found.append(leaks[key] | named | spread | {"name": name})
    return pd.DataFrame(found, columns=columns)


def _name(naming: Naming, row: dict[str, Any]) -> str:
    """As tables have it, but with an epsilon of three digits, as on the axes of other figures."""
    budget = budget_of(row)
    if budget is None:
        return naming.defence(row)
    plain = naming.defence(row, eps=False).removeprefix(row["defense"])
    return f"{row['defense']} ε={short(budget)}{plain}"


def front(accuracy: np.ndarray, leak: np.ndarray) -> list[int]:
    """Which points no other beats in both: as accurate and leaking less, or leaking as little and better.

    Returns:
        Their places, most accurate first.

    Example:
        >>> front(np.array([0.9, 0.5, 0.6]), np.array([9.0, 1.0, 5.0]))
        [0, 2, 1]
        >>> front(np.array([0.9, 0.5]), np.array([1.0, 1.0]))
        [0]
    """
    kept: list[int] = []
    for i in np.lexsort((leak, -accuracy)):
        if not kept or leak[i] < leak[kept[-1]]:
            kept.append(int(i))
    return kept


def _alt(table: pd.DataFrame, store: Store | None) -> str:
    said = ["Leakage against accuracy."]
    for row in joined(table, store).to_dict("records"):
        leaks = f"{number(row['over_floor'], '+.1f')} dB above the floor"
        if pd.isna(row["over_floor"]):
            leaks = f"ranks {per_cent(row['ranked'], 1)} % of images first of 200"
        said.append(
            f"{row['name']} ({row['utility_model']}): accuracy {100 * row['mean']:.1f} %, worst attack "
            f"{leaks}, bound {up_percent(row['bound'])}."
        )
    return " ".join(said)


@plot("utility.png", title="Privacy against utility", alt=_alt)
def utility(table: pd.DataFrame, store: Store | None = None, width: float = 6.5) -> Figure | None:
    """Draw the worst attack's PSNR above its floor, and the bound on any attacker, over the accuracy.

    In a frontier's folder the share of images ranked first stands in for PSNR. One point for each defence,
    strength and model; bars go from the least to the most accurate seed. The grey line joins the points of
    one model that no other beats in both. Defences without a guarantee have no bound, and stand at 100 %.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: the run's folder, for its `utility.csv`.
        width: of the figure, inches.

    Returns:
        The figure; None where there is no accuracy for any defence that was attacked.
    """
    found = joined(table, store)
    if found.empty:
        return None
    defences = sorted(set(found["defense"]) - {"none"}, key=list(found["defense"]).index)[:MOST]
    found = found[found["defense"].isin(["none", *defences])]
    beyond = bool((found["over_floor"] > CEILING).any())
    found["over_floor"] = found["over_floor"].clip(upper=CEILING)
    colours = dict(zip(defences, COLOURS, strict=False)) | {"none": INK}
    models = list(dict.fromkeys(found["utility_model"]))
    shapes = {model: MARKERS[i % len(MARKERS)] for i, model in enumerate(models)}
    leak = "over_floor" if found["over_floor"].notna().any() else "ranked"
    found = found[found[leak].notna()]
    shown = {measure: _MEASURES[measure] for measure in (leak, "bound")}
    across = len(shown) if width > COLUMN else 1
    down = len(shown) // across
    figure = Figure(figsize=(width, down * _HIGH + 0.4), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharex=True)
    for axis, (measure, said) in zip(panels.flat, shown.items(), strict=True):
        _panel(axis, found, measure, colours, shapes)
        axis.set_ylabel(f"{said} (top: {CEILING} or more)" if beyond and measure == "over_floor" else said)
    for axis in panels.flat[0 if leak == "ranked" else 1 :]:
        axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axis.set_ylim(-0.03, 1.06)
    for axis in panels[-1]:
        axis.set_xlabel("accuracy on the test set")
    _legend(figure, colours, shapes, width)
    labels.settle(figure)
    for axis, measure in zip(panels.flat, shown, strict=True):
        labels.beside(axis, _strengths(found, measure, colours))
    return figure


def _trained(store: Store | None) -> pd.DataFrame:
    """The trainings that ended well; none where the run has no file of them."""
    empty = pd.DataFrame(columns=["defense", "utility_model", "accuracy"])
    if store is None or not (store.path / FILE).is_file():
        return empty
    with open_file(store.path / FILE) as file:
        table = pd.read_csv(file, keep_default_na=False, na_values=[""])
    if not set(empty) <= set(table):
        return empty
    table["accuracy"] = pd.to_numeric(table["accuracy"], errors="coerce")
    return table[table["accuracy"].notna()].assign(defense=lambda rows: rows["defense"].fillna("none"))


def _keys(table: pd.DataFrame, names: list[str]) -> list[tuple[str, ...]]:
    return [tuple(_word(row[name]) for name in names) for row in table[names].to_dict("records")]


def _word(value: Any) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, bool | str):
        return str(value)
    return f"{float(value):.{_DIGITS}g}"


def _panel(
    axis: Axes, found: pd.DataFrame, measure: str, colours: dict[str, str], shapes: dict[str, str]
) -> None:
    for model, part in found.groupby("utility_model", sort=False):
        best = part.iloc[front(part["mean"].to_numpy(), part[measure].to_numpy())]
        axis.plot(
            best["mean"], best[measure], color=GREY, linewidth=0.9, linestyle="--", gid=f"front {model}"
        )
    for row in found.to_dict("records"):
        axis.errorbar(
            row["mean"],
            row[measure],
            xerr=np.clip([[row["mean"] - row["least"]], [row["most"] - row["mean"]]], 0, None),
            color=colours[row["defense"]],
            marker=shapes[row["utility_model"]],
            markersize=5.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            elinewidth=1,
            capsize=2,
            gid=f"{row['name']} {row['utility_model']}",
        )
    if measure == "over_floor":
        axis.axhline(0, color=GREY, linestyle=":", linewidth=0.9)
    axis.margins(0.12)
    axis.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %", decimals=0))


def _strengths(found: pd.DataFrame, measure: str, colours: dict[str, str]) -> list[labels.Name]:
    """Beside each defended point what of its name is not its defence's: epsilon, sigma or another setting."""
    return [
        labels.Name(
            row["name"].removeprefix(row["defense"]).strip(),
            row["mean"],
            row[measure],
            colours[row["defense"]],
            bar=(row["least"], row["most"]),
        )
        for row in found[found["defense"] != "none"].to_dict("records")
    ]


def _legend(figure: Figure, colours: dict[str, str], shapes: dict[str, str], width: float) -> None:
    points = {"marker": "o", "linestyle": ""}
    handles = [Line2D([], [], color=colour, **points) for colour in colours.values()]
    words = [name if name != "none" else "no defence" for name in colours]
    if len(shapes) > 1:
        handles += [Line2D([], [], color=GREY, marker=shape, linestyle="") for shape in shapes.values()]
        words += list(shapes)
    handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=0.9))
    words.append("Pareto front")
    words = [escape.matplotlib(wrap(word, width - 0.8, SMALL)) for word in words]
    columns = max(1, int((width - 0.2) / (max(width_of(word, SMALL) for word in words) + 0.5)))
    figure.set_figheight(figure.get_figheight() + 0.15 * -(-len(words) // columns))
    figure.legend(handles, words, loc="outside lower center", ncols=columns, frameon=False, handlelength=1.5)
