"""The picture of what was rebuilt: originals above, one row per attack and defence below."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpbench.cell.grid import CONSTANT_IMAGE, START
from dpbench.report import escape
from dpbench.report.labels import (
    EMPTY,
    ablation_order,
    attack_label,
    conditions,
    defense_label,
    distinguishing,
    is_defended,
    is_floor,
    number,
    only_labels,
    varying_conditions,
)
from dpbench.report.plots.wrap import width, wrapped
from dpbench.store import Store, schema

MAX_COLUMNS, MAX_ROWS = 9, 40
"""What one picture shows at most; the title says what was left out."""

_UNDRAWN = (CONSTANT_IMAGE, START)  # a flat grey and plain noise: their numbers are in the tables
_INCHES, _GAP_X, _GAP_Y = 1.25, 0.1, 0.2  # side of one image, and what is between two
_NAME_INCHES = 2.2  # the most room for a row's name
_SMALL, _TITLE = 7, 9  # sizes of the font, points
_PLACE = ["batch_size", "data", "label_draw", "batch_seed", "image"]  # which original: one column each


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
    labels = [wrapped(name, _NAME_INCHES, _SMALL) for name in rows]
    left = 0.25 + max(width(label, _SMALL) for label in labels)
    inches = max(left + (_INCHES + _GAP_X) * len(columns), 4)
    title = wrapped(_title(table, len(columns), len(names)), inches - 0.2, _TITLE)
    figure, axes = _grid(len(rows), len(columns), left, 0.35 + 0.15 * (1 + title.count("\n")), inches)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, label in zip(axes[:, 0], labels, strict=True):
        _name(axis, label)
    several = shown["batch_seed"].nunique() > 1
    for index, row in shown.iterrows():
        column, line = columns[tuple(row[_PLACE])], rows[row["_name"]]
        image, original = pixels[index]
        if not axes[0, column].images:
            _draw(axes[0, column], original, _caption(row, several))
        if not axes[line, column].images:  # the mean image is the same for every victim
            _draw(axes[line, column], image, _score(row))
    x, y = 0.1 / inches, 1 - 0.08 / figure.get_figheight()
    figure.text(x, y, escape.without_math(title), va="top", fontsize=_TITLE)
    return figure


def _grid(rows: int, columns: int, left: float, top: float, inches: float) -> tuple[Figure, np.ndarray]:
    """Axes with room for captions and names: set by hand, as Matplotlib's layout engines take seconds."""
    pitch_x, pitch_y = _INCHES + _GAP_X, _INCHES + _GAP_Y
    height = top + pitch_y * rows + 0.05
    figure = Figure(figsize=(inches, height))
    axes = np.empty((rows, columns), dtype=object)
    for row, column in np.ndindex(rows, columns):
        x, y = left + column * pitch_x, height - top - (row + 1) * pitch_y
        axes[row, column] = figure.add_axes((x / inches, y / height, _INCHES / inches, _INCHES / height))
    return figure, axes


def _candidates(table: pd.DataFrame) -> pd.DataFrame:
    """Well-ended rows of the first attack seed, named, in the order in which they are drawn."""
    well = (table["status"].fillna("ok") == "ok") & ~table["attack"].isin(_UNDRAWN) & ~only_labels(table)
    table = distinguishing(table[well.astype(bool)])
    seed = table["attack_seed"]
    table = table[(seed.isna() | (seed == seed.min())).fillna(True).astype(bool)]
    varying = [name for name in varying_conditions(table) if name not in _PLACE]
    order = ["_attack", "_defended", "_private", "attack", "floor_of", "_terms", "defense", "prune_ratio"]
    order += ["noise_std", "max_grad_norm", "eps", "eps_release", *varying]
    return table.assign(
        _name=[_row_name(row, varying) for row in table.to_dict("records")],
        _attack=~is_floor(table),
        _defended=is_defended(table),
        _private=table["eps_release"].notna(),
        _terms=ablation_order(table),
    ).sort_values(order, kind="stable")


def _places(shown: pd.DataFrame) -> pd.DataFrame:
    """The originals to show: the first image of each batch before any second one, low seeds before high."""
    places = shown[_PLACE].drop_duplicates()
    return places.sort_values(["image", "batch_seed", "batch_size", "data", "label_draw"]).head(MAX_COLUMNS)


def _row_name(row: dict[str, Any], varying: list[str]) -> str:
    words = [attack_label(row).replace(" (", "\n(")]
    if (defense := defense_label(row)) != EMPTY:
        words.append(defense)
    return "\n".join([*words, *conditions(row, varying)])


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


def _draw(axis: Axes, pixels: np.ndarray, caption: str) -> None:
    axis.imshow(pixels, interpolation="nearest")
    axis.set_title(caption, fontsize=_SMALL, pad=2)


def _name(axis: Axes, name: str) -> None:
    text = escape.without_math(name)
    axis.text(-0.08, 0.5, text, transform=axis.transAxes, ha="right", va="center", fontsize=_SMALL)


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
