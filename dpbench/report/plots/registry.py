"""Plots by the name of their file: ours, and those of third parties."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import update_wrapper
from pathlib import PurePath
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from dpbench.protocol import Registry
from dpbench.report.plots.style import COLUMN, FULL, STYLE
from dpbench.store import Store

Draw = Callable[..., Figure | None]
"""(per-image results with the columns of `dpbench.store.columns`, the run's cells) -> the figure; None where
there is nothing to draw. One that has a parameter `width`, in inches, lays itself out for that width."""
Alt = str | Callable[[pd.DataFrame, Store | None], str]
"""What a figure shows, in words and numbers, for who cannot see it."""

_LEAST_HEIGHT = 2.2  # of a narrow figure that does not lay itself out, inches


class Plot:
    """A function that draws, with what is said of the figure. It can be called as the function itself.

    Args:
        draw: the function.
        name: of its file, `leakage.png` say.
        title: one line, what is shown.
        alt: see `Alt`; the title by default.
    """

    def __init__(self, draw: Draw, name: str, title: str = "", alt: Alt = "") -> None:
        update_wrapper(self, draw)
        self._draw, self.name, self._alt = draw, name, alt
        self.title = title or PurePath(name).stem.replace("-", " ").capitalize()
        self._lays_out = "width" in inspect.signature(draw).parameters

    def __call__(
        self, table: pd.DataFrame, store: Store | None = None, width: float | None = None
    ) -> Figure | None:
        """The figure; None where there is nothing to draw.

        Args:
            table: per-image results, columns of `dpbench.store.columns`.
            store: the run's cells.
            width: of the figure, in inches. By default `FULL`, or as wide as the function makes it if it has
                no parameter `width`. Such a figure is made narrower in its own proportions, text as it is.

        Raises:
            TypeError: where the function returns anything else.
        """
        table = table.copy()  # whatever a function does to it, others read the same table after it
        with matplotlib.rc_context(STYLE):
            asked = {"width": width or FULL} if self._lays_out else {}
            figure = self._draw(table, store, **asked)
        if figure is not None and not isinstance(figure, Figure):
            raise TypeError(f"A plot must return a Matplotlib figure or None, not {type(figure).__name__}.")
        if asked or figure is None or width is None:
            return figure
        if width < figure.get_figwidth():
            height = figure.get_figheight() * width / figure.get_figwidth()
            figure.set_size_inches(width, max(height, _LEAST_HEIGHT))
        return figure

    def alt(self, table: pd.DataFrame, store: Store | None = None) -> str:
        """What the figure of this table shows, in words and numbers."""
        said = self._alt(table.copy(), store) if callable(self._alt) else self._alt
        return said or self.title


plots: Registry[Any] = Registry("plot", group="dpbench.plots")


def plot(name: str, *, title: str = "", alt: Alt = "") -> Callable[[Draw], Plot]:
    """Function decorator that registers a plot.

    Args:
        name: of its file in the run's folder, `leakage.png` say; its ending decides the format there.
        title: one line, what is shown; made of the name if not given.
        alt: what the figure shows, in words; a function of the table and the store can say it in numbers.

    Raises:
        TypeError: for a name that is no word.
    """
    plots.check_word(name, "plot")

    def register(draw: Draw) -> Plot:
        made = Plot(draw, name, title, alt)
        plots.add(name, made)
        return made

    return register


def as_plot(draw: Draw, name: str) -> Plot:
    """A registered function as a plot; one that came by an entry point is a plot without words."""
    return draw if isinstance(draw, Plot) else Plot(draw, name)


WIDTHS = {"": FULL, "-column": COLUMN}
"""What the name of a file ends in for each width, before its ending."""
