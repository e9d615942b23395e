"""A plot's files: at full and at column width, as SVG, PDF and PNG, each figure laid out once."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePath
from xml.sax.saxutils import quoteattr

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from dpbench.report.plots.labels import settle
from dpbench.report.plots.registry import WIDTHS, Plot
from dpbench.report.plots.style import STYLE
from dpbench.store import Store
from dpbench.system.atomic import refused_as_sentence, written
from dpbench.system.output import plain

FOLDER = "plots"
"""Within a run's folder."""
KINDS = ("svg", "pdf", "png")
DPI = 200
_SAVING = {
    "svg.fonttype": "path",  # the same letters wherever it is opened, fonts of the reader's or not
    "pdf.fonttype": 42,  # publishers refuse Matplotlib's default
    "pdf.compression": 6,
}
_UNDATED = {
    "svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
    "pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
    "png": {"Software": None},
}
_INHERITED = "stroke-linejoin: round; stroke-linecap: butt"
_EVERYTHING = f'<style type="text/css">*{{{_INHERITED}}}</style>'
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")  # not XML
_IDS = re.compile(r'(\bid="|href="#|url\(#)')


def draw(plot: Plot, table: pd.DataFrame, store: Store) -> list[Path]:
    """Draw a plot and write its files; where there is nothing to draw, older files of it go.

    The full width lies in the run's folder under the plot's own name, too.

    Args:
        plot: what to draw.
        table: per-image results, columns of `dpbench.store.columns`.
        store: the run.

    Returns:
        The files written.

    Raises:
        InputError: the disk is full or the folder cannot be written.
        Exception: whatever the plot raises.
    """
    top, folder = store.path / plot.name, store.path / FOLDER
    files: list[Path] = []
    alt = None
    for suffix, width in WIDTHS.items():
        # a figure that does not lay itself out keeps the size that it was made for
        figure = plot(table, store, width if suffix else None)
        if figure is None:
            _remove(plot.name, store)
            return []
        with refused_as_sentence(folder):
            folder.mkdir(exist_ok=True)
        alt = plot.alt(table, store) if alt is None else alt
        made = dict(_saved(figure, folder / f"{top.stem}{suffix}", alt))
        if not suffix:
            files.append(_own(figure, top, made))
        files += made.values()
    return files


def _saved(figure: Figure, stem: Path, alt: str) -> Iterator[tuple[str, Path]]:
    """Each kind with its file; the layout of the first serves for all."""
    with matplotlib.rc_context(STYLE | _SAVING | {"svg.hashsalt": stem.name}):
        settle(figure)
        for kind in KINDS:
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=DPI, metadata=_UNDATED[kind])
            data = content.getvalue()
            if kind == "svg":
                data = _standalone(data.decode(), stem.name, alt).encode()
            path = stem.with_name(f"{stem.name}.{kind}")
            yield kind, written(path, lambda file, data=data: file.write_bytes(data))


def _own(figure: Figure, path: Path, made: dict[str, Path]) -> Path:
    """The file of the plot's own name in the run's folder."""
    kind = path.suffix.removeprefix(".")
    if kind in made:
        return written(path, lambda file: shutil.copyfile(made[kind], file))
    return written(path, lambda file: figure.savefig(file, format=kind, dpi=DPI))


def _standalone(svg: str, name: str, alt: str) -> str:
    """An SVG that can stand alone or within a page: no prologue, ids of its own, a text for readers."""
    svg = _CONTROL.sub(" ", svg[svg.index("<svg ") :])
    svg = svg.replace(_EVERYTHING, "", 1)  # a style there would be one of the whole page
    svg = _IDS.sub(lambda found: f"{found[0]}{name}-", svg)
    own = f'<svg role="img" aria-label={quoteattr(plain(alt))} style="{_INHERITED}" '
    return svg.replace("<svg ", own, 1)


def _remove(name: str, store: Store) -> None:
    stem = PurePath(name).stem
    names = [f"{FOLDER}/{stem}{suffix}.{kind}" for suffix in WIDTHS for kind in KINDS]
    for path in (store.path / each for each in (name, *names)):
        with refused_as_sentence(path):
            path.unlink(missing_ok=True)  # of an earlier state of the run
