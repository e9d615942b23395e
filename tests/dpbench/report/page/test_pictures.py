"""The page's pictures: pixels, choice and words without a browser, slider and print in a real one."""

from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO
from itertools import count

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dpbench.report.page import exposure, html, pictures
from dpbench.store import open_run
from dpbench.store.schema import frame

EPS = (1000.0, 10.0, 1.0)
HOSTILE = """a"><img src=x onerror=alert(1)></option><script>alert(2)</script>'&"""


class Shown(HTMLParser):
    """Pictures by their alternative text, and every tag."""

    def __init__(self, source):
        super().__init__()
        self.pictures, self.tags, self.text = [], [], ""
        self.feed(str(source))

    def handle_starttag(self, tag, attributes):
        of = dict(attributes)
        self.tags.append((tag, of))
        if tag == "img":
            file = BytesIO(b64decode(of["src"].removeprefix("data:image/png;base64,")))
            pixels = np.asarray(Image.open(file)).transpose(2, 0, 1)
            self.pictures.append((of["alt"], pixels, int(of["width"])))

    def handle_data(self, text):
        self.text += text


@pytest.fixture(scope="session")
def rows(make_rows):
    """Batches of one image under no defence and DP at three budgets; PSNR is what `gain` says."""
    keys = count()

    def made(seeds=range(5), attack="dlg", gain=lambda seed, eps: seed, **more):
        def one(name, defense, lpips, of):
            found.extend(make_rows(name, defense, 1, 10, lpips, seed=seed, key=f"cell-{next(keys)}", **of))

        given = {"data": "cifar10", "psnr_floor": 10.0, "gallery_size": 200} | more
        found = []
        for seed in seeds:
            image = given | {"original_index": 100 + seed, "label": 3}
            one("floor:mean-image", "none", 0.6, image)
            one("floor:noise-gradient", "none", 0.6, image | {"floor_of": attack})
            for eps in (None, *EPS):
                guarantee = {"eps": eps, "eps_release": eps, "noise_multiplier": 2 / eps} if eps else {}
                of = image | guarantee | {"psnr": 10.0 + gain(seed, eps), "identified": eps != 1.0}
                one(attack, "dp" if eps else "none", 0.3, of)
        return found

    return made


@pytest.fixture(scope="session")
def album(tmp_path_factory):
    """A run of these rows whose pictures are noise, each its own; the store and the table."""

    def made(rows, side=8):
        table = frame(rows)
        run = open_run(tmp_path_factory.mktemp("album") / "run", {"version": "0.2.0"})
        for i, (key, part) in enumerate(table.groupby("key", sort=False)):
            shape = (len(part), 3, side, side)
            seed = int(part["batch_seed"].iloc[0])
            originals = np.random.default_rng(seed).random(shape)
            run.write(key, part.to_dict("records"), np.random.default_rng([i, 7]).random(shape), originals)
        return run, table

    return made


@pytest.fixture(scope="session")
def run(rows, album):
    return album(rows())


def parsed(store, table):
    return Shown(pictures.pictures(table, store))


def test_every_picture_is_the_stored_one_to_the_bit(run):
    store, table = run
    found = parsed(store, table).pictures
    stored = {}
    for key in table["key"].unique():
        cell = store.read(key)
        stored[cell.images[0].tobytes()] = table[table["key"] == key].iloc[0]
        stored[cell.originals[0].tobytes()] = None
    assert len(found) == 3 * (1 + 4 + 2)
    for alt, pixels, width in found:
        row = stored[pixels.tobytes()]
        assert width == 192
        if alt.startswith("original, label cat"):
            assert row is None
        else:
            assert f"PSNR {row['psnr']:.1f} dB" in alt
            assert ("not identified" in alt) == (row["floor"] is pd.NA and not row["identified"])


def test_alternative_texts_say_what_is_seen(run):
    alts = [alt for alt, _, _ in parsed(*run).pictures]
    assert alts[0] == "original, label cat"
    assert alts[1].startswith("reconstruction by dlg without a defence: PSNR 14.0 dB, LPIPS ")
    assert alts[1].endswith(", identified")
    assert alts[4].startswith("reconstruction by dlg under dp ε=1 (σ=2): PSNR 14.0 dB")
    assert alts[4].endswith(", not identified")
    assert alts[5].startswith("without the gradient, mean image: PSNR ")
    assert alts[6].startswith("without the gradient, attack fed pure noise: PSNR ")


