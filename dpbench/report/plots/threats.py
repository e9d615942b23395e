"""The plot of what each attacker gets against the budget of the release, and what no attacker can pass."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from dpbench import privacy
from dpbench.privacy.rounding import up, upwards
from dpbench.report import escape
from dpbench.report.plots.axes import at_values, short
from dpbench.report.plots.registry import plot
from dpbench.report.plots.style import COLOURS, COLUMN, DASHES, FULL, SMALL, TEXT
from dpbench.report.plots.wrap import width as width_of
from dpbench.report.plots.wrap import wrap
from dpbench.report.rows import has_exact_chance, is_floor, is_of_attack
from dpbench.report.successes import asked, choices, successes
from dpbench.report.summary import numbered
from dpbench.store import Store, schema
from dpbench.system.words import per_cent

_ATTACKERS = {
    "honest": "honest server, image identified",
    "malicious-linear": "malicious server, image identified",
    "fishing": "fishing server, image identified",
    "loki": "server that tells clients apart, image identified",
    "informed": "informed attacker, sample picked",
}
MOST_ATTACKERS, MOST_PANELS = 3, 6
"""Curves in a panel, beside bound and chance; and panels, half as many in a column. The title says what was
left out."""
_SHAPES = "so^Dv*"
_BOUND, _CHANCE = "no attacker passes", "chance of a blind choice"
_HIGH, _SCALE, _HANDLE = 3.4, 0.6, 0.7  # a panel; beside it, for its scale; beside a legend's text; inches
_CURVE = ["threat_model", "releases", "inclusion", "choices", "delta"]
"""What a curve is of; `choices` are the candidates or the images in the gallery."""


def _alt(table: pd.DataFrame, store: Store | None) -> str:
    said = ["Success over the epsilon of the release, by threat model."]
    for row in _by_size(_attacks(schema.conform(table))).to_dict("records"):
        known = _attacker(row["threat_model"], row["measure"])
        share = per_cent(row["right"] / row["trials"])
        where = f"batch of {row['batch_size']}, epsilon {up(row['eps_release'])}"
        said.append(f"{known}, {where}: {share} % of {row['trials']}.")
    return " ".join(said)


@plot("threats.png", title="What each threat model gets", alt=_alt)
def threats(table: pd.DataFrame, store: Store | None = None, width: float = FULL) -> Figure | None:
    """Draw success over eps_release: a curve per threat model, its strongest attack.

    Honest and malicious servers succeed where the reconstruction identifies its original in the gallery, or
    in a frontier where it ranks it first, the informed attacker where it picks the right candidate. Every
    point stands at its own epsilon; bars are 95 % intervals: exact, or of a frontier those that hold whenever
    its batches ended. The black line is the ReRo bound at the prior of a blind choice, the dotted one that
    choice. A panel for each batch size, number of releases, inclusion, number of choices and delta.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: not needed.
        width: of the figure, inches.

    Returns:
        The figure; None where there are fewer than two budgets or nobody but the honest server.
    """
    given = schema.conform(table)
    table = _attacks(given)
    if set(table["threat_model"].dropna()) <= {"honest"} or table["eps_release"].nunique() < 2:
        return None
    found = _by_size(table)
    attackers = _strongest(found)
    names = [name for name in sorted(found["threat_model"].unique()) if name not in attackers]
    found = found[found["threat_model"].isin(attackers)]
    every = list(found.groupby(["batch_size", *_CURVE[1:]], dropna=False))
    shown = every[: MOST_PANELS if width > COLUMN else MOST_PANELS // 2]
    across = 2 if width > COLUMN and len(shown) > 1 else 1
    down = math.ceil(len(shown) / across)
    figure = Figure(figsize=(width, 3.9 * down), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for axis, (setting, rows) in zip(panels, shown, strict=False):
        _panel(axis, rows, attackers, width / across - _SCALE)
        axis.set_title(wrap(_heading(setting, [key for key, _ in every]), width / across - _SCALE, TEXT))
    for axis in panels[len(shown) :]:
        axis.set_axis_off()
    more = [f"{len(shown)} of {len(every)} settings"] if len(every) > len(shown) else []
    more += [f"without {', '.join(names)}"] if names else []
    guessed = sorted({*_private(given)["threat_model"].dropna()} - {*table["threat_model"]})
    more += [f"without {', '.join(guessed)}, whose chance is not exact"] if guessed else []
    title = wrap("; ".join(more), width - 0.2, TEXT)
    figure.suptitle(escape.matplotlib(title)) if more else None
    high = _HIGH if width > COLUMN and across == 1 else 0.8 * _HIGH
    figure.set_figheight(high * down + 0.3 + _legend(figure, panels, width))
    return figure


def _strongest(found: pd.DataFrame) -> list[str]:
    """The threat models that are shown: those that succeed most, ours before others of as much success."""
    share = (found["right"] / found["trials"]).groupby(found["threat_model"]).max()
    order = sorted(share.index, key=lambda name: (-share[name], name not in _ATTACKERS))[:MOST_ATTACKERS]
    return [name for name in dict.fromkeys([*_ATTACKERS, *order]) if name in order]


def _heading(setting: tuple, every: list[tuple]) -> str:
    """The batch size, and what else the panels differ in."""
    size, releases, inclusion, among, delta = setting
    text = f"batch of {size}"
    if len({(each[1], each[2]) for each in every}) > 1:
        text += f", {releases} release{'s' if releases > 1 else ''}"
    text += f", each with chance {inclusion:g}" if inclusion < 1 else ""
    several = len({each[3] for each in every if not pd.isna(each[3])}) > 1
    text += f", one of {among:g}" if several and not pd.isna(among) else ""
    return f"{text}, δ={up(delta, 6)}" if len({each[4] for each in every}) > 1 else text


def _legend(figure: Figure, panels: list[Axes], width: float) -> float:
    """One for all panels; its height in inches."""
    handles = {
        label: handle
        for axis in panels
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    order = sorted(handles, key=lambda label: label in (_BOUND, _CHANCE))
    words = [wrap(label, width - _HANDLE - 0.2, SMALL) for label in order]
    ncols = 2 if 2 * (max(width_of(word, SMALL) for word in words) + _HANDLE) < width else 1
    lines = sum(word.count("\n") + 1 for word in words) / ncols
    texts = [escape.matplotlib(word) for word in words]
    handles = [handles[label] for label in order]
    figure.legend(handles, texts, loc="outside lower center", ncols=ncols, frameon=False)
    return 0.15 * math.ceil(lines)


def _private(table: pd.DataFrame) -> pd.DataFrame:
    return table[is_of_attack(table) & ~is_floor(table) & table["eps_release"].notna()]


def _attacks(table: pd.DataFrame) -> pd.DataFrame:
    private = _private(table)
    return asked(private[has_exact_chance(private)])


def _by_size(table: pd.DataFrame) -> pd.DataFrame:
    """The curves of each batch size, which have panels of their own."""
    sizes = sorted(table["batch_size"].unique())
    return pd.concat([curves(table[table["batch_size"] == size]).assign(batch_size=size) for size in sizes])


def curves(table: pd.DataFrame) -> pd.DataFrame:
    """Successes and trials of the strongest attack, by threat model, releases, inclusion, choices and budget.

    Args:
        table: rows of attacks that ended well, with an eps_release.

    Returns:
        `threat_model`, `releases`, `inclusion`, `choices`, `delta`, `eps_release`, `attack`, `right`,
        `trials`, the ends `low` and `high` of the share's interval, what was counted (`measure`), and the
        informed attacker's `bound`.
    """
    curve = [*_CURVE, "eps_release"]
    by = [*curve, "attack", "_condition"]  # what differs in any condition is never put together
    condition = numbered(table).to_numpy()
    table = table.assign(
        inclusion=table["inclusion"].fillna(1.0), choices=choices(table), _condition=condition
    )
    found = []
    for key, rows in table.groupby(by, dropna=False):
        counted = successes(rows)
        low, high = counted.interval()
        ends = {"low": low, "high": high, "measure": counted.measure, "bound": rows["success_bound"].max()}
        named = dict(zip(by, key, strict=True)) | {"right": counted.right, "trials": counted.asked}
        found.append(named | ends)
    counted = pd.DataFrame(found)
    counted = counted[counted["trials"] > 0]
    share = counted["right"] / counted["trials"]
    best = share.groupby([counted[name] for name in curve], dropna=False).idxmax()
    return counted.loc[best].sort_values(curve, ignore_index=True)


def _attacker(threat_model: str, measure: str) -> str:
    """A threat model, and what its attacker succeeds in."""
    said = _ATTACKERS.get(threat_model, f"{threat_model}, right choice")
    return said.replace("identified", "ranked first") if measure == "ranked" else said


def _panel(axis: Axes, rows: pd.DataFrame, attackers: list[str], inches: float) -> None:
    for threat_model, own in rows.groupby("threat_model"):
        known = _attacker(threat_model, own["measure"].iloc[0])
        _curve(axis, own, attackers.index(threat_model), known)
    among, inclusion, delta = (rows[name].iloc[0] for name in ("choices", "inclusion", "delta"))
    budgets = rows["eps_release"]
    black = {"color": "black", "linewidth": 1, "label": _BOUND}
    if inclusion < 1:  # there is no formula: the bound of each point
        told = rows[rows["bound"].notna()].drop_duplicates("eps_release")
        axis.plot(told["eps_release"], told["bound"], **black)
    elif not pd.isna(among):
        places = np.geomspace(budgets.min(), budgets.max(), 80)
        noises = [privacy.noise_multiplier(float(eps), delta) for eps in places]
        axis.plot(places, [privacy.reconstruction_bound(s, kappa=1 / among) for s in noises], **black)
    if not pd.isna(among):
        axis.axhline(1 / among, color="0.5", linestyle=":", linewidth=0.8, label=_CHANCE)
    _dress(axis, budgets, delta, inches)


def _curve(axis: Axes, rows: pd.DataFrame, i: int, label: str) -> None:
    share = (rows["right"] / rows["trials"]).to_numpy()
    low, high = rows["low"].to_numpy(), rows["high"].to_numpy()
    axis.errorbar(
        rows["eps_release"],
        share,
        yerr=np.clip((share - low, high - share), 0, None),
        color=COLOURS[i],
        marker=_SHAPES[i],
        linestyle=DASHES[i],
        alpha=0.8,  # curves stand at the same places
        elinewidth=0.7,
        capsize=2,
        label=label,
    )


def _dress(axis: Axes, budgets: pd.Series, delta: float, inches: float) -> None:
    axis.set_xscale("log")
    if budgets.max() < 100 * budgets.min():  # too few powers of ten to go by
        ticks = sorted({upwards(eps) for eps in budgets})
        at_values(axis, ticks, [short(eps) for eps in ticks], inches)
    axis.set_ylim(-0.03, 1.03)
    axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axis.set_xlabel(f"ε of the attacked release(s), δ={up(delta, 6)}")
    axis.set_ylabel("successes")
