"""Names at lines and beside points."""

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from dpbench.report.plots.labels import Name, at_ends, beside, placed, settle, spread
from dpbench.report.plots.style import STYLE
from tests.helpers.figures import assert_readable


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context(STYLE):
        yield


@given(st.lists(st.floats(-5, 15), min_size=1, max_size=8), st.floats(0.2, 1.2))
def test_boxes_never_overlap_and_stay_inside(wanted, high):
    wanted = np.sort(wanted)
    found = placed(wanted, np.full(len(wanted), high), 0.0, 10.0)
    assert np.all(np.diff(found) >= high - 1e-9)
    assert found[0] >= high / 2 - 1e-9
    assert found[-1] <= 10 - high / 2 + 1e-9
    if np.all(np.diff(wanted) >= high) and wanted[0] >= high and wanted[-1] <= 10 - high:
        assert found == pytest.approx(wanted)


def test_where_there_is_no_room_for_all_they_begin_at_the_top():
    found = placed(np.zeros(5), np.ones(5), 0.0, 3.0)
    assert found.tolist() == [-1.5, -0.5, 0.5, 1.5, 2.5]


def test_names_stand_right_of_the_panel_in_the_order_of_their_lines():
    figure = Figure(figsize=(3.3, 2), layout="constrained")
    axis = figure.subplots()
    for i in range(5):
        axis.plot([0, 1], [0, 1 + i / 1000])
    at_ends(axis, [Name(f"line {i} of a long name", 1, 1 + i / 1000) for i in range(5)], 0.7)
    spread(figure)
    assert_readable(figure)
    heights = [text.get_window_extent().y0 for text in axis.texts]
    assert heights == sorted(heights)
    assert all(text.get_position()[0] > 1 for text in axis.texts)


def test_a_point_without_room_has_no_name():
    figure = Figure(figsize=(3, 2), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], "o")
    axis.margins(0.3)
    settle(figure)
    beside(axis, [Name("free", 0, 0, bar=(-0.1, 0.1)), *(Name(f"crowded {i}", 1, 1) for i in range(9))])
    said = [text.get_text() for text in axis.texts]
    assert said[0] == "free"
    assert 1 < len(said) < 10
    assert_readable(figure)
    assert axis.texts[0].xy == (0.1, 0)
