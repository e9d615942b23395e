"""The leakage plot: panels, axes and points."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from dpbench.report.leakage import leakage
from dpbench.schema import frame


def drawn(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def line(axis, label):
    return next(line for line in axis.lines if line.get_label() == label)


@pytest.mark.parametrize(("lpips_there", "columns"), [(True, 2), (False, 1)])
def test_a_panel_per_batch_size_and_metric(make_run, lpips_there, columns):
    figure = leakage(make_run(lpips_there=lpips_there))
    assert len(figure.axes) == 2 * columns
    assert ("LPIPS is empty" in figure.get_suptitle()) is not lpips_there
    assert (drawn(figure) != 255).any(axis=-1).mean() > 0.02


def test_epsilon_is_logarithmic_and_no_defence_stands_right(make_run):
    axis = leakage(make_run()).axes[0]
    labels = [text.get_text() for text in axis.get_xticklabels()]
    assert labels == ["ε=1", "ε=1000", "no defence"]
    places = axis.get_xticks()
    assert places[1] - places[0] == pytest.approx(3)
    assert places[2] > places[1]


def test_medians_points_and_floors_are_the_data(make_run):
    table = make_run()
    axis = leakage(table).axes[2]  # batch of 4, PSNR
    part = table[table["batch_size"] == 4]
    floor = part.loc[part["attack"] == "floor:mean-image", "psnr"]
    assert set(line(axis, "floor:mean-image").get_ydata()) == {floor.median()}
    medians = line(axis, "inverting-gradients").get_ydata()
    attack = part[part["attack"] == "inverting-gradients"]
    expected = [attack.loc[attack["eps"] == eps, "psnr"].median() for eps in (1, 1000)]
    expected.append(attack.loc[attack["defense"] == "none", "psnr"].median())
    assert list(medians) == pytest.approx(expected)
    points = next(found for found in axis.lines if len(found.get_ydata()) == 12)
    assert sorted(points.get_ydata()) == pytest.approx(sorted(attack["psnr"]))


def test_without_epsilon_the_defences_are_the_axis(make_rows):
    rows = make_rows("dlg", "none", 1, 20, 0.1)
    rows += make_rows("dlg", "prune", 1, 15, 0.1, prune_ratio=0.9) + make_rows("dlg", "clip", 1, 19, 0.1)
    axis = leakage(frame(rows)).axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["no defence", "clip", "prune\nratio=0.9"]


def test_release_scope_uses_the_release_budget(make_rows):
    rows = make_rows("dlg", "none", 1, 20, 0.1)
    rows += make_rows("dlg", "dp", 1, 9, 0.4, eps_release=3.0, accountant="analytic")
    figure = leakage(frame(rows))
    assert figure.axes[0].get_xticklabels()[0].get_text() == "ε=3"
    assert "budget of the attacked gradient" in figure.get_suptitle()


def test_odd_values_do_not_break_it(make_rows):
    rows = make_rows("dlg$x", "none", 2, 20, 0.1) + make_rows("_hidden", "dp", 2, 9, 0.4, eps=float("inf"))
    rows[0]["psnr"] = float("inf")
    rows += make_rows("floor:mean-image", "none", 2, 11, 0.5)
    figure = leakage(frame(rows))
    drawn(figure)
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {entry.strip() for entry in entries} == {"dlg\\$x", "_hidden", "floor:mean-image"}


def test_nothing_to_show(make_run, make_rows):
    table = make_run()
    assert leakage(table[table["attack"].str.startswith("floor:")]) is None
    assert leakage(frame(make_rows("dlg", "none", 1, 0, 0, status="failed"))) is None
    assert leakage(frame([])) is None


def test_chained_dp_is_a_series_of_its_own(make_run, make_rows, dp):
    more = frame(make_rows("inverting-gradients", "dp+prune", 1, 9, 0.4, **dp, prune_ratio=0.9))
    figure = leakage(pd.concat([make_run(), more], ignore_index=True))
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "inverting-gradients, dp+prune ratio=0.9" in entries
