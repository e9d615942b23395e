"""Scales and titles of the searches' plot, whatever was searched."""

import numpy as np
import pytest

from dpbench.report.plots.search import search
from dpbench.store import Store
from dpbench.store.schema import frame
from tests.helpers.figures import assert_readable


def drawn(make_rows, tmp_path, histories, **more):
    """The plot of one cell for each defence and its history."""
    store, rows = Store(tmp_path), []
    for i, (defence, history) in enumerate(histories):
        own = {key: values[i] for key, values in more.items()}
        made = make_rows(
            "dlg", defence, 1, 20, 0.1, key=f"{defence}{i}", iterations=3, max_iterations=3, **own
        )
        store.write(f"{defence}{i}", made, history=list(history))
        rows += made
    return search(frame(rows), store)


@pytest.mark.parametrize("start", [1.5, np.inf])
@pytest.mark.parametrize(("end", "scale"), [(0.7, "linear"), (0.001, "log")])
def test_a_scale_has_more_than_one_tick(make_rows, tmp_path, start, end, scale):
    """A short search passes one power of ten; one that began with infinity can end far below."""
    figure = drawn(make_rows, tmp_path, [("none", [start, 1.4, end])])
    (axis,) = figure.axes
    low, high = axis.get_ylim()
    assert axis.get_yscale() == scale
    assert sum(low <= tick <= high for tick in axis.get_yticks()) > 1
    assert all(tick == round(tick) for tick in axis.get_xticks())  # there is no half an iteration
    assert_readable(figure)


def test_budgets_that_are_left_out_are_told_in_their_order(make_rows, tmp_path, dp):
    budgets = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0]
    more = {key: [value] * len(budgets) for key, value in dp.items() if key != "eps"} | {"eps": budgets}
    figure = drawn(make_rows, tmp_path, [("dp", [1.0, 0.5, 0.1])] * len(budgets), **more)
    assert figure.get_suptitle() == "without dp ε=2, dp ε=8, dp ε=64"
