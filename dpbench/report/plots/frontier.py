"""The pictures of a measured frontier, from its folder: leak rates over the noise, and the most exposed."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from dpbench.privacy.rounding import up
from dpbench.report import escape
from dpbench.report.plots.axes import at_values, short
from dpbench.report.plots.colours import OKABE_ITO
from dpbench.report.plots.registry import plot
from dpbench.report.plots.style import COLUMN, FULL, GREY, SMALL, TEXT
from dpbench.report.plots.wrap import width as width_of
from dpbench.report.plots.wrap import wrap
from dpbench.store import Store, schema
from dpbench.system.paths import open_file

EXPOSED = 5
"""Images a row in the picture of the most exposed."""
CHANCE, MARGIN = 1 / 200, 0.05
_MARKERS = "osD^v"
_HIGH, _BESIDE, _SCALE = 3.1, 1.1, 0.52  # a panel; what is beside it, and below; inches
_SIDE = 0.9  # of one image, at most


def stored(store: Store | None) -> list[dict[str, Any]]:
    """The frontiers in a run's folder, as `dpbench.frontier.result.Frontier` describes them; [] if none."""
    if store is None or not (store.path / "frontier.json").is_file():
        return []
    with open_file(store.path / "frontier.json") as file:
        return json.load(file)["frontiers"]


def _alt(table: pd.DataFrame, store: Store | None) -> str:
    said = ["How often the attacked image ranked first of 200, over the noise multiplier."]
    for found in stored(store):
        said.append(found["sentence"])
        for level in found["levels"]:
            rates = (f"{rate['successes']} of {rate['trials']}" for rate in level["rates"])
            said.append(f"Sigma {up(level['noise']['sigma'])}: {', '.join(rates)}.")
    return " ".join(said)


@plot("frontier.png", title="The measured frontier", alt=_alt)
def frontier(table: pd.DataFrame, store: Store | None = None, width: float = FULL) -> Figure | None:
    """Draw how often the attacked image ranked first over sigma, a panel for each threat model.

    Bars are intervals that hold at whatever moment the batches ended. Epsilon stands on the second axis. The
    shaded parts are those with a leak shown and with none seen; dashed lines are the certified frontiers.

    Args:
        table: not needed.
        store: the run's folder.
        width: of the figure, inches.

    Returns:
        The figure; None where the folder has no frontier.
    """
    found = stored(store)
    if not found:
        return None
    titles = [wrap(each["sentence"], width - 0.5, TEXT) for each in found]
    lines = sum(title.count("\n") + 1 for title in titles)
    figure = Figure(figsize=(width, _HIGH * len(found) + 0.14 * lines), layout="constrained")
    panels = figure.subplots(len(found), 1, squeeze=False)[:, 0]
    for axis, each, title in zip(panels, found, titles, strict=True):
        _panel(axis, each, width)
        _legend(axis, each["attacks"], width)
        axis.set_title(escape.matplotlib(title))
    return figure


