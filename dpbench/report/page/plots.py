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
from dpbench.report.plots import as_plot
from dpbench.report.plots import plots as registered
from dpbench.report.plots.files import FOLDER
from dpbench.report.plots.registry import WIDTHS
from dpbench.store import Store
from dpbench.system.paths import listed

MOST = 4_000_000
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
    drawn = [Path(name).stem for name in listed(store.path / FOLDER) if name.endswith(".svg")]
    narrow = {f"{name}{suffix}" for name in drawn for suffix in WIDTHS if suffix}
    return list(dict.fromkeys([*ours, *(name for name in drawn if name not in narrow)]))


def _drawing(folder: Path, name: str) -> _Shown | None:
    title = _title(name)
    prefix = f"plot-{re.sub(r'[^A-Za-z0-9_-]', '-', name)}-"
    source = beside.content(folder / FOLDER / f"{name}.svg", MOST)
    body = None if source is None else svg.inline(source, prefix, title)
    body = body or picture(folder / f"{name}.png", f"{title}. The figures are in the tables of this page.")
    return None if body is None else _Shown(name, title, body)


def _title(name: str) -> str:
    file = next((each for each in registered if Path(each).stem == name), None)
    return as_plot(registered[file], file).title if file else name.replace("-", " ").capitalize()


def picture(file: Path, alt: str) -> Markup | None:
    """A PNG within the page; None where there is none."""
    source = beside.content(file, MOST)
    if source is None or not source.startswith(_PNG):
        return None
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(alt, b64encode(source).decode())
