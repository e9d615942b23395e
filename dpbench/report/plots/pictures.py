"""The picture of what was rebuilt, at most a page: originals above, one row per attack and defence below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpbench.report import escape
from dpbench.report.alike import said_of
from dpbench.report.naming import EMPTY, Naming, number
from dpbench.report.plots.picture_page import LEAST_WIDTH, PAGE, SMALL, Page, chosen, name_of, page
from dpbench.report.plots.registry import plot
from dpbench.report.plots.wrap import wrap
from dpbench.report.rows import ended_well, is_defended, is_floor, only_labels, ordered
from dpbench.store import Store, schema
from dpbench.system.once import once

_UNDRAWN = ("constant-image", "start")  # floors: a flat grey and plain noise: their numbers are in the tables
_TITLE, _TITLE_LINE, _TITLE_LINES = 8, 0.14, 8  # size of the font, points; height of a line, inches; at most
_ORIGINAL = "original"
_PLACE = ["batch_size", "data", "label_draw", "batch_seed", "image"]  # which original: one column each


def _alt(table: pd.DataFrame, store: Store | None) -> str:
    names = dict.fromkeys(_candidates(schema.conform(table))["_name"].str.replace("\n", " "))
    return (
        "A grid of pictures: the originals in the first row, and below them what was made of them, with "
        f"{_scores(table)} above each. Rows, as far as there is room: {'; '.join(names)}."
    )


@plot("reconstructions.png", title="Originals and what was rebuilt of them", alt=_alt)
def reconstructions(table: pd.DataFrame, store: Store, width: float = PAGE[0]) -> Figure | None:
    """Draw the originals on top and under them what each attack made of them, with PSNR and LPIPS.

    The columns are spread over batch sizes and batch seeds, the first images of each; of several attack seeds
    the lowest is shown. Floors come first, then the undefended, then the defended rows. The picture is at
    most a page; of rows that have no room on it some are chosen (`picture_page.chosen`), and the title says
    how many are left out. Small pictures are enlarged without smoothing.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: the run's cells, which hold the pictures.
        width: the room for it, in inches.

    Returns:
        The figure; None if no cell left a picture or all attacks were after labels alone.
    """
    table = schema.conform(table)
    if only_labels(table[~is_floor(table)]).all():
        return None
    rows = _candidates(table)
    if rows.empty:
        return None
    places = _places(rows)
    several = places["batch_seed"].nunique() > 1
    names = {name: name_of(name, width) for name in (_ORIGINAL, *dict.fromkeys(rows["_name"]))}
    longest = _lines(_title(table, 0, len(places), 1, len(names)), min(width, LEAST_WIDTH))
    room = PAGE[1] - 0.11 - _TITLE_LINE * len(longest)
    sheet = page(list(names.values()), len(places), 3 if several else 2, width, room)
    shown = rows[rows["_name"].isin(_names(rows, sheet.rows - 1))]
    shown = shown.merge(places.head(sheet.columns), on=_PLACE, how="inner")
    pixels = _pixels(shown, store)
    shown = shown[shown.index.isin(pixels)]
    if shown.empty:
        return None
    # what left no picture takes no room
    lines = [_ORIGINAL, *dict.fromkeys(shown["_name"])]
    seen = shown[_PLACE].drop_duplicates().sort_values(_PLACE)
    sheet = page([names[name] for name in lines], len(seen), 3 if several else 2, width, room)
    figure, axis = _figure(_title(table, len(seen), len(places), len(lines), len(names)), sheet)
    _name_rows(axis, sheet, [names[name] for name in lines])
    columns = {place: i for i, place in enumerate(seen.itertuples(index=False, name=None))}
    filled = set()
    for index, row in shown.iterrows():
        column = columns[tuple(row[_PLACE])]
        texts = (_caption(row, several), _score(row))
        for line, pixel, text in zip((0, lines.index(row["_name"])), pixels[index][::-1], texts, strict=True):
            if (line, column) not in filled:  # the mean image is the same for every victim
                _draw(axis, sheet, pixel, (column, line), text, lines[line])
                filled.add((line, column))
    return figure


def _figure(title: str, sheet: Page) -> tuple[Figure, Axes]:
    """One panel for all pictures, measured in inches: one each would take seconds to lay out."""
    lines = _lines(title, sheet.width)
    height = 0.1 + _TITLE_LINE * len(lines) + sheet.height
    figure = Figure(figsize=(sheet.width, height))
    figure.suptitle(
        escape.matplotlib("\n".join(lines)),
        x=0.1 / sheet.width,
        y=1 - 0.05 / height,
        ha="left",
        va="top",
        fontsize=_TITLE,
    )
    axis = figure.add_axes((0, 0, 1, sheet.height / height))
    axis.set_axis_off()
    axis.set(xlim=(0, sheet.width), ylim=(sheet.height, 0))
    return figure, axis


def _lines(title: str, width: float) -> list[str]:
    lines = wrap(title, width - 0.2, _TITLE).split("\n")
    return lines if len(lines) <= _TITLE_LINES else [*lines[: _TITLE_LINES - 1], "..."]


def _name_rows(axis: Axes, sheet: Page, names: list[str]) -> None:
    for line, name in enumerate(names):
        x, y = sheet.corner(0, line)
        axis.text(
            x - 0.08, y + sheet.side / 2, escape.matplotlib(name), ha="right", va="center", fontsize=SMALL
        )


def _draw(
    axis: Axes, sheet: Page, pixels: np.ndarray, place: tuple[int, int], caption: str, name: str
) -> None:
    x, y = sheet.corner(*place)
    extent = (x, x + sheet.side, y + sheet.side, y)
    axis.imshow(pixels, extent=extent, interpolation="nearest", gid=name, aspect="auto")
    axis.text(x + sheet.side / 2, y - 0.03, caption, ha="center", va="bottom", fontsize=SMALL)


@once
def _candidates(table: pd.DataFrame) -> pd.DataFrame:
    """Well-ended rows of the first attack seed, named, in the order in which they are drawn."""
    table = table[ended_well(table) & ~table["floor"].isin(_UNDRAWN) & ~only_labels(table)]
    naming = Naming(table)
    seed = table["attack_seed"]
    table = ordered(table[(seed.isna() | (seed == seed.min())).fillna(True).astype(bool)], batch_last=True)
    return table.assign(_name=said_of(table, lambda row: _row_name(row, naming)))


def _names(rows: pd.DataFrame, room: int) -> list[str]:
    """The names of the rows that are shown."""
    kinds = is_floor(rows), ~is_floor(rows) & ~is_defended(rows), is_defended(rows)
    return chosen(*(list(dict.fromkeys(rows.loc[kind, "_name"])) for kind in kinds), room)


def _places(rows: pd.DataFrame) -> pd.DataFrame:
    """The originals: the first image of each batch before any second one, low seeds before high."""
    places = rows[_PLACE].drop_duplicates()
    return places.sort_values(["image", "batch_seed", "batch_size", "data", "label_draw"])


def _row_name(row: Mapping[str, Any], naming: Naming) -> str:
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


def _caption(row: pd.Series, seeds: bool) -> str:
    seed = f"seed {row['batch_seed']}\n" if seeds else ""
    return f"batch of {row['batch_size']}\n{seed}image {row['image']}"


def _score(row: pd.Series) -> str:
    text = f"{number(row['psnr'], '.1f')} dB"
    return text if pd.isna(row["lpips"]) else f"{text}, {row['lpips']:.2f}"


def _scores(table: pd.DataFrame) -> str:
    return f"PSNR{' and LPIPS' if table['lpips'].notna().any() else ''}"


def _title(table: pd.DataFrame, columns: int, images: int, rows: int, all_rows: int) -> str:
    attacked = table[~is_floor(table)]
    same = [
        f"{name} {attacked[name].dropna().iloc[0]}"
        for name in ("model", "norm", "victim", "trainable", "data")
        if attacked[name].notna().all() and attacked[name].nunique() == 1
    ]
    said = [
        f"What the server rebuilds: {', '.join(same)}",
        f"Above each: {_scores(table)}",
    ]
    if columns < images:
        said.append(
            f"{columns} of {images} images, {images - columns} left out: the first of each batch before any "
            "second one, low seeds before high"
        )
    if rows < all_rows:
        said.append(
            f"{rows - 1} of {all_rows - 1} rows, {all_rows - rows} left out: of floors, undefended and "
            "defended attacks the first and, where there is room, the last and some evenly between are shown"
        )
    return ".\n".join([*said, ""]).removesuffix("\n")