def _panel(axis: Axes, found: dict[str, Any], width: float) -> None:
    levels = found["levels"]
    sigmas = [level["noise"]["sigma"] for level in levels[1:]]
    certified = {kappa: noise["sigma"] for kappa, noise in found["certified"].items()}
    gap = min((after / before for before, after in pairwise(sigmas)), default=3.0)
    none = sigmas[0] / max(gap, 2.0)  # where the undefended attack is drawn
    right = max([*sigmas, *certified.values()]) * 1.6
    axis.set_xscale("log")
    axis.set_xlim(none / 1.6, right)
    axis.set_yscale("function", functions=(lambda y: np.sqrt(np.clip(y, 0, None)), np.square))
    axis.set_ylim(0, 1)
    for i in range(len(found["attacks"])):
        _curve(axis, [none, *sigmas], [level["rates"][i] for level in levels], i, len(found["attacks"]))
    shaded = ((found["leak_up_to"], none / 1.6, None, "0.86"), (found["none_from"], None, right, "0.94"))
    for end, left, until, grey in shaded:
        if end is not None:
            axis.axvspan(left or end["sigma"], until or end["sigma"], color=grey, zorder=0, linewidth=0)
    words = {"fontsize": SMALL, "color": GREY}
    for kappa, sigma in certified.items():
        axis.axvline(sigma, color="black", linestyle="--", linewidth=1)
        said = {"rotation": 90, "ha": "left", "va": "top", "fontsize": SMALL}
        axis.text(sigma * 1.02, 0.97, f"certified, prior {kappa}", **said)
    for rate, said in ((CHANCE, "chance"), (CHANCE + MARGIN, "margin")):
        axis.axhline(rate, color="0.5", linestyle=":", linewidth=0.9)
        axis.text(right, rate, f" {said}", va="center", **words)
    inches = width - _BESIDE
    at_values(axis, sigmas, [up(sigma) for sigma in sigmas], inches, also=(none, "no\ndefence"))
    axis.set_yticks(
        [0, CHANCE, CHANCE + MARGIN, 0.2, 0.5, 1], ["0", "0.5 %", "5.5 %", "20 %", "50 %", "100 %"]
    )
    axis.set_xlabel("noise multiplier σ")
    axis.set_ylabel("attacked image ranks first of 200")
    _budgets(axis, levels[1:], inches)


def _curve(axis: Axes, places: list[float], rates: list[dict[str, Any]], i: int, several: int) -> None:
    apart = 1.05 ** (i - (several - 1) / 2)  # curves stand beside each other, so that bars do not hide bars
    share = np.array([rate["successes"] / max(rate["trials"], 1) for rate in rates])
    low, high = (np.array([rate[end] for rate in rates]) for end in ("low", "high"))
    x, colour = np.array(places) * apart, OKABE_ITO[i % len(OKABE_ITO)]
    axis.errorbar(
        x,
        share,
        yerr=np.clip((share - low, high - share), 0, None),
        color=colour,
        marker=_MARKERS[i % len(_MARKERS)],
        linewidth=0,
        elinewidth=0.7,
        capsize=2,
        clip_on=False,
    )
    axis.plot(x[1:], share[1:], color=colour)  # no defence is no point of this axis


