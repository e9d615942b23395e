"""Text broken into lines by its width as drawn, so that nothing of it is cut off or drawn over."""

from __future__ import annotations

from functools import lru_cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from dpbench.report import escape

_PER_POINT = 1.08 / 72  # inches; at few dots per inch, letters are rounded up to whole pixels


def wrap(text: str, inches: float, size: float) -> str:
    """Break lines longer than `inches` at a space, or within a word that is too long for a line of its own.

    Args:
        text: as it is to be read; its own line breaks stay.
        inches: the room there is.
        size: of the font, in points.

    Example:
        >>> wrap("a word and another", 0.8, 9).split(chr(10))
        ['a word and', 'another']
    """
    return "\n".join(part for line in text.split("\n") for part in _lines(line, inches, size))


def _lines(line: str, inches: float, size: float) -> list[str]:
    done, used, space = [""], 0.0, _advance(" ", size)
    for word in line.split(" "):
        length = sum(_advance(letter, size) for letter in word)
        if done[-1] and used + space + length <= inches:
            done[-1] += f" {word}"
            used += space + length
            continue
        if done[-1]:
            done.append("")
        used = 0.0
        for letter in word:
            if done[-1] and used + _advance(letter, size) > inches:
                done.append("")
                used = 0.0
            done[-1] += letter
            used += _advance(letter, size)
    return done


def width(text: str, size: float) -> float:
    """Width in inches of the longest line of `text` as drawn in Matplotlib's font of `size` points."""
    return max(sum(_advance(letter, size) for letter in line) for line in text.split("\n"))


@lru_cache(maxsize=4096)
def _advance(letter: str, size: float) -> float:
    """Width of one letter between two others; pairs that are drawn closer only make lines shorter."""
    font = FontProperties(size=size)
    pair, alone = (
        text_to_path.get_text_width_height_descent(text, font, False)[0]
        for text in (f"x{escape.plain(letter)}x", "xx")
    )
    return (pair - alone) * _PER_POINT
