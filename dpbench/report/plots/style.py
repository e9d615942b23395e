"""How all plots look: widths, sizes of the font, colours.

Figures are opaque white with dark text, so that they read the same on paper, on a light and on a dark page.
"""

from __future__ import annotations

from typing import Any

from matplotlib.colors import to_rgb

FULL, COLUMN = 6.5, 3.3
"""Widths in inches: of a page's text, and of one column of two."""
TEXT, SMALL = 8, 7
"""Sizes of the font in points: headings and axes; ticks, labels and legends."""
INK, GREY, LIGHT = "0.1", "0.4", "0.75"
"""Text; lesser text and lines (contrast 5.7 on white); what only guides the eye."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
"""Okabe and Ito's: blue, vermilion, green, purple, orange, which colour-blind readers can tell apart."""
MARKERS = "os^Dv"
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
MOST = len(COLOURS)
"""Curves in one panel at most."""

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib: text is as wide on every machine
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.labelsize": TEXT,
    "figure.titlesize": TEXT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.bbox": None,
    "text.usetex": False,
}


def text_colour(colour: str) -> tuple[float, float, float]:
    """`colour` as dark as text has to be on white (contrast of at least 4.5, WCAG AA)."""
    rgb = to_rgb(colour)
    while _luminance(rgb) > 0.18:
        rgb = tuple(0.95 * part for part in rgb)
    return rgb


def _luminance(rgb: tuple[float, ...]) -> float:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
