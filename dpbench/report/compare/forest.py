"""The picture of a comparison: every paired difference with its interval."""

from __future__ import annotations

import io
import math

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpbench.report import escape
from dpbench.report.compare.comparison import Comparison
from dpbench.report.compare.differences import Difference
from dpbench.report.compare.words import Said
from dpbench.report.plots.colours import OKABE_ITO
from dpbench.report.plots.wrap import wrap

SHOWN = 30
"""Settings in the picture."""
_PANELS = (("PSNR, dB", ("psnr",)), ("LPIPS", ("lpips",)), ("share right", ("identified", "success")))
_SMALL, _WIDE, _NAMES, _LINE = 8, 6.5, 2.1, 0.16  # font size, points; widths and the height of a line, inches
_MARKERS = "osD^v*"


def forest(comparison: Comparison, said: Said) -> Figure | None:
    """Draw the differences, a row for each setting, a panel for each measure.

    Args:
        comparison: the figures.
        said: its words.

    Returns:
        The figure; None where no image was attacked in two runs.
    """
    found = comparison.differences()
    panels = [panel for panel in _PANELS if any(each.measure in panel[1] for _, _, each in found)]
    if not panels:
        return None
    names = [escape.matplotlib(wrap(block.title, _NAMES, _SMALL)) for block in said.blocks[:SHOWN]]
    others = [run.letter for run in comparison.runs[1:]]
    heights = [_LINE * max(name.count("\n") + 1, len(others)) + 0.08 for name in names]
    figure = Figure(figsize=(_WIDE, sum(heights) + 1.1), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    places = [-sum(heights[:i]) - height / 2 for i, height in enumerate(heights)]
    for axis, (title, measures) in zip(axes, panels, strict=True):
        for place, setting in zip(places, comparison.settings, strict=False):
            for line in setting.lines[1:]:
                i = others.index(line.run)
                each = next((d for m in measures if (d := line.paired.differences.get(m))), None)
                if each is not None:
                    _bar(axis, each, place - _LINE * (i - (len(others) - 1) / 2), i)
        _dress(axis, title)
    axes[0].set_yticks(places, names, fontsize=_SMALL)
    axes[0].set_ylim(-sum(heights), 0)
    first = comparison.runs[0].letter
    more = f"; {SHOWN} of {len(said.blocks)} settings" if len(said.blocks) > SHOWN else ""
    pair = f", {others[0]} - {first}" if len(others) == 1 else f" from {first}"
    means = [each for _, _, each in found if math.isnan(each.low)]
    hollow = "; hollow: too few batches for one" if means else ""
    heading = f"Mean paired difference{pair}, with its 95 % interval{hollow}{more}"
    figure.suptitle(escape.matplotlib(heading), fontsize=_SMALL + 1)
    if len(others) > 1:
        drawn = {line.run for _, line, _ in found}
        handles = [
            axes[0].plot([], [], linestyle="", label=name, **_style(i))[0]
            for i, name in enumerate(others)
            if name in drawn
        ]
        figure.legend(handles=handles, fontsize=_SMALL, loc="outside lower center", ncols=6)
    return figure


def _style(i: int) -> dict[str, object]:
    turn = i // len(OKABE_ITO)  # a colour comes again with another marker
    marker = _MARKERS[(i + turn) % len(_MARKERS)]
    return {"color": OKABE_ITO[i % len(OKABE_ITO)], "marker": marker, "markersize": 4}


def _bar(axis: Axes, each: Difference, place: float, i: int) -> None:
    if math.isnan(each.low):  # too few batches for an interval: the mean alone, hollow
        axis.plot([each.value], [place], linestyle="", fillstyle="none", **_style(i))
        return
    reach = [[max(each.value - each.low, 0)], [max(each.high - each.value, 0)]]
    axis.errorbar([each.value], [place], xerr=reach, linestyle="", elinewidth=1.2, capsize=2, **_style(i))


def _dress(axis: Axes, title: str) -> None:
    axis.axvline(0, color="0.5", linewidth=0.9, zorder=0)
    axis.set_xlabel(title, fontsize=_SMALL)
    axis.tick_params(labelsize=_SMALL)
    axis.tick_params(axis="y", length=0)
    axis.locator_params(axis="x", nbins=4)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element to stand within a page, the same on every call."""
    file = io.StringIO()
    with rc_context({"svg.hashsalt": "dpbench"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
