"""Which images leak, drawn: one panel for loss and one for share, a row for each victim."""

import pytest

from dpbench.report.plots.confidence import LEAST_LOSS, confidence
from dpbench.store.schema import frame


def of(make_rows, scale=1.0, defense="none", victim="early", size=4, **more):
    """The larger an image's share, the lower its LPIPS; its loss the other way round."""
    rows = make_rows("gradinversion", defense, size, 12, 0.1, victim=victim, logit_scale=scale, **more)
    for row in rows:
        i = row["image"]
        row |= {"image_loss": 3.0 - i, "image_grad_share": (i + 1) / 10, "lpips": 0.5 - i / 10}
    return rows


def both(make_rows, **more):
    return of(make_rows, **more) + of(make_rows, scale=0.25, **more)


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def ranks(figure):
    return [[text.get_text() for text in axis.texts] for axis in figure.axes]


def test_loss_and_share_are_set_against_what_was_recovered(make_rows):
    figure = confidence(frame(both(make_rows)))
    loss, share = figure.axes
    assert [list(point) for point in share.collections[0].get_offsets()[:2]] == [
        pytest.approx([0.1, 0.5]),
        pytest.approx([0.2, 0.4]),
    ]
    assert loss.collections[0].get_offsets()[3][0] == LEAST_LOSS  # a loss of zero
    assert loss.get_xscale() == "log"
    assert legend(figure) == [f"gradinversion, no defence, logits x{s}" for s in ("0.25", "1")]
    assert ranks(figure) == [["+1.00"] * 2, ["-1.00"] * 2]


def test_every_victim_has_its_row_and_every_defence_its_colour(make_rows):
    rows = both(make_rows) + both(make_rows, victim="trained") + both(make_rows, defense="clip")
    figure = confidence(frame(rows))
    assert [axis.get_title(loc="left") for axis in figure.axes[::2]] == ["victim early", "victim trained"]
    assert len(legend(figure)) == 4
    early, trained = ranks(figure)[1::2]
    assert early == ["-1.00"] * 4
    assert trained == ["-1.00", "-1.00", "–", "–"]  # clipped gradients of one victim only


def test_more_curves_than_can_be_told_apart_have_rows_of_their_own(make_rows):
    rows = [row for name in ("none", "clip", "prune") for row in both(make_rows, defense=name)]
    figure = confidence(frame(rows))
    titles = [axis.get_title(loc="left") for axis in figure.axes[::2]]
    assert titles == [f"gradinversion, {name}" for name in ("no defence", "clip", "prune")]
    assert legend(figure) == ["logits x0.25", "logits x1"]


def test_without_lpips_psnr_is_drawn(make_rows):
    rows = both(make_rows)
    for row in rows:
        del row["lpips"]
    assert "PSNR" in confidence(frame(rows)).axes[0].get_ylabel()


def test_there_is_nothing_to_draw(make_rows):
    assert confidence(frame(of(make_rows))) is None
    assert confidence(frame(both(make_rows, size=1))) is None
    assert confidence(frame(both(make_rows, status="failed"))) is None
    assert confidence(frame([])) is None


def test_too_few_images_have_no_ranks(make_rows):
    assert ranks(confidence(frame(both(make_rows, size=2)))) == [["–"] * 2] * 2
