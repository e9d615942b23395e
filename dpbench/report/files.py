"""Tables and pictures as files in a run's folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dpbench.atomic import replacing
from dpbench.report import plots
from dpbench.report.escape import markdown
from dpbench.report.sentence import sentence
from dpbench.report.tables import to_markdown, to_tex
from dpbench.store import Store


def write(store: Store, table: pd.DataFrame) -> list[Path]:
    """Write `table.md`, `table.tex`, `reconstructions.png` and `leakage.png` into a run's folder, atomically.

    Args:
        store: the run.
        table: its per-image results with the floors filled in.

    Returns:
        The files written; a picture with nothing to show is not among them.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    texts = {
        "table.md": f"{to_markdown(table)}\n{markdown(sentence(table))}\n",
        "table.tex": to_tex(table),
    }
    written = []
    for name, text in texts.items():
        with replacing(store.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written.append(store.path / name)
    figures = {
        "reconstructions.png": plots.reconstructions(table, store),
        "leakage.png": plots.leakage(table),
    }
    for name, figure in figures.items():
        if figure is not None:
            plots.save(figure, store.path / name)
            written.append(store.path / name)
    return written
