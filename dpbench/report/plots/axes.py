"""Scales whose ticks stand at the values that were tried, with as many names as there is room for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from dpbench.privacy.rounding import up, upwards
from dpbench.report.plots.style import SMALL
from dpbench.report.plots.wrap import width

_BETWEEN = 0.08  # two names, inches


def at_values(
    axis: Axes,
    values: Sequence[float],
    names: Sequence[str],
    inches: float,
    also: tuple[float, str] | None = None,
) -> None:
    """Put ticks of a logarithmic x axis at `values`; names that would touch another are left out.

    Args:
        axis: with its limits set; a secondary axis will do.
        values: ascending.
        names: of the ticks.
        inches: about how wide the panel is.
        also: a further tick and its name, which is not left out.
    """
    low, high = (math.log(end) for end in axis.get_xlim())
    given = [*zip(values, names, strict=True)]
    first = [] if also is None else [also]
    ends = [given[-1], given[0], *given[1:-1]] if len(given) > 1 else given
    kept: list[tuple[float, str]] = []
    for value, name in [*first, *ends]:
        place = (math.log(value) - low) / (high - low) * inches
        near = (
            abs(place - other) < (width(name, SMALL) + width(text, SMALL)) / 2 + _BETWEEN
            for other, text in ((((math.log(v) - low) / (high - low)) * inches, t) for v, t in kept)
        )
        if not any(near):
            kept.append((value, name))
    texts = dict(kept)
    ticks = sorted({*values, *(value for value, _ in kept)})
    axis.set_xticks(ticks, [texts.get(tick, "") for tick in ticks], linespacing=1.1)
    axis.minorticks_off()


def span(values: Sequence[float]) -> float:
    """The usual ratio of two neighbours on a logarithmic scale, at least 1.5; 3 where there is one value."""
    found = np.unique(np.asarray(values, dtype=float))
    return max(float(np.median(found[1:] / found[:-1])), 1.5) if len(found) > 1 else 3.0


def short(value: float) -> str:
    """Three digits, upwards, as a tick's name: those of noise and epsilon must not promise too much.

    Example:
        >>> short(0.00709), short(350.0), short(12345.0), short(1e6), short(3.7301)
        ('0.00709', '350', '1.24e4', '1e6', '3.74')
    """
    if not 1e-4 <= value < 1e4:
        number, power = f"{upwards(value):.2e}".split("e")
        return f"{number.rstrip('0').rstrip('.')}e{int(power)}"
    return up(value)
