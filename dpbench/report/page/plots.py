"""The plots of a run's folder: drawings within the page, or pictures where an older run has no drawings."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from dpbench.report.page import beside, svg
from dpbench.report.page.templating import render
from dpbench.report.plots import plots as registered
from dpbench.store import Store
from dpbench.system.paths import listed

FOLDER = "plots"
MOST = 8_000_000
"""Bytes of all drawings of a page; what is above that is named only."""
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class _Shown:
    name: str
    title: str
    body: Markup


def plots(table: pd.DataFrame, store: Store) -> Markup | None:
    """Every plot that lies in the folder, in the registry's order; None where there is none."""
    shown, left_out, spent = [], [], 0
    for name in _names(store):
        found = _drawing(store.path, name)
        if found is None:
            continue
        spent += len(found.body)
        if spent > MOST:
            left_out.append(name)
        else:
            shown.append(found)
    if not shown and not left_out:
        return None
    return render("plots", plots=shown, left_out=left_out)


def _names(store: Store) -> list[str]:
    """Names of plots without their endings: the registered ones first, then others that were drawn."""
    ours = [Path(name).stem for name in registered]
    there = [Path(name).stem for name in listed(store.path / FOLDER) if name.endswith(".svg")]
    return list(dict.fromkeys([*ours, *there]))


def _drawing(folder: Path, name: str) -> _Shown | None:
    title, alt = _words(name)
    prefix = f"plot-{re.sub(r'[^A-Za-z0-9_-]', '-', name)}-"
    source = beside.content(folder / FOLDER / f"{name}.svg", MOST)
    body = None if source is None else svg.inline(source, prefix, title, alt)
    body = body or picture(folder / f"{name}.png", f"{title}. {alt}")
    return None if body is None else _Shown(name, title, body)


def picture(file: Path, alt: str) -> Markup | None:
    """A PNG within the page; None where there is none."""
    source = beside.content(file, MOST)
    if source is None or not source.startswith(_PNG):
        return None
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(alt, b64encode(source).decode())


def _words(name: str) -> tuple[str, str]:
    """Title and alternative text of a plot, as it was registered."""
    draw = dict(registered).get(f"{name}.png")
    title = getattr(draw, "title", None) or name.replace("-", " ").replace("_", " ").capitalize()
    return title, getattr(draw, "alt", None) or "The figures are in the tables of this page."
