"""Names and numbers in the columns of a terminal: names are broken into lines, numbers never are.

Where the columns do not fit beside each other, they go on below, with the names repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

GAP = 2
"""Between two columns."""
LEAST_NAME, LEAST_CELL = 20, 14
"""The room that names keep beside numbers unless they are shorter, and numbers in the narrowest terminal."""
_AFTER = "-+/_:,;=.)]"
"""What a line may end with, beside a space."""


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        name: what it is about.
        cells: one text for each column; a line without any is a heading and may be as wide as the table.
        indent: of the name, in characters.
        style: of the text, in rich's words.
    """

    name: str
    cells: tuple[str, ...] = ()
    indent: int = 0
    style: str = ""


def lay_out(titles: Sequence[str], lines: Sequence[Line], width: int) -> list[list[Text]]:
    """Lay out a table.

    Args:
        titles: of the columns; where they are wider than what is below them, they are broken into lines.
        lines: in their order; the cells of each are as many as the titles, or none.
        width: of the terminal, in characters.

    Returns:
        One list of lines of text for each part of the table; all but the last go on in the next. Only cells
        that are wider than the terminal are broken into lines.

    Example:
        >>> for line in lay_out(["PSNR max", "found"], [Line("an attack", ("12.5", "3/20"))], 40)[0]:
        ...     print(line)
                   PSNR
                    max  found
        an attack  12.5   3/20
    """
    longest = max((cell_len(line.name) + line.indent for line in lines if line.cells), default=0)
    beside = width - min(longest, LEAST_NAME)
    widths = [
        max([*map(cell_len, (line.cells[i] for line in lines if line.cells)), *map(cell_len, title.split())])
        for i, title in enumerate(titles)
    ]
    widths = [min(each, max(beside - GAP, LEAST_CELL)) for each in widths]
    parts = []
    for columns in _parts(widths, beside):
        room = width - sum(widths[i] + GAP for i in columns)
        name = min(longest, max(room, LEAST_NAME))
        text = []
        for line in (Line("", tuple(titles)), *lines):
            cells = [(line.cells[i], widths[i]) for i in columns] if line.cells else []
            row = _row(line, cells, name if line.cells else width)
            text += [Text(each, style=line.style) for each in row]
        parts.append(text)
    return parts


def wrap(text: str, width: int) -> list[str]:
    """Break `text` into lines of at most `width` cells, after a space or a mark, or else within a word.

    Example:
        >>> wrap("floor:noise-gradient (T=1)", 15)
        ['floor:noise-', 'gradient (T=1)']
    """
    lines, line = [], ""
    for piece in _pieces(text):
        if line and cell_len(line + piece.rstrip(" ")) > width:
            lines.append(line.rstrip(" "))
            line = ""
        for letter in piece:
            if line and letter != " " and cell_len(line + letter) > width:
                lines.append(line)
                line = ""
            line += letter
    return [*lines, line.rstrip(" ")]


def _pieces(text: str) -> Iterator[str]:
    """Parts that a line may end after; marks within a number are none of them."""
    start = 0
    for i, letter in enumerate(text[:-1]):
        following = text[i + 1]
        if letter == " " or (letter in _AFTER and (following.isalpha() or following in "([")):
            yield text[start : i + 1]
            start = i + 1
    yield text[start:]


def _parts(widths: Sequence[int], room: int) -> Iterator[list[int]]:
    """The columns that fit beside each other; at least one in each part."""
    part: list[int] = []
    used = 0
    for i, width in enumerate(widths):
        if part and used + width + GAP > room:
            yield part
            part, used = [], 0
        part.append(i)
        used += width + GAP
    yield part


def _row(line: Line, cells: Sequence[tuple[str, int]], room: int) -> list[str]:
    """The lines of text of one line, its numbers in the last.

    Args:
        line: its name is shown.
        cells: the others that are shown, each with the width of its column.
        room: for the name.
    """
    indent = " " * line.indent
    names = [indent + part for part in wrap(line.name, max(room - line.indent, 1))]
    columns = [(wrap(cell, width), width) for cell, width in cells]
    height = max([len(names), *(len(parts) for parts, _ in columns)])
    text = []
    for i in range(height):
        row = _at(names, i, height)
        row += " " * (room - cell_len(row)) if columns else ""
        for parts, width in columns:
            part = _at(parts, i, height)
            row += " " * (GAP + width - cell_len(part)) + part
        text.append(row.rstrip(" "))
    return text


def _at(lines: Sequence[str], i: int, height: int) -> str:
    """Line `i` of `height`, the given ones being the last."""
    before = height - len(lines)
    return lines[i - before] if i >= before else ""
