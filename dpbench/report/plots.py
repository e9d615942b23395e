"""Pictures of results: what was rebuilt, and how much leaks at which budget."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dpbench.atomic import replacing
from dpbench.report.leakage import leakage
from dpbench.report.pictures import reconstructions

__all__ = ["leakage", "reconstructions", "save"]

_MAX_SIDE = 12_000
"""Pixels: beyond this many viewers, and Agg at 2^16, refuse a picture."""


def save(figure: Figure, path: Path, dpi: float = 150) -> None:
    """Write a figure as PNG, atomically; a very large one at fewer dots per inch.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    dpi = min(dpi, _MAX_SIDE / max(figure.get_size_inches()))
    FigureCanvasAgg(figure)  # a notebook's own back end stays as it is
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