def test_the_cases_are_those_of_the_rule(rows):
    """Exposure is the mean over the defended strengths: the undefended row does not count."""
    gains = {0: 3, 1: -2, 2: 0.5, 3: 7, 4: 1, 5: 2, 6: -9}
    table = frame(rows(range(7), gain=lambda seed, eps: gains[seed] if eps else -50 * gains[seed]))
    (panel,) = exposure.panels(table)
    assert [(case.title, case.image["batch_seed"]) for case in panel.cases] == [
        ("Most exposed", 3),
        ("Median", 4),
        ("Least exposed", 6),
    ]
    assert panel.exposure == pytest.approx(7)
    assert (panel.images, panel.left_out) == (7, 0)


def test_photographs_that_failed_somewhere_are_not_said_to_be_missing(rows):
    """Two photographs, one of which has no result at the largest budget."""
    table = frame(rows(range(2)))
    lost = (table["batch_seed"] == 1) & (table["eps"] == max(EPS))
    (panel,) = exposure.panels(table[~lost].reset_index(drop=True))
    assert (panel.images, panel.others, panel.floors) == (1, 1, True)
    (panel,) = exposure.panels(table.assign(psnr_floor=None))
    assert (panel.images, panel.others, panel.floors) == (2, 0, False)


def test_the_gallery_of_a_frontier_is_that_of_its_ranks(run):
    store, table = run
    table = table.assign(gallery_size=20)
    assert "a blind guess is right once in 20." in parsed(store, table).text
    ranked = table.assign(ranked_first=table["floor"].isna())
    assert "a blind guess is right once in 200." in parsed(store, ranked).text
    assert "above the best floor" in parsed(store, table).text
    assert "above the best floor" not in parsed(store, table.assign(psnr_floor=None)).text


def test_strengths_go_from_none_to_the_smallest_epsilon(run):
    (panel,) = exposure.panels(run[1])
    assert panel.levels == ("no defence", "dp ε=1000 (σ=0.002)", "dp ε=10 (σ=0.2)", "dp ε=1 (σ=2)")
    for case in panel.cases:
        assert [row["eps"] for row in case.rows[1:]] == list(EPS)
        assert {row["batch_seed"] for row in case.rows} == {case.image["batch_seed"]}
        assert [row["floor"] for row in case.floors] == ["mean-image", "noise-gradient"]


@pytest.mark.parametrize(
    ("count", "titles"), [(1, ["The only image"]), (2, ["Most exposed", "Least exposed"])]
)
def test_few_images_are_not_shown_twice(rows, count, titles):
    (panel,) = exposure.panels(frame(rows(range(count))))
    assert [case.title for case in panel.cases] == titles


def test_an_image_that_lacks_a_strength_is_not_chosen_while_there_are_whole_ones(rows, album):
    found = [row for row in rows() if not (row["batch_seed"] == 4 and row.get("eps") == 10.0)]
    (panel,) = exposure.panels(frame(found))
    assert panel.images == 4
    assert panel.cases[0].image["batch_seed"] == 3
    alone = [row for row in rows([0]) if row.get("eps") != 10.0] + rows([1])[:-1]
    assert "no result under dp" in str(pictures.pictures(*reversed(album(alone))))


def test_a_photograph_counts_once_and_the_lowest_attack_seed_is_shown(rows):
    twice = [row | {"original_index": 100, "key": f"x{row['key']}"} for row in rows([8])]
    later = [row | {"attack_seed": 1, "psnr": 90.0, "key": f"y{row['key']}"} for row in rows()]
    (panel,) = exposure.panels(frame(rows() + twice + later))
    assert panel.images == 5
    assert panel.exposure == pytest.approx(4)


def test_many_strengths_are_thinned_out_evenly(rows, make_rows, monkeypatch):
    monkeypatch.setattr(exposure, "MOST_LEVELS", 3)
    (panel,) = exposure.panels(frame(rows()))
    assert panel.left_out == 1
    assert (panel.levels[0], panel.levels[-1]) == ("no defence", "dp ε=1 (σ=2)")


def test_attacks_and_threat_models_are_apart_and_the_strongest_comes_first(rows, album):
    weak = rows(attack="weak", gain=lambda seed, eps: -seed)
    other = rows(threat_model="malicious-linear")
    store, table = album(
        rows(threat_model="honest")
        + [r | {"threat_model": "honest"} for r in weak]
        + [row | {"key": f"m{row['key']}"} for row in other]
    )
    names = [of["aria-label"] for tag, of in parsed(store, table).tags if "panel" in of.get("class", "")]
    assert len(names) == 3
    assert names[0].startswith("dlg against dp, batch of 1, ")
    assert "honest" in names[0]
    assert names[1].startswith("weak against dp, ")
    assert "malicious-linear" in names[2]