def _legend(axis: Axes, attacks: list[str], width: float) -> None:
    """Below a panel of several attacks; for more than one line of it the figure grows."""
    if len(attacks) < 2:
        return
    texts = [wrap(name, width - 0.8, SMALL) for name in attacks]
    columns = 2 if 2 * (max(width_of(text, SMALL) for text in texts) + 0.6) < width else 1
    lines = -(-len(texts) // columns) * max(text.count("\n") + 1 for text in texts)
    axis.figure.set_figheight(axis.figure.get_figheight() + 0.15 * (lines - 1))
    below = axis.transAxes + ScaledTranslation(0, -_SCALE, axis.figure.dpi_scale_trans)
    place = {"bbox_to_anchor": (0.5, 0), "bbox_transform": below}
    words = [escape.matplotlib(text) for text in texts]
    # by its handles: a label of its own that begins with _ would hide a curve from the legend
    axis.legend(axis.containers, words, loc="upper center", ncols=columns, frameon=False, **place)


def _budgets(axis: Axes, levels: list[dict[str, Any]], inches: float) -> None:
    """Epsilon on the upper axis: of the training, where there is one, else of the release."""
    noises = [level["noise"] for level in levels]
    known = "eps" if all(noise["eps"] is not None for noise in noises) else "eps_release"
    if not noises or any(noise[known] is None for noise in noises):
        return
    upper = axis.secondary_xaxis("top")
    upper.set_xlim(axis.get_xlim())
    sigmas = [noise["sigma"] for noise in noises]
    at_values(upper, sigmas, [short(noise[known]) for noise in noises], inches)
    upper.set_xlabel(f"ε of the {'training' if known == 'eps' else 'release'}")


def _exposed_alt(table: pd.DataFrame, store: Store | None) -> str:
    rows = _most_exposed(schema.conform(table))
    said = ["The most exposed images at each noise level, original and output side by side."]
    for (_, sigma), part in rows:
        best = ", ".join(f"{r:.2f}" for r in part["best_correlation"].head(EXPOSED))
        first = int(part.head(EXPOSED)["ranked_first"].sum())
        said.append(f"Sigma {up(sigma)}: correlations {best}; {first} of them ranked first of 200.")
    return " ".join(said)


@plot("frontier-exposed.png", title="The most exposed images", alt=_exposed_alt)
def exposed(table: pd.DataFrame, store: Store | None = None, width: float = FULL) -> Figure | None:
    """Draw the most exposed images at each noise level: the originals, and the outputs most like them.

    They are the `EXPOSED` of the images that were ranked whose best correlation with an output is highest.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: the run's cells, which hold the pictures.
        width: of the figure, inches.

    Returns:
        The figure; None where no image was ranked.
    """
    table = schema.conform(table)
    if store is None:
        return None
    table = _ranked(table)
    there = {key: store.has(key) for key in table["key"].dropna().unique()}
    rows = _most_exposed(table[table["key"].map(there).eq(True)])  # tables may have come without their cells
    if not rows:
        return None
    few = EXPOSED if width > COLUMN else EXPOSED - 2
    across = 2 * few
    side = min(_SIDE, (width - 0.6) / across - 0.03)
    figure = Figure(figsize=(width, 0.5 + len(rows) * (side + 0.25)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.01, wspace=0.01)
    panels = figure.subplots(len(rows), across, squeeze=False)
    for axis in panels.flat:
        axis.axis("off")
    for line, ((_, sigma), part) in zip(panels, rows, strict=True):
        name = "no defence" if sigma == 0 else f"σ {up(sigma)}"
        name = wrap(name, 0.55, SMALL)
        line[0].text(-0.1, 0.5, name, fontsize=SMALL, ha="right", va="center", transform=line[0].transAxes)
        pairs = zip(line[::2], line[1::2], strict=True)
        for pair, (_, row) in zip(pairs, part.head(few).iterrows(), strict=False):
            _pair(pair, row, store)
    threats = len({threat_model for (threat_model, _), _ in rows})
    said = "original and output, by best correlation r; framed: ranked first of 200"
    more = ", rows by threat model" if threats > 1 else ""
    title = f"The most exposed images at each noise level, {few} at most: {said}{more}"
    figure.suptitle(wrap(title, width - 0.2, TEXT))
    return figure


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["ranked_first"].notna() & table["best_output"].notna()]


def _most_exposed(table: pd.DataFrame) -> list[tuple[tuple[str, float], pd.DataFrame]]:
    """((threat model, sigma), ranked images, most exposed first), each image once."""
    table = _ranked(table)
    if table.empty:
        return []
    table = table.assign(_sigma=table["noise_multiplier"].fillna(0.0))
    table = table.sort_values("best_correlation", ascending=False, kind="stable")
    table = table.drop_duplicates(["threat_model", "_sigma", "data", "original_index"])
    return sorted(table.groupby(["threat_model", "_sigma"]), key=lambda each: each[0])


def _pair(axes: tuple[Axes, Axes], row: pd.Series, store: Store) -> None:
    cell = store.read(row["key"])
    for axis, pixels in zip(
        axes, (cell.originals[row["image"]], cell.images[row["best_output"]]), strict=True
    ):
        axis.imshow(pixels.transpose(1, 2, 0), interpolation="nearest")
    axes[1].set_title(f"r {row['best_correlation']:.2f}", fontsize=SMALL, pad=2)
    if row["ranked_first"]:
        axes[1].axis("on")
        axes[1].set(xticks=[], yticks=[])
        for spine in axes[1].spines.values():
            spine.set(color=OKABE_ITO[1], linewidth=2)
