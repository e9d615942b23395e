"""What a larger batch hides, drawn: which panels there are and where the points stand."""

import pytest

from dpbench.report.plots.batches import batches
from dpbench.report.plots.leakage import leakage
from dpbench.report.plots.style import MOST
from dpbench.store.schema import frame

SIZES = (1, 2, 4)
IMAGE = ("psnr", "ssim", "fft2d", "lpips")


def of(make_rows, attack="gradinversion", sizes=SIZES, **more):
    return [row for size in sizes for row in make_rows(attack, "none", size, 15, 0.1, **more)]


def heights(axis, curve=0):
    """Of a curve's points, from left to right."""
    return [float(y) for y in axis.containers[curve][0].get_ydata()]


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


def test_a_panel_for_each_share_that_was_measured(make_rows):
    rows = of(make_rows)
    for row in rows:
        row |= {"iip": row["image"] == 0, "iip_chance": 0.01}
    labels, nearer, iip = batches(frame(rows)).axes
    assert heights(labels) == [1, 0.5, 0.5]  # the even ones are right
    assert heights(nearer) == [1, 1, 1]  # .1 against a floor of .2375
    assert heights(iip) == pytest.approx([1, 0.5, 0.25])
    assert [float(line.get_ydata()[0]) for line in iip.lines if line.get_linestyle() == ":"] == [0.01]
    assert [text.get_text() for text in iip.get_xticklabels()] == ["1", "2", "4"]


def test_known_labels_are_no_achievement(make_rows):
    assert titles(batches(frame(of(make_rows, labels="known")))) == [
        "nearer the original than its own floors (LPIPS)"
    ]


def test_images_no_nearer_than_a_floor_count_for_nothing(make_rows):
    rows = of(make_rows, labels="known", lpips_floor=0.05)
    assert heights(batches(frame(rows)).axes[0]) == [0, 0, 0]


def test_an_attack_on_labels_alone_has_no_images_to_draw(make_rows):
    rows = of(make_rows, "label-restoration", label_rule="minimum")
    rows += of(make_rows, "label-restoration", label_rule="sum")
    rows = [{name: value for name, value in row.items() if name not in IMAGE} for row in rows]
    figure = batches(frame(rows))
    assert titles(figure) == ["labels restored"]
    left, right = (curve[0].get_xdata() for curve in figure.axes[0].containers)
    assert [(a + b) / 2 for a, b in zip(left, right, strict=True)] == pytest.approx([0, 1, 2])  # at the ticks
    assert all(left < right)
    assert leakage(frame(rows)) is None


def test_two_batch_sizes_are_no_trend(make_rows):
    assert batches(frame(of(make_rows, sizes=(1, 4)))) is None
    assert batches(frame(of(make_rows, status="failed"))) is None
    assert batches(frame([])) is None


def test_attack_seeds_are_no_images(make_rows):
    """The interval of one image in each batch size does not shrink by attacking it four times."""
    rows = of(make_rows)
    again = [row | {"attack_seed": seed, "key": f"{row['key']}-{seed}"} for seed in range(4) for row in rows]
    bars = [batches(frame(each)).axes[0].containers[0][2][0].get_segments() for each in (rows, again)]
    assert [each.tolist() for each in bars[1]] == [each.tolist() for each in bars[0]]


def test_what_was_left_out_is_said(make_rows):
    rows = [row for i in range(MOST + 2) for row in of(make_rows, restarts=i + 1)]
    figure = batches(frame(rows))
    assert len(figure.axes[0].containers) == MOST
    assert f"{MOST} of {MOST + 2} curves" in figure.get_suptitle()


def test_the_curves_that_go_furthest_are_drawn_and_no_batch_size_without_any(make_rows):
    rows = [row for i in range(MOST) for row in of(make_rows, restarts=i + 1)]
    rows += of(make_rows, "dlg", (*SIZES, 8)) + of(make_rows, "zz", (16,))
    (axis,) = (figure := batches(frame(rows))).axes[:1]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["1", "2", "4", "8"]
    assert [len(curve[0].get_xdata()) for curve in axis.containers] == [4, *[3] * (MOST - 1)]
    assert "those with most batch sizes" in figure.get_suptitle()
    assert "dlg, no defence, batch of 8" in batches.alt(frame(rows))
