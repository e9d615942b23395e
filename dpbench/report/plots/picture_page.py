"""How many pictures one page has room for, how large they are, and which are shown where there are more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from dpbench.report.plots.wrap import width as width_of
from dpbench.report.plots.wrap import wrap

PAGE = (6.5, 9.0)
"""Inches between the margins of a page, A4 or letter."""
LEAST_WIDTH = 4
"""Inches: a page with a single column is as wide, for its title."""
GAP_X, GAP_Y = 0.08, 0.17
"""Inches between two pictures; above one there is its caption."""
LINE = 0.12
"""Inches from one line of small text to the next."""
SMALL = 7
"""Points: the font of captions and of the names of rows."""

_LEAST, _MOST = 0.7, 1.25  # side of one picture, inches
_NAME, _LEAST_NAME = (
    0.28,
    1.1,
)  # for the names of rows at most: share of the width, and inches if that is less
_NAME_LINES = 9
_FLOORS = 2
T = TypeVar("T")


@dataclass(frozen=True)
class Page:
    """The measures of a page of pictures, in inches.

    Attributes:
        width: of the whole.
        left: where pictures begin; names of rows end a little before.
        top: of the first row of pictures; above it are captions.
        columns: how many there are.
        rows: how many there are, the originals among them.
        side: of one picture.
        pitch: from the top of a row to the top of the next.
    """

    width: float
    left: float
    top: float
    columns: int
    rows: int
    side: float
    pitch: float

    @property
    def height(self) -> float:
        """From the captions of the first row to the end of the last."""
        return self.top + self.rows * self.pitch

    def corner(self, column: int, row: int) -> tuple[float, float]:
        """Left and upper edge of a picture."""
        return self.left + column * (self.side + GAP_X), self.top + row * self.pitch


def page(names: Sequence[str], columns: int, captions: int, width: float, height: float) -> Page:
    """Lay out a page: pictures as large as they can be with all of them on it, or small with as many as fit.

    Args:
        names: of all rows, wrapped.
        columns: as many as there could be.
        captions: lines above a picture of the first row.
        width: the room there is.
        height: likewise.
    """
    left = 0.2 + max(width_of(name, SMALL) for name in names)
    top = 0.06 + captions * LINE
    text = LINE * max(1 + name.count("\n") for name in names)

    def side_of(columns: int, rows: int) -> float:
        high = (height - top) / rows - GAP_Y
        return min(_MOST, (width - left) / columns - GAP_X, high if high >= text else 0)

    fitting = int((width - left) / (_LEAST + GAP_X)), int((height - top) / (max(_LEAST, text) + GAP_Y))
    columns, rows = max(min(columns, fitting[0]), 1), max(min(len(names), fitting[1]), 2)
    side = max(side_of(columns, rows), _LEAST)
    whole = min(width, max(left + columns * (side + GAP_X), LEAST_WIDTH))
    return Page(whole, left, top, columns, rows, side, max(side, text) + GAP_Y)


def name_of(text: str, width: float) -> str:
    """A row's name in lines that leave room for pictures on a page of that width."""
    lines = wrap(text, max(_NAME * width, _LEAST_NAME), SMALL).split("\n")
    return "\n".join(lines if len(lines) <= _NAME_LINES else [*lines[: _NAME_LINES - 1], "..."])


def chosen(floors: Sequence[T], undefended: Sequence[T], defended: Sequence[T], room: int) -> list[T]:
    """Which rows are shown where there is no room for all, in their order.

    Two floors, at least a third of what is left for attacks without a defence, and the rest for defences; of
    each kind the first and, where there is room, the last and others evenly between them.

    Example:
        >>> chosen(["mean", "noise", "start"], ["a", "b"], ["eps 1", "eps 2", "eps 4", "eps 8", "eps 16"], 7)
        ['mean', 'start', 'a', 'b', 'eps 1', 'eps 4', 'eps 16']
    """
    left = room - min(len(floors), _FLOORS, room // 3)
    bare = evenly(undefended, max(-(-left // 3), left - len(defended)))
    guarded = evenly(defended, left - len(bare))
    return [*evenly(floors, room - len(bare) - len(guarded)), *bare, *guarded]


def evenly(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, the first and the last among them; all where there are no more.

    Example:
        >>> evenly("abcdefg", 3), evenly("ab", 3)
        (['a', 'd', 'g'], ['a', 'b'])
    """
    if count >= len(items):
        return list(items)
    if count < 2:
        return list(items[: max(count, 0)])
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]
