"""The leakage plot: panels, axes and points."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from dpbench.report.plots.leakage import MAX_LINES, leakage
from dpbench.report.plots.style import COLUMN, FULL
from dpbench.store.schema import frame
from tests.helpers.figures import assert_readable

FLOOR = "best floor without the gradient"


def drawn(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def line(axis, series):
    """The medians of a series of points, or the line of a floor."""
    return next(line for line in axis.lines if line.get_gid() == series)


def entries(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(("lpips_there", "columns"), [(True, 2), (False, 1)])
def test_a_panel_per_batch_size_and_metric(make_run, lpips_there, columns):
    figure = leakage(make_run(lpips_there=lpips_there))
    assert len(figure.axes) == 2 * columns
    title = figure.texts[0].get_text().replace("\n", " ")
    assert ("LPIPS is empty" in title) is not lpips_there
    assert (drawn(figure) != 255).any(axis=-1).mean() > 0.02


def test_epsilon_is_logarithmic_and_no_defence_stands_right(make_run):
    axis = leakage(make_run()).axes[0]
    labels = [text.get_text() for text in axis.get_xticklabels()]
    assert labels == ["ε=1", "ε=1000", "no\ndefence"]
    places = axis.get_xticks()
    assert places[1] - places[0] == pytest.approx(3)
    assert places[2] > places[1]


def test_medians_points_and_floors_are_the_data(make_run):
    table = make_run()
    axis = leakage(table).axes[2]  # batch of 4, PSNR
    part = table[table["batch_size"] == 4]
    floors = part[part["floor"].notna()].groupby("attack")["psnr"].median()
    assert len(floors) > 1
    assert set(line(axis, FLOOR).get_ydata()) == {floors.max()}
    medians = line(axis, "inverting-gradients").get_ydata()
    attack = part[part["attack"] == "inverting-gradients"]
    expected = [attack.loc[attack["eps"] == eps, "psnr"].median() for eps in (1, 1000)]
    expected.append(attack.loc[attack["defense"] == "none", "psnr"].median())
    assert list(medians) == pytest.approx(expected)
    # a hundred images of its colour lie beneath it
    assert line(axis, "inverting-gradients").get_markeredgecolor() == "white"
    points = next(found for found in axis.lines if len(found.get_ydata()) == 12)
    assert sorted(points.get_ydata()) == pytest.approx(sorted(attack["psnr"]))


def test_without_epsilon_the_defences_are_the_axis(make_rows):
    rows = make_rows("dlg", "none", 1, 20, 0.1)
    rows += make_rows("dlg", "prune", 1, 15, 0.1, prune_ratio=0.9) + make_rows("dlg", "clip", 1, 19, 0.1)
    axis = leakage(frame(rows)).axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == [
        "no\ndefence",
        "clip",
        "prune",
    ]


def test_release_scope_uses_the_release_budget(make_rows):
    rows = make_rows("dlg", "none", 1, 20, 0.1)
    rows += make_rows("dlg", "dp", 1, 9, 0.4, eps_release=3.0, accountant="analytic")
    figure = leakage(frame(rows))
    assert figure.axes[0].get_xticklabels()[0].get_text() == "ε=3"
    assert "budget of the attacked gradient" in figure.texts[0].get_text().replace("\n", " ")


def test_odd_values_do_not_break_it(make_rows):
    rows = make_rows("dlg$x", "none", 2, 20, 0.1) + make_rows("_hidden", "dp", 2, 9, 0.4, eps=float("inf"))
    rows[0]["psnr"] = float("inf")
    rows += make_rows("floor:mean-image", "none", 2, 11, 0.5)
    figure = leakage(frame(rows))
    drawn(figure)
    assert set(entries(figure)) == {"dlg\\$x", "_hidden", FLOOR}


def test_nothing_to_show(make_run, make_rows):
    table = make_run()
    assert leakage(table[table["attack"].str.startswith("floor:")]) is None
    assert leakage(frame(make_rows("dlg", "none", 1, 0, 0, status="failed"))) is None
    assert leakage(frame([])) is None


def test_chained_dp_is_a_series_of_its_own(make_run, make_rows, dp):
    more = frame(make_rows("inverting-gradients", "dp+prune", 1, 9, 0.4, **dp, prune_ratio=0.9))
    figure = leakage(pd.concat([make_run(), more], ignore_index=True))
    assert "inverting-gradients, dp+prune" in entries(figure)


def test_clip_norms_of_dp_are_series_of_their_own(make_run, make_rows, dp):
    more = frame(make_rows("inverting-gradients", "dp", 1, 9, 0.4, **(dp | {"max_grad_norm": 0.1})))
    figure = leakage(pd.concat([make_run(), more], ignore_index=True))
    assert {"inverting-gradients, dp C=1", "inverting-gradients, dp C=0.1"} < set(entries(figure))


def test_more_series_than_can_be_told_apart_stand_in_panels_by_attack(make_rows, dp):
    rows = []
    for psnr, attack in enumerate(("dlg", "idlg", "inverting-gradients"), start=10):
        rows += make_rows(attack, "none", 1, psnr, 0.1)
        rows += make_rows("floor:start", "none", 1, psnr - 5, 0.1, floor_of=attack)
        for norm in (0.1, 1.0, 10.0, 100.0):
            rows += make_rows(attack, "dp", 1, psnr - norm / 100, 0.4, **(dp | {"max_grad_norm": norm}))
    figure = leakage(frame(rows))
    assert [axis.get_title() for axis in figure.axes[::2]] == [
        f"{attack}, batch of 1" for attack in ("dlg", "idlg", "inverting-gradients")
    ]
    shown = [FLOOR, "attack", *(f"attack, dp C={norm}" for norm in ("0.1", "1", "10"))]
    assert entries(figure) == shown  # five styles; the attack at C = 100 leaks least
    assert "4 of 5 series, the most leaking" in figure.texts[0].get_text()
    assert line(figure.axes[2], FLOOR).get_ydata()[0] == pytest.approx(6, abs=2)
    assert_readable(figure)


def test_varying_conditions_have_panels_of_their_own(make_run):
    table = pd.concat([make_run(), make_run().assign(victim="trained")], ignore_index=True)
    figure = leakage(table)
    assert [axis.get_title() for axis in figure.axes[::2]] == [
        f"Batch of {size}, victim {victim}" for size in (1, 4) for victim in ("early", "trained")
    ]
    assert not any("," in entry or "victim" in entry for entry in entries(figure))
    assert len(figure.axes[0].lines) == len(leakage(make_run()).axes[0].lines)


def test_labels_that_an_attack_always_brings_are_no_condition(make_rows):
    rows = make_rows("dlg", "none", 1, 20, 0.1, labels="joint")
    rows += make_rows("idlg", "none", 1, 20, 0.1, labels="known")
    assert [axis.get_title() for axis in leakage(frame(rows)).axes] == ["Batch of 1"] * 2


def test_many_defences_with_long_names(make_rows, recwarn):
    names = [f"{name}+a-stage-of-somebody-elses" for name in "abcdefghijkl"]
    rows = make_rows("inverting-gradients", "none", 1, 20, 0.1)
    for name in names:
        rows += make_rows("inverting-gradients", name, 1, 15, 0.2, prune_ratio=0.9, noise_std=0.001)
        rows += make_rows(f"attack-{name * 4}", "none", 1, 15, 0.2)
    for width in (FULL, COLUMN):
        assert_readable(leakage(frame(rows), width=width))
    assert not recwarn.list


def test_five_budgets_three_attacks_and_three_conditions(make_rows, dp, recwarn):
    rows = []
    for model in ("lenet", "convnet", "resnet20"):
        for attack in ("dlg", "idlg", "inverting-gradients"):
            rows += make_rows(attack, "none", 4, 20, 0.1, model=model)
            rows += make_rows("floor:noise-gradient", "none", 4, 10, 0.1, model=model, floor_of=attack)
            for eps in (1, 8, 10, 12, 10_000):
                rows += make_rows(attack, "dp", 4, 9, 0.4, model=model, **(dp | {"eps": float(eps)}))
    for width in (FULL, COLUMN):
        assert_readable(leakage(frame(rows), width=width))
    assert not recwarn.list


def test_too_many_panels_are_cut_and_said(make_rows):
    rows = [row for size in range(1, MAX_LINES + 3) for row in make_rows("dlg", "none", size, 20, 0.1)]
    figure = leakage(frame(rows))
    assert len(figure.axes) == 2 * MAX_LINES
    assert f"{MAX_LINES} of {MAX_LINES + 2} batch sizes" in figure.texts[0].get_text()
    assert len(leakage(frame(rows), width=COLUMN).axes) == MAX_LINES
