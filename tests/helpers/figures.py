"""What every figure has to keep: nothing outside, no text too small, no text on another text."""

from __future__ import annotations

import io

import matplotlib
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from dpbench.report.plots.style import STYLE


def texts(figure: Figure) -> list[Text]:
    """All texts that are seen."""
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t.get_figure()]


def assert_readable(figure: Figure, least: float = 6.0) -> None:
    """The figure has a sound layout at its size."""
    with matplotlib.rc_context(STYLE):  # how many ticks there are, and those made late, depend on it
        figure.savefig(io.BytesIO(), format="png")
        _check(figure, least)


def _check(figure: Figure, least: float) -> None:
    page, boxes = figure.bbox, []
    for text in _drawn(figure):
        assert text.get_fontsize() >= least, text.get_text()
        box = Text.get_window_extent(text)
        assert box.x0 >= page.x0 - 1, text.get_text()
        assert box.y0 >= page.y0 - 1, text.get_text()
        assert box.x1 <= page.x1 + 1, text.get_text()
        assert box.y1 <= page.y1 + 1, text.get_text()
        boxes.append((_tight(box), text.get_text()))
    for i, (box, said) in enumerate(boxes):
        for other, more in boxes[:i]:
            assert not box.overlaps(other), f"{said!r} stands on {more!r}"
    panels = [axis.get_window_extent() for axis in figure.axes if axis.axison]
    assert all(panel.width > 60 and panel.height > 60 for panel in panels)


def _tight(box: Bbox) -> Bbox:
    """Without the room above and below letters that have no ascenders."""
    return Bbox([[box.x0 + 0.5, box.y0 + 1], [box.x1 - 0.5, box.y1 - 1]]) if box.height > 3 else box


def _drawn(figure: Figure) -> list[Text]:
    """Texts without the names of ticks outside their panel, which Matplotlib keeps and never draws."""
    hidden: set[int] = set()
    for axis in [*figure.axes, *(child for parent in figure.axes for child in parent.child_axes)]:
        for scale in (axis.xaxis, axis.yaxis):
            seen = {id(t) for tick in scale._update_ticks() for t in (tick.label1, tick.label2)}
            every = [*scale.majorTicks, *scale.minorTicks]
            hidden |= {id(t) for tick in every for t in (tick.label1, tick.label2)} - seen
            if not axis.axison:
                hidden |= seen
    return [text for text in texts(figure) if id(text) not in hidden]
