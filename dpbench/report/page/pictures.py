"""What people look at: originals, and what an attack makes of them as the defence gets stronger."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from PIL import Image

from dpbench.data.cifar10_like import CLASSES
from dpbench.report.naming import number
from dpbench.report.page.exposure import UNDEFENDED, Case, Panel, panels
from dpbench.report.page.templating import render
from dpbench.report.rows import is_informed
from dpbench.report.successes import asked, choices
from dpbench.store import Store, schema

MOST_PICTURES = 200
MOST_BYTES = 16_000_000
"""Of all pictures of a page, as text; further attacks are named only."""
SIDE = 192
"""Pixels up to which a small picture is enlarged, by a whole number."""
_LABELS = {"cifar10": CLASSES, "samples": CLASSES}
_FLOORS = {"mean-image": "mean image", "noise-gradient": "attack fed pure noise"}


@dataclass(frozen=True)
class Picture:
    """One picture with its words.

    Attributes:
        alt: what it shows, in words.
        caption: a few words for each line under it.
        source: a data URI; empty where there is no picture.
        width, height: on the page, pixels.
        enlarged: it is shown larger than it is.
        identified: whether its original was picked out of the gallery; None where that was not asked.
    """

    alt: str
    caption: tuple[str, ...]
    source: str = ""
    width: int = SIDE
    height: int = SIDE
    enlarged: bool = False
    identified: bool | None = None


@dataclass(frozen=True)
class _Shown:
    title: str
    place: str
    original: Picture
    levels: tuple[Picture, ...]
    floors: tuple[Picture, ...]


@dataclass(frozen=True)
class _View:
    """A panel with its pictures."""

    panel: Panel
    name: str
    cases: tuple[_Shown, ...]

    @property
    def pictures(self) -> list[Picture]:
        """All that hold one."""
        every = [each for case in self.cases for each in (case.original, *case.levels, *case.floors)]
        return [each for each in every if each.source]

    @property
    def largest(self) -> Picture:
        """The widest one."""
        return max(self.pictures, key=lambda each: each.width)


def pictures(table: pd.DataFrame, store: Store) -> Markup | None:
    """Three images for each attack and defence, as `dpbench.report.page.exposure` chooses them.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: the run's cells, which hold the pictures.

    Returns:
        None where no cell of the folder has a picture.
    """
    if not store.counts()[0]:
        return None
    table = schema.numbered(table)
    album, views, left_out = _Album(store), [], []
    count = size = 0
    for panel in panels(table):
        if count >= MOST_PICTURES or size >= MOST_BYTES:
            left_out.append(_title(panel))
            continue
        view = _View(panel, _title(panel), tuple(_shown(case, panel, album) for case in panel.cases))
        if not any(each.source for case in view.cases for each in case.levels):
            continue
        count += len(view.pictures)
        size += sum(len(each.source) for each in view.pictures)
        if views and (count > MOST_PICTURES or size > MOST_BYTES):
            left_out.append(view.name)
        else:
            views.append(view)
    if not views:
        return None
    galleries = sorted({int(size) for size in choices(asked(table[~is_informed(table)])).dropna()})
    return render(
        "pictures",
        views=views,
        left_out=left_out,
        galleries=galleries,
        floors=any(case.floors for view in views for case in view.cases),
    )


def _title(panel: Panel) -> str:
    against = f" against {panel.defence}" if panel.defence else ", undefended"
    return f"{panel.attack}{against}, {panel.place[:1].lower()}{panel.place[1:]}"


def _shown(case: Case, panel: Panel, album: _Album) -> _Shown:
    image = case.image
    named = _label(image)
    place = f"image {image['image']} of batch {image['batch_seed']}"
    source = next((row for row in (*case.rows, *case.floors) if row and album.original(row)), None)
    original = Picture(
        f"original, label {named}", (f"original: {named}", place), **album.original(source) if source else {}
    )
    return _Shown(
        case.title,
        place,
        original,
        tuple(_level(row, name, panel, album) for row, name in zip(case.rows, panel.levels, strict=True)),
        tuple(_floor(row, album) for row in case.floors),
    )


def _level(row: Mapping[str, Any] | None, level: str, panel: Panel, album: _Album) -> Picture:
    if row is None:
        return Picture(f"no result under {level}", (level, "no result"))
    where = "without a defence" if level == UNDEFENDED else f"under {level}"
    words, found = _numbers(row), _found(row)
    told = [] if found is None else ["identified" if found else "not identified"]
    alt = f"reconstruction by {panel.attack} {where}: {', '.join([*words, *told])}"
    return Picture(alt, (level, *words), **album.rebuilt(row), identified=found)


def _floor(row: Mapping[str, Any], album: _Album) -> Picture:
    name, words = _FLOORS[row["floor"]], _numbers(row)
    return Picture(f"without the gradient, {name}: {', '.join(words)}", (name, *words), **album.rebuilt(row))


def _numbers(row: Mapping[str, Any]) -> list[str]:
    words = [f"PSNR {number(row['psnr'], '.1f')} dB"]
    return words if pd.isna(row["lpips"]) else [*words, f"LPIPS {row['lpips']:.2f}"]


def _found(row: Mapping[str, Any]) -> bool | None:
    """Whether the image was picked out; in a frontier's cells that is asked of one image of each batch."""
    for name in ("ranked_first", "identified"):
        if not pd.isna(row[name]):
            return bool(row[name])
    return None


def _label(row: Mapping[str, Any]) -> str:
    """The class in words where the data are known, or else its number."""
    if pd.isna(row["label"]):
        return "unknown"
    names, label = _LABELS.get(row["data"], ()), int(row["label"])
    return names[label] if label < len(names) else f"class {label}"


@dataclass
class _Album:
    """The pictures of a run's cells; each cell is read once."""

    store: Store
    _cells: dict[str, dict[tuple[Any, Any], tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)

    def rebuilt(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of a `Picture` for a row's reconstruction; none where there is none."""
        return self._fields(row, 0)

    def original(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Likewise for its original."""
        return self._fields(row, 1)

    def _fields(self, row: Mapping[str, Any], which: int) -> dict[str, Any]:
        pair = self._read(row["key"]).get((row["attack"], row["image"]))
        return {} if pair is None else _encoded(pair[which])

    def _read(self, key: str) -> dict[tuple[Any, Any], tuple[np.ndarray, np.ndarray]]:
        if key not in self._cells:
            self._cells[key] = dict(self._pairs(key))
        return self._cells[key]

    def _pairs(self, key: str) -> Iterator[tuple[tuple[Any, Any], tuple[np.ndarray, np.ndarray]]]:
        try:
            cell = self.store.read(key)
        except KeyError:
            return
        if cell.images is None or cell.originals is None:
            return
        # a cell may hold a floor beside the attack, so the image's number alone does not name a picture
        for row, image, original in zip(cell.rows, cell.images, cell.originals, strict=False):
            yield (row["attack"], row["image"]), (image, original)


def _encoded(pixels: np.ndarray) -> dict[str, Any]:
    """A PNG of uint8 [3, H, W], without loss, and how large it is shown."""
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(file, "PNG")
    height, width = pixels.shape[1:]
    scale = max(1, SIDE // max(height, width))
    source = f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
    shown = {"width": scale * width, "height": scale * height, "enlarged": scale > 1}
    return {"source": source, **shown}
