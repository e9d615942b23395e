"""The picture of reconstructions: the right pixels in the right place."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from dpbench.report.plots.picture_page import PAGE, chosen
from dpbench.report.plots.pictures import reconstructions
from dpbench.store import open_run
from dpbench.store.schema import frame


@pytest.fixture
def fill(tmp_path):
    """Store rows cell by cell; each picture is a flat colour that tells its attack, batch and image."""

    def filled(table):
        store = open_run(tmp_path / "run", {})
        for key, part in table.groupby("key"):
            rows = part.to_dict("records")
            images = flat([(grey(row), row["image"] / 10, 0.5) for row in rows])
            store.write(key, rows, images, flat([(0, row["image"] / 10, 1) for row in rows]))
        return store

    return filled


def flat(colours):
    return np.broadcast_to(np.array(colours)[:, :, None, None], (len(colours), 3, 32, 32))


def grey(row):
    if row["attack"].startswith("floor:"):
        return 0.1
    return 0.2 if row["defense"] == "none" else 0.3


def pictures_of(figure):
    """(pixels, caption) of each picture from left to right, by the name of its line, top to bottom."""
    (axis,) = figure.axes
    captions = {tuple(np.round(text.get_position(), 3)): text.get_text() for text in axis.texts}
    lines = {}
    for image in axis.images:
        left, right, _, top = image.get_extent()
        caption = captions[tuple(np.round(((left + right) / 2, top - 0.03), 3))]
        lines.setdefault((top, image.get_gid()), []).append((left, image, caption))
    return {
        name: [(image, caption) for _, image, caption in sorted(line, key=lambda found: found[0])]
        for (_, name), line in sorted(lines.items())
    }


def test_every_panel_shows_its_own_picture(make_run, fill):
    store = fill(make_run())
    figure = reconstructions(store.frame(), store)
    lines = pictures_of(figure)
    expected = ["original", "floor:mean-image", "floor:noise-gradient"]
    expected += [f"inverting-gradients\n{words}" for words in ("no defence", "dp ε=1", "dp ε=1000")]
    assert list(lines) == expected
    # one image of the batch of 1, four of the batch of 4
    assert {len(line) for line in lines.values()} == {5}
    reds = dict(zip(expected, [0, 0.1, 0.1, 0.2, 0.3, 0.3], strict=True))
    for name, line in lines.items():
        blue, said = (1.0, "batch of") if name == "original" else (0.5, " dB, 0.")
        for (shown, caption), image in zip(line, (0, 0, 1, 2, 3), strict=True):
            colour = shown.get_array()[0, 0].tolist()
            assert colour == [round(value * 255) for value in (reds[name], image / 10, blue)]
            assert shown.get_interpolation() == "nearest"
            assert said in caption


def test_pictures_stand_upright_and_square(make_rows, tmp_path):
    store = open_run(tmp_path / "run", {})
    rows = make_rows("dlg", "none", 1, 20, 0.1)
    image = np.zeros((1, 3, 32, 32))
    image[:, 0, :8] = 1  # red above
    store.write(rows[0]["key"], rows, image, image)
    figure = reconstructions(store.frame(), store)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1:].max(-1) < 50)
    black = pixels.max(-1) < 5
    for row in figure.axes[0].images:
        box = row.get_window_extent()
        assert abs(box.width - box.height) < 1
        top, bottom = (round(pixels.shape[0] - y) for y in (box.y1, box.y0))
        middle = round((box.x0 + box.x1) / 2)
        assert red[top + 3, middle]
        assert black[bottom - 3, middle]


def test_the_png_is_not_empty(make_run, fill):
    store = fill(make_run())
    figure = reconstructions(store.frame(), store)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    assert (pixels != 255).any(axis=-1).mean() > 0.5
    nothing_cut_off(figure)


def test_lpips_is_left_out_where_empty(make_run, fill):
    store = fill(make_run(lpips_there=False))
    figure = reconstructions(store.frame(), store)
    assert "LPIPS" not in figure.get_suptitle()
    assert {text.get_text()[-2:] for text in figure.axes[0].texts if " dB" in text.get_text()} == {"dB"}


def nothing_cut_off(figure):
    FigureCanvasAgg(figure).draw()
    title = figure.get_suptitle() and figure.texts[0].get_window_extent()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    for box in (title, *boxes):
        assert min(box.x0, box.y0) >= -0.5
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    assert max(box.y1 for box in boxes) <= title.y0  # the title stands clear of all else
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    pictures = [image.get_window_extent() for image in figure.axes[0].images]
    assert not any(a.overlaps(b) for i, a in enumerate(pictures) for b in pictures[:i])


def captions(figure):
    return [caption for _, caption in pictures_of(figure)["original"]]


def test_batch_seeds_stand_side_by_side(make_rows, fill):
    rows = [row for seed in range(4) for row in make_rows("dlg", "none", 1, 20, 0.1, seed=seed)]
    store = fill(frame(rows))
    assert captions(reconstructions(store.frame(), store)) == [
        f"batch of 1\nseed {seed}\nimage 0" for seed in range(4)
    ]


def test_columns_are_spread_over_sizes_and_seeds_first_images_first(make_rows, fill):
    rows = [
        row
        for size in (1, 4)
        for seed in (3, 9)
        for row in make_rows("dlg", "none", size, 20, 0.1, seed=seed)
    ]
    store = fill(frame(rows))
    figure = reconstructions(store.frame(), store, width=5.0)
    expected = [f"batch of 1\nseed {seed}\nimage 0" for seed in (3, 9)]
    expected += [f"batch of 4\nseed {seed}\nimage 0" for seed in (3, 9)]
    found = captions(figure)
    assert set(expected) <= set(found)
    assert [text for text in found if text in expected] == expected
    said = " ".join(figure.get_suptitle().split())
    assert f"{len(found)} of 10 images, {10 - len(found)} left out" in said


def test_one_batch_fills_the_columns(make_rows, fill):
    store = fill(frame(make_rows("dlg", "none", 16, 20, 0.1)))
    found = captions(reconstructions(store.frame(), store))
    assert len(found) > 4
    assert found == [f"batch of 16\nimage {image}" for image in range(len(found))]


def test_a_lone_attack_seed_is_the_lowest(make_rows, fill):
    rows = make_rows("dlg", "none", 1, 20, 0.1, key="high", attack_seed=4, psnr=44.0)
    rows += make_rows("dlg", "none", 1, 20, 0.1, key="low", attack_seed=2, psnr=22.0)
    store = fill(frame(rows))
    ((_, caption),) = pictures_of(reconstructions(store.frame(), store))["dlg\nno defence"]
    assert "22.0 dB" in caption


def test_the_mean_image_is_drawn_once_for_all_victims(make_rows, fill):
    rows = []
    for victim in ("early", "trained"):
        for attack in ("floor:mean-image", "floor:noise-gradient", "dlg"):
            more = {"floor_of": "dlg"} if attack == "floor:noise-gradient" else {}
            rows += make_rows(
                attack, "none", 1, 20, 0.1, victim=victim, key=f"{attack[-3:]}-{victim}", **more
            )
    store = fill(frame(rows))
    assert list(pictures_of(reconstructions(store.frame(), store))) == [
        "original",
        "floor:mean-image",
        *(f"floor:noise-gradient\nvictim {victim}" for victim in ("early", "trained")),
        *(f"dlg\nno defence\nvictim {victim}" for victim in ("early", "trained")),
    ]


@pytest.mark.parametrize("data", ["folder:/a/very long/path/" + "x" * 80, "samples"])
def test_long_texts_are_wrapped_and_not_cut_off(make_rows, fill, data):
    rows = make_rows("dlg", "none", 1, 20, 0.1, data=data)
    name = "somebody-elses-attack-of-a-very-long-name-without-end"
    rows += make_rows(name, "dp+their-own-stage-of-a-long-name", 1, 20, 0.1, data=data, eps=1.0)
    store = fill(frame(rows))
    nothing_cut_off(reconstructions(store.frame(), store))


@pytest.mark.parametrize("width", [PAGE[0], 3.3])
def test_more_than_a_page_is_left_out_by_the_rule_and_said(make_rows, fill, width):
    rows = [
        row
        for name in ("mean-image", "noise-gradient")
        for row in make_rows(f"floor:{name}", "none", 8, 9, 0.4)
    ]
    rows += make_rows("dlg", "none", 8, 20, 0.1)
    for i in range(43):
        rows += make_rows("dlg", "dp", 8, 20, 0.1, key=f"k{i}", eps=1.0 + i, eps_release=5.0)
    store = fill(frame(rows))
    figure = reconstructions(store.frame(), store, width=width)
    nothing_cut_off(figure)
    assert figure.get_figwidth() <= width
    assert figure.get_figheight() <= PAGE[1]
    lines = pictures_of(figure)
    said = " ".join(figure.get_suptitle().split())
    shown = len(lines) - 1
    assert f"{shown} of 46 rows, {46 - shown} left out" in said
    names = list(lines)
    assert names[:4] == ["original", "floor:mean-image", "floor:noise-gradient", "dlg\nno defence"]
    strengths = [int(name.rpartition("=")[2]) for name in names[4:]]
    assert (strengths[0], strengths[-1]) == (1, 43)
    steps = np.diff(strengths)
    assert steps.max() - steps.min() <= 1
    assert f"{len(lines['original'])} of 8 images, {8 - len(lines['original'])} left out" in said


@pytest.mark.parametrize("room", range(3, 30))
@pytest.mark.parametrize("counts", [(4, 1, 40), (0, 5, 0), (30, 30, 30), (2, 1, 2), (3, 0, 9)])
def test_rows_that_are_chosen_fill_the_room(counts, room):
    kinds = [[f"{kind}{i}" for i in range(count)] for kind, count in zip("abc", counts, strict=True)]
    found = chosen(*kinds, room)
    every = [name for kind in kinds for name in kind]
    assert len(found) == min(room, len(every))
    assert [name for name in every if name in found] == found
    assert {name[0] for name in found} == {kind[0][0] for kind in kinds if kind}


def test_the_last_undefended_attack_is_shown_beside_its_defended_rows():
    defended = [f"{name} {eps}" for name in ("dlg", "tuned") for eps in (1, 2, 4)]
    found = chosen(["mean", "noise"], ["dlg", "tuned"], defended, 7)
    assert found == ["mean", "noise", "dlg", "tuned", "dlg 1", "dlg 4", "tuned 4"]


def test_a_floor_in_the_same_cell_has_its_own_picture(make_rows, fill):
    rows = make_rows("floor:start", "none", 2, 8, 0.4, key="cell", floor_of="dlg")
    rows += make_rows("dlg", "none", 2, 20, 0.1, key="cell")
    store = fill(frame(rows))
    lines = pictures_of(reconstructions(store.frame(), store))
    assert list(lines) == ["original", "dlg\nno defence"]
    assert lines["dlg\nno defence"][0][0].get_array()[0, 0, 0] == round(0.2 * 255)


def test_nothing_to_show(make_run, make_rows, tmp_path):
    store = open_run(tmp_path / "empty", {})
    assert reconstructions(make_run(), store) is None
    store.write("bad", make_rows("dlg", "none", 1, 0, 0, status="failed", key="bad"))
    assert reconstructions(store.frame(), store) is None


def test_dollar_signs_in_user_text_draw(make_rows, fill):
    store = fill(frame(make_rows("dlg", "none", 1, 20, 0.1, data="folder:$x_{")))
    FigureCanvasAgg(reconstructions(store.frame(), store)).draw()


def test_the_ablation_is_drawn_in_its_own_order(make_rows, fill):
    terms = ("registered", "lazy", "gradient", "fidelity")
    rows = [row for t in terms for row in make_rows("gradinversion", "none", 1, 10, 0.2, terms=t, key=t)]
    figure = reconstructions(frame(rows), fill(frame(rows)))
    assert [name.split("\n")[1] for name in list(pictures_of(figure))[1:]] == [
        f"(terms {t})" for t in ("gradient", "fidelity", "lazy", "registered")
    ]
