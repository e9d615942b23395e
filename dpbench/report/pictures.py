"""The picture of what was rebuilt: originals above, one row per attack and defence below."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpbench import schema
from dpbench.report import escape
from dpbench.report.labels import (
    attack_label,
    conditions_label,
    defense_label,
    distinguishing,
    is_defended,
    is_floor,
    number,
    varying_conditions,
)
from dpbench.store import Store

MAX_COLUMNS, MAX_PER_BATCH, MAX_ROWS = 9, 4, 40
"""What one picture shows at most; the title says what was left out."""

_INCHES = 1.25  # side of one image
_PLACE = ["batch_size", "data", "label_draw", "batch_seed", "image"]  # which original: one column each


def reconstructions(table: pd.DataFrame, store: Store) -> Figure | None:
    """Draw the originals on top and under them what each attack made of them, with PSNR and LPIPS.

    Shows the lowest batch seed and attack seed and the first images of each batch size; floors first, then
    the undefended, then the defended rows. Small pictures are enlarged without smoothing.

    Args:
        table: per-image results, columns of `dpbench.schema.SCHEMA`.
        store: the run's cells, which hold the pictures.

    Returns:
        The figure; None if no cell left a picture.
    """
    table = schema.conform(table)
    shown = _chosen(table)
    pixels = _pixels(shown, store)
    shown = shown[shown.index.isin(pixels)]
    if shown.empty:
        return None
    places = shown[_PLACE].drop_duplicates().sort_values(_PLACE).head(MAX_COLUMNS)
    columns = {place: i for i, place in enumerate(places.itertuples(index=False, name=None))}
    names = list(dict.fromkeys(shown["_name"]))
    rows = {name: i for i, name in enumerate(["original", *names[:MAX_ROWS]])}
    title = _title(table, len(columns), len(names))
    figure, axes = _grid(list(rows), len(columns), top=0.25 + 0.15 * (1 + title.count("\n")))
    for axis in axes.flat:
        axis.set_axis_off()
    for name, i in rows.items():
        _name(axes[i, 0], name)
    for index, row in shown.iterrows():
        column, line = columns.get(tuple(row[_PLACE])), rows.get(row["_name"])
        if column is not None and line is not None:
            image, original = pixels[index]
            if not axes[0, column].images:
                _draw(axes[0, column], original, f"batch of {row['batch_size']}, image {row['image']}")
            _draw(axes[line, column], image, _score(row))
    figure.text(0.02, 1 - 0.08 / figure.get_figheight(), escape.mathless(title), va="top", fontsize=9)
    return figure


def _grid(names: list[str], columns: int, top: float) -> tuple[Figure, np.ndarray]:
    """Axes with room for captions and names: set by hand, as Matplotlib's layout engines take seconds."""
    letters = max(len(line) for name in names for line in name.split("\n"))
    left = 0.25 + 0.06 * letters
    pitch_x, pitch_y = _INCHES + 0.1, _INCHES + 0.2
    width, height = left + pitch_x * columns, top + pitch_y * len(names) + 0.05
    figure = Figure(figsize=(max(width, 4), height))
    places = [
        [
            (
                (left + column * pitch_x) / figure.get_figwidth(),
                1 - (top + (row + 1) * pitch_y) / height,
                _INCHES / figure.get_figwidth(),
                _INCHES / height,
            )
            for column in range(columns)
        ]
        for row in range(len(names))
    ]
    return figure, np.array([[figure.add_axes(place) for place in row] for row in places], dtype=object)


def _chosen(table: pd.DataFrame) -> pd.DataFrame:
    """Well-ended rows of the first seeds and images, named, in the order in which they are drawn."""
    table = distinguishing(table[table["status"].fillna("ok") == "ok"])
    for seed in ("batch_seed", "attack_seed"):
        first = table[seed].min()
        table = table[(table[seed].isna() | (table[seed] == first)).fillna(True).astype(bool)]
    table = table[(table["image"] < MAX_PER_BATCH).fillna(False).astype(bool)]
    varying = [name for name in varying_conditions(table) if name not in _PLACE]
    names = [_row_name(row, varying) for row in table.to_dict("records")]
    order = ["_attack", "_defended", "_private", "attack", "defense", "prune_ratio", "noise_std"]
    order += ["max_grad_norm", "eps", "eps_release"]
    return table.assign(
        _name=names,
        _attack=~is_floor(table),
        _defended=is_defended(table),
        _private=table["eps_release"].notna(),
    ).sort_values(order, kind="stable")


def _row_name(row: dict[str, Any], varying: list[str]) -> str:
    words = [attack_label(row).replace(" (", "\n(")]
    if not words[0].startswith("floor:"):
        defense = defense_label(row)
        words.append("no defence" if defense == "none" else defense)
    if varying:
        words.append(conditions_label(row, varying))
    return "\n".join(words)


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
    axis.set_title(caption, fontsize=7, pad=2)


def _name(axis: Axes, name: str) -> None:
    lines = "\n".join(escape.mathless(line) for line in name.split("\n"))
    axis.text(-0.08, 0.5, lines, transform=axis.transAxes, ha="right", va="center", fontsize=7)


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