def test_undefended_rows_stand_beside_every_variant_of_an_attack(rows):
    """Not adaptive, or with a setting that plays no role without a defence."""
    variants = [{"adaptive": False}, {"prior": "none"}, {"prior": "wiener"}]
    more = [row | each for each in variants for row in rows() if row["defense"] == "dp"]
    found = exposure.panels(
        frame(rows() + [row | {"key": f"{row['key']}-{i}"} for i, row in enumerate(more)])
    )
    assert len({panel.attack for panel in found}) == 4
    assert {panel.levels[0] for panel in found} == {"no defence"}
    assert {len(panel.levels) for panel in found} == {4}


def test_what_does_not_fit_is_named(rows, album, monkeypatch):
    run = album(rows() + rows(attack="other", gain=lambda seed, eps: -seed))
    monkeypatch.setattr(pictures, "MOST_PICTURES", 25)
    found = parsed(*run)
    assert len(found.pictures) == 21
    assert "Not shown, because the page would become too large: other against dp" in found.text


def test_there_is_nothing_without_cells(run, tmp_path):
    assert pictures.pictures(run[1], open_run(tmp_path / "bare", {"version": "0.2.0"})) is None
    assert pictures.pictures(run[1].iloc[:0], run[0]) is None


def test_hostile_names_stay_text(rows, album):
    store, table = album(rows(attack=HOSTILE, data=HOSTILE))
    found = parsed(store, table)
    assert not [tag for tag, of in found.tags if tag == "script" or "onerror" in of]
    assert HOSTILE in found.text
    assert any(HOSTILE in alt for alt, _, _ in found.pictures)


def test_large_images_keep_their_size(rows, album):
    assert {width for _, _, width in parsed(*album(rows([0]), side=224)).pictures} == {224}


@pytest.fixture(scope="session")
def page(rows, album, tmp_path_factory):
    """A page of two attacks as a file."""
    store, table = album(rows() + rows(attack="other", gain=lambda seed, eps: -seed))
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(html(store, table), encoding="utf-8")
    return file


def visible(tab):
    found = tab.locator(".panel .levels img:visible").all()
    return [each.get_attribute("alt").split(":")[0] for each in found]


def test_the_slider_swaps_the_reconstruction_by_keyboard(page, opened):
    tab = opened(page)
    slider = tab.get_by_label("Strength of the defence").first
    assert visible(tab) == ["reconstruction by dlg without a defence"] * 3
    slider.focus()
    tab.keyboard.press("ArrowRight")
    assert visible(tab) == ["reconstruction by dlg under dp ε=1000 (σ=0.002)"] * 3
    assert slider.get_attribute("aria-valuetext") == "dp ε=1000 (σ=0.002)"
    tab.keyboard.press("End")
    assert visible(tab) == ["reconstruction by dlg under dp ε=1 (σ=2)"] * 3
    tab.get_by_label("Attack and defence").select_option(index=1)
    assert visible(tab) == ["reconstruction by other under dp ε=1 (σ=2)"] * 3  # the strength stays
    tab.get_by_label("All strengths side by side").nth(1).check()
    assert len(visible(tab)) == 12


def test_print_shows_every_strength_of_every_attack(page, opened):
    tab = opened(page)
    tab.emulate_media(media="print")
    assert len(visible(tab)) == 24
    assert not tab.get_by_label("Strength of the defence").first.is_visible()


def test_without_scripts_everything_is_there(page, browser):
    tab = browser.new_context(java_script_enabled=False).new_page()
    tab.goto(page.as_uri())
    assert tab.locator(".panel .levels img:visible").count() == 24
    assert tab.locator(".pictures input:visible, .pictures select:visible").count() == 0


def test_small_pictures_are_enlarged_by_whole_pixels_and_marked_by_their_frame(page, opened):
    tab = opened(page)
    first = tab.locator(".levels .identified img").first
    style = "e => [getComputedStyle(e).imageRendering, getComputedStyle(e).borderTopStyle, e.width]"
    assert first.evaluate(style) == ["pixelated", "solid", 192]
    tab.get_by_label("Strength of the defence").first.focus()
    tab.keyboard.press("End")
    other = tab.locator(".panel .levels img:visible").first
    assert other.evaluate(style) == ["pixelated", "dashed", 192]
