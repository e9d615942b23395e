"""The picture of what was rebuilt: originals above, one row per attack and defence below."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpbench.report import escape
from dpbench.report.naming import EMPTY, Naming, number
from dpbench.report.plots.registry import plot
from dpbench.report.plots.wrap import width, wrap
from dpbench.report.rows import ended_well, is_floor, only_labels, ordered
from dpbench.store import Store, schema

MAX_COLUMNS, MAX_ROWS = 9, 40
"""What one picture shows at most; the title says what was left out."""

_UNDRAWN = ("constant-image", "start")  # floors: a flat grey and plain noise: their numbers are in the tables
_INCHES, _GAP_X, _GAP_Y = 1.25, 0.1, 0.2  # side of one image, and what is between two
_NAME_INCHES = 2.2  # the most room for a row's name
_SMALL, _TITLE = 7, 9  # sizes of the font, points
_PLACE = ["batch_size", "data", "label_draw", "batch_seed", "image"]  # which original: one column each


@plot("reconstructions.png")
def reconstructions(table: pd.DataFrame, store: Store) -> Figure | None:
    """Draw the originals on top and under them what each attack made of them, with PSNR and LPIPS.

    The columns are spread over batch sizes and batch seeds, the first images of each; of several attack seeds
    the lowest is shown. Floors come first, then the undefended, then the defended rows. Small pictures are
    enlarged without smoothing.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: the run's cells, which hold the pictures.

    Returns:
        The figure; None if no cell left a picture or all attacks were after labels alone.
    """
    table = schema.conform(table)
    if only_labels(table[~is_floor(table)]).all():
        return None
    candidates = _candidates(table)
    names = list(dict.fromkeys(candidates["_name"]))
    shown = candidates[candidates["_name"].isin(names[:MAX_ROWS])]
    shown = shown.merge(_places(shown), on=_PLACE, how="inner")
    pixels = _pixels(shown, store)
    shown = shown[shown.index.isin(pixels)]
    if shown.empty:
        return None
    places = shown[_PLACE].drop_duplicates().sort_values(_PLACE)
    columns = {place: i for i, place in enumerate(places.itertuples(index=False, name=None))}
    rows = {name: i for i, name in enumerate(["original", *dict.fromkeys(shown["_name"])])}
    labels = [wrap(name, _NAME_INCHES, _SMALL) for name in rows]
    left = 0.25 + max(width(label, _SMALL) for label in labels)
    inches = max(left + (_INCHES + _GAP_X) * len(columns), 4)
    figure, axis = _sheet(_title(table, len(columns), len(names)), len(rows), inches)
    for line, label in enumerate(labels):
        middle = _top(line) + _INCHES / 2
        axis.text(left - 0.1, middle, escape.matplotlib(label), ha="right", va="center", fontsize=_SMALL)
    several, filled = shown["batch_seed"].nunique() > 1, set()
    for index, row in shown.iterrows():
        column = columns[tuple(row[_PLACE])]
        name, x = row["_name"], left + column * (_INCHES + _GAP_X)
        for line, pixel, caption in zip(
            (0, rows[name]), pixels[index][::-1], (_caption(row, several), _score(row)), strict=True
        ):
            if (line, column) not in filled:  # the mean image is the same for every victim
                _draw(axis, pixel, x, _top(line), caption, name if line else "original")
                filled.add((line, column))
    axis.set(xlim=(0, inches), ylim=(_top(len(rows)), 0), aspect="equal")
    return figure


def _sheet(title: str, rows: int, inches: float) -> tuple[Figure, Axes]:
    """One panel for all pictures, measured in inches: one each would take seconds to lay out."""
    title = wrap(title, inches - 0.2, _TITLE)
    above = 0.2 + 0.16 * (1 + title.count("\n"))
    figure = Figure(figsize=(inches, above + _top(rows)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0, h_pad=0.04)
    figure.suptitle(escape.matplotlib(title), x=0.1 / inches, ha="left", fontsize=_TITLE)
    axis = figure.subplots()
    axis.set_axis_off()
    return figure, axis


def _top(line: int) -> float:
    """Where the pictures of a line begin, in inches; above the first there is a caption of two lines."""
    return 0.32 + line * (_INCHES + _GAP_Y)


def _candidates(table: pd.DataFrame) -> pd.DataFrame:
    """Well-ended rows of the first attack seed, named, in the order in which they are drawn."""
    table = table[ended_well(table) & ~table["floor"].isin(_UNDRAWN) & ~only_labels(table)]
    naming = Naming(table)
    seed = table["attack_seed"]
    table = ordered(table[(seed.isna() | (seed == seed.min())).fillna(True).astype(bool)], batch_last=True)
    return table.assign(_name=[_row_name(row, naming) for row in table.to_dict("records")])


def _places(shown: pd.DataFrame) -> pd.DataFrame:
    """The originals to show: the first image of each batch before any second one, low seeds before high."""
    places = shown[_PLACE].drop_duplicates()
    return places.sort_values(["image", "batch_seed", "batch_size", "data", "label_draw"]).head(MAX_COLUMNS)


def _row_name(row: dict[str, Any], naming: Naming) -> str:
    words = [naming.attack(row).replace(" (", "\n(")]
    if (defence := naming.defence(row)) != EMPTY:
        words.append(defence)
    return "\n".join([*words, *naming.heading(row, leave_out=_PLACE)])


def _pixels(shown: pd.DataFrame, store: Store) -> dict[Any, tuple[np.ndarray, np.ndarray]]:
    """(reconstruction, original) [H, W, 3] of the rows whose cell is sound and holds pictures."""
    found = {}
    for key, part in shown.groupby("key"):
        try:
            cell = store.read(key)
        except KeyError:
            continue
        if cell.images is None or cell.originals is None:
            continue
        # a cell may hold a floor beside the attack, so the image's number alone does not name a picture
        place = {(row["attack"], row["image"]): i for i, row in enumerate(cell.rows[: len(cell.images)])}
        for index, row in part.iterrows():
            i = place.get((row["attack"], row["image"]))
            if i is not None:
                found[index] = cell.images[i].transpose(1, 2, 0), cell.originals[i].transpose(1, 2, 0)
    return found


def _draw(axis: Axes, pixels: np.ndarray, x: float, y: float, caption: str, name: str) -> None:
    extent = (x, x + _INCHES, y + _INCHES, y)
    axis.imshow(pixels, extent=extent, interpolation="nearest", gid=name)
    axis.text(x + _INCHES / 2, y - 0.03, caption, ha="center", va="bottom", fontsize=_SMALL)


def _caption(row: pd.Series, seeds: bool) -> str:
    seed = f"seed {row['batch_seed']}, " if seeds else ""
    return f"batch of {row['batch_size']}\n{seed}image {row['image']}"


def _score(row: pd.Series) -> str:
    text = f"{number(row['psnr'], '.1f')} dB"
    return text if pd.isna(row["lpips"]) else f"{text}, LPIPS {row['lpips']:.2f}"


def _title(table: pd.DataFrame, columns: int, rows: int) -> str:
    attacked = table[~is_floor(table)]
    same = [name for name in ("model", "norm", "victim", "data") if attacked[name].nunique() == 1]
    title = (
        f"What the server rebuilds: {', '.join(f'{name} {attacked[name].dropna().iloc[0]}' for name in same)}"
    )
    images = len(table[_PLACE].drop_duplicates())
    if images > columns:
        title += f"\n{columns} of {images} images"
    if rows > MAX_ROWS:
        title += f"\n{MAX_ROWS} of {rows} attacks and defences"
    return title
