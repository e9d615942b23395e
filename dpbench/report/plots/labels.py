"""Names at the lines: they stand right of a panel, each beside its line's end, and never on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from scipy.optimize import isotonic_regression

from dpbench.report import escape
from dpbench.report.plots.style import INK, SMALL, text_colour
from dpbench.report.plots.wrap import width as width_of
from dpbench.report.plots.wrap import wrap

_RIGHT = 1.03  # where the names begin, of the panel's width
_BETWEEN = 1.5  # points
_DOT = 3.5  # from the middle of a point to its name, points
_SIDES = (
    (1, 0, "left", "center"),
    (-1, 0, "right", "center"),
    (0, 1, "center", "bottom"),
    (0, -1, "center", "top"),
    (1, 1, "left", "bottom"),
    (-1, 1, "right", "bottom"),
    (1, -1, "left", "top"),
    (-1, -1, "right", "top"),
)


@dataclass(frozen=True)
class Name:
    """A name for a line.

    Attributes:
        text: as it is to be read.
        x: where the line ends, in data.
        y: likewise.
        colour: of the line; its name is as dark as text has to be.
        bar: of a point, from where to where its error bar goes along x, in data.
    """

    text: str
    x: float
    y: float
    colour: str = INK
    bar: tuple[float, float] | None = None


def at_ends(axis: Axes, names: Sequence[Name], inches: float) -> None:
    """Put names right of a panel, broken into lines of at most `inches`; `spread` sets them apart."""
    for name in names:
        colour = text_colour(name.colour)
        written = axis.annotate(
            escape.matplotlib(wrap(name.text, inches, SMALL)),
            xy=(name.x, name.y),
            xytext=(_RIGHT, 0.5),
            textcoords="axes fraction",
            va="center",
            fontsize=SMALL,
            color=colour,
            linespacing=1.0,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "linewidth": 0.5,
                "color": colour,
                "shrinkA": 1,
                "shrinkB": 2,
                "relpos": (0, 0.5),
            },
        )
        written.set_gid("name")


def fit(texts: Sequence[str], inches: float, high: float) -> bool:
    """Whether names right of a panel, `inches` wide, stand beside their lines: no higher than the panel."""
    lines = [wrap(text, inches, SMALL).count("\n") + 1 for text in texts]
    return sum(1.2 * SMALL * count + _BETWEEN for count in lines) / 72 <= high


def below(figure: Figure, lines: dict[str, dict[str, Any]], width: float) -> None:
    """A legend below the panels instead, for which the figure grows.

    Args:
        figure: not settled yet.
        lines: name to the style of its line.
        width: of the figure, inches.
    """
    texts = [wrap(name, width - 0.8, SMALL) for name in lines]
    columns = max(1, int((width - 0.2) / (max(width_of(text, SMALL) for text in texts) + 0.6)))
    rows = -(-len(texts) // columns)
    high = 0.14 * rows * max(text.count("\n") + 1 for text in texts) + 0.1
    figure.set_figheight(figure.get_figheight() + high)
    figure.legend(
        [Line2D([], [], **style) for style in lines.values()],
        [escape.matplotlib(text) for text in texts],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handlelength=2.5,
    )


def settle(figure: Figure) -> None:
    """Run the figure's layout once and for all: every later drawing uses what was found."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        with rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
            # "none" would leave a placeholder, for which every file is drawn once more
            figure.set_layout_engine(None)


def spread(figure: Figure) -> None:
    """Settle the figure, and move names that `at_ends` wrote as little as they have to be."""
    settle(figure)
    for axis in figure.axes:
        names = [text for text in axis.texts if isinstance(text, Annotation) and text.get_gid() == "name"]
        if names:
            _set_apart(axis, names, figure)


def beside(axis: Axes, names: Sequence[Name]) -> None:
    """Write names beside points of a settled figure; one that has no room beside its point is left out."""
    panel, dot = axis.get_window_extent(), _DOT * axis.figure.dpi / 72
    taken = [_bounds(axis, name, dot) for name in names]
    for name, own in zip(names, list(taken), strict=True):
        ends = name.bar or (name.x, name.x)
        for x, y, ha, va in _SIDES:
            written = axis.annotate(
                escape.matplotlib(name.text),
                xy=((ends[0], name.x, ends[1])[x + 1], name.y),
                xytext=(_DOT * x, _DOT * y),
                textcoords="offset points",
                ha=ha,
                va=va,
                fontsize=SMALL,
                color=text_colour(name.colour),
            )
            box = written.get_window_extent()
            inside = panel.x0 <= box.x0 and box.x1 <= panel.x1 and panel.y0 <= box.y0 and box.y1 <= panel.y1
            if inside and not any(box.overlaps(other) for other in taken if other is not own):
                taken.append(box)
                break
            written.remove()


def _bounds(axis: Axes, name: Name, dot: float) -> Bbox:
    """What a point and its error bar cover, in pixels."""
    (left, y), (right, _) = (axis.transData.transform((x, name.y)) for x in name.bar or (name.x, name.x))
    dot *= 0.8  # a name begins beside its own point, not on it
    return Bbox([[left - dot, y - dot], [right + dot, y + dot]])


def _set_apart(axis: Axes, names: list[Annotation], figure: Figure) -> None:
    panel = axis.get_window_extent()
    wanted = np.array([axis.transData.transform(name.xy)[1] for name in names])
    wanted = np.nan_to_num(np.clip(wanted, panel.y0, panel.y1), nan=panel.y0)
    # without the line to its end, which is part of an annotation's own extent
    high = np.array([Text.get_window_extent(name).height for name in names]) + _BETWEEN * figure.dpi / 72
    order = np.argsort(wanted, kind="stable")
    middle = placed(wanted[order], high[order], panel.y0, panel.y1)
    for i, y in zip(order, middle, strict=True):
        names[i].set_position((_RIGHT, (y - panel.y0) / panel.height))


def placed(wanted: np.ndarray, high: np.ndarray, low: float, top: float) -> np.ndarray:
    """Middles of boxes that do not overlap, as near as possible to where they are wanted.

    Least squares: boxes that touch move as one (isotonic regression). Where there is no room for all between
    `low` and `top` they begin at the top and go on below.

    Args:
        wanted: middles [n], ascending.
        high: of each box.
        low: where the lowest box may begin.
        top: where the highest box may end.

    Example:
        >>> placed(np.array([1.0, 1.2, 5.0]), np.ones(3), 0.0, 6.0).round(2).tolist()
        [0.6, 1.6, 5.0]
    """
    below = np.concatenate([[0.0], np.cumsum((high[:-1] + high[1:]) / 2)])
    found = isotonic_regression(wanted - below).x
    lowest, highest = low + high[0] / 2, top - high[-1] / 2 - below[-1]
    return np.minimum(np.maximum(found, lowest), highest) + below
