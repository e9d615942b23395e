"""Text broken into lines by its width as drawn, so that nothing of it is cut off or drawn over."""

from __future__ import annotations

from functools import lru_cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from dpbench.report import escape

_PER_POINT = 1.08 / 72  # inches; at few dots per inch, letters are rounded up to whole pixels


def wrapped(text: str, inches: float, size: float) -> str:
    """Break lines longer than `inches` at a space, or within a word that is too long for a line of its own.

    Args:
        text: as it is to be read; its own line breaks stay.
        inches: the room there is.
        size: of the font, in points.

    Example:
        >>> wrapped("a word and another", 0.8, 9).split(chr(10))
        ['a word and', 'another']
    """
    lines = []
    for line in text.split("\n"):
        done = ""
        for word in line.split(" "):
            longer = f"{done} {word}" if done else word
            if done and width(longer, size) > inches:
                lines.append(done)
                longer = word
            while width(longer, size) > inches and len(longer) > 1:
                fits = max((i for i in range(1, len(longer)) if width(longer[:i], size) <= inches), default=1)
                lines.append(longer[:fits])
                longer = longer[fits:]
            done = longer
        lines.append(done)
    return "\n".join(lines)


@lru_cache(maxsize=4096)
def width(text: str, size: float) -> float:
    """Width in inches of the longest line of `text` as drawn in Matplotlib's font of `size` points."""
    font = FontProperties(size=size)
    return max(
        text_to_path.get_text_width_height_descent(escape.plain(line), font, False)[0] * _PER_POINT
        for line in text.split("\n")
    )
