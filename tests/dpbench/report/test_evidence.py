"""Evidence against independent computations, and verdicts at their borders."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, multinomial

from dpbench.report.evidence import MARGIN, Evidence, Measure, _paired, evidence, originals, tail
from dpbench.report.rivals import rivals
from dpbench.report.summary import summary
from dpbench.report.tables import to_markdown
from dpbench.report.verdict import verdict, worst
from dpbench.store.schema import frame


def test_the_tail_is_the_binomial_test_and_exact_for_unequal_chances():
    for right in range(6):
        exact = binomtest(right, 5, 0.3, alternative="greater").pvalue
        assert tail(right, np.full(5, 0.3)) == pytest.approx(exact)
    chances = np.array([0.1, 0.5, 0.9])
    both = [0.1 * 0.5 * 0.1, 0.1 * 0.5 * 0.9, 0.9 * 0.5 * 0.9]  # two right, by which one is wrong
    assert tail(2, chances) == pytest.approx(sum(both) + 0.1 * 0.5 * 0.9)


@pytest.mark.parametrize("chance", [1 / 200, 0.05, 0.5])
@pytest.mark.parametrize("level", [0.05, 0.0125, 0.002])
def test_as_many_as_are_said_to_be_enough_are_and_one_less_is_not(chance, level):
    enough = Measure("psnr", 0, 1, chance, 1.0).enough(level)

    def like_a_guess(tried):
        return Measure("psnr", int(chance * tried + 0.5), tried, chance, 1.0).at_chance(level)

    assert like_a_guess(enough)
    assert not any(like_a_guess(tried) for tried in range(1, enough))


def test_no_number_is_enough_where_the_strongest_guess_is_always_right():
    assert Measure("identified", 4, 4, 1.0, 1.0, rival=4).enough(0.05) == 0
    (one,) = [Measure("identified", 4, 4, 1.0, 1.0, rival=4)]
    few = Measure("psnr", 2, 4, 0.5, 0.7)
    assert Evidence(4, (one, few)).lacking(0.025) == 0
    assert Evidence(4, (few,), complete=False).lacking(0.05) == 0
    assert Evidence(4, (few,)).lacking(0.05) == few.enough(0.05) > 4
    many = Measure("psnr", 130, 200, 0.5, 0.01)  # undecided for another reason than its number
    assert Evidence(200, (many,)).lacking(0.001) == 0


@pytest.mark.parametrize("chance", [0.05, 0.5])
def test_false_claims_are_rarer_than_their_level(chance):
    """Over all outcomes of a guess, weighted by their chances: both claims hold what they promise."""
    level = 0.0125
    for images in (1, 4, 8, 32, 100):
        counts = np.arange(images + 1)
        found = [
            Measure("iip", int(k), images, chance, tail(int(k), np.full(images, chance))) for k in counts
        ]
        at_random = [tail(int(k), np.full(images, chance)) for k in counts]
        mass = np.array(at_random) - np.append(at_random[1:], 0.0)
        assert mass[[each.above_chance(level) for each in found]].sum() <= level
        # an attack that is right by so much more often must not be called a guess
        more = np.full(images, chance + MARGIN)
        tails = np.array([tail(int(k), more) for k in counts])
        mass = tails - np.append(tails[1:], 0.0)
        assert mass[[each.at_chance(level) for each in found]].sum() <= level


def measured(right, images, chance=0.5, name="psnr"):
    return Measure(name, right, images, chance, tail(right, np.full(images, chance)))


def line(over, ratio=float("nan")):
    return pd.Series({"psnr_over_floor_median": over, "lpips_to_floor_median": ratio, "psnr_median": 12.0})


@pytest.mark.parametrize(
    ("right", "images", "expected"),
    [
        (0, 4, "unsure"),  # four of four would have proved nothing either
        (4, 4, "unsure"),
        (0, 5, "guess"),
        (5, 5, "better"),
        (2, 8, "guess"),
        (4, 8, "unsure"),
        (6, 8, "unsure"),
        (7, 8, "better"),
    ],
)
def test_verdicts_by_the_number_of_images(right, images, expected):
    assert verdict(line(-1.0), Evidence(images, (measured(right, images),)), 1) == expected


@pytest.mark.parametrize(
    ("over", "ratio", "expected"),
    [
        (3.0, 0.99, "works"),
        (3.0, float("nan"), "works"),
        (3.0, 1.0, "unsure"),
        (2.9, 0.2, "unsure"),
        (float("nan"), float("nan"), "unknown"),
        (float("inf"), 0.0, "works"),
        (float("-inf"), 1.0, "unsure"),
    ],
)
def test_verdicts_by_what_is_over_the_floor(over, ratio, expected):
    assert verdict(line(over, ratio), Evidence(2, (measured(1, 2),)), 1) == expected


def test_more_comparisons_need_more_evidence():
    found = Evidence(6, (measured(6, 6),))
    assert [verdict(line(1.0), found, count) for count in (1, 3, 4)] == ["better", "better", "unsure"]
    assert worst([(line(1.0), found)] * 3).verdict == "better"
    assert worst([(line(1.0), found)] * 4).verdict == "unsure"


def test_photographs_are_told_apart_by_their_place_in_the_data_set(make_rows):
    rows = frame(make_rows("dlg", "none", 4, 9, 0.4) + make_rows("dlg", "none", 4, 9, 0.4, seed=1))
    assert originals(rows).nunique() == 8
    assert originals(rows.assign(original_index=[0, 1, 2, 3, 3, 4, 5, 6])).nunique() == 7
    other = rows.assign(original_index=0, data=["a", "b"] * 4)
    assert originals(other).nunique() == 2


def test_floors_are_joined_by_image_and_setting(make_rows):
    rows = []
    for terms, level in (("gradient", 10.0), ("lazy", 20.0)):
        more = {"terms": terms, "key": terms}
        rows += make_rows("floor:noise-gradient", "none", 4, 0, 0, floor_of="dlg", psnr=level, **more)
        rows += make_rows("dlg", "dp", 4, 0, 0, **more, releases=10)
        rows += make_rows("idlg", "none", 4, 0, 0, **more, psnr_floor=float("nan"), lpips_floor=float("nan"))
    table = frame(rows)
    (floors, rest) = rivals(table).values()
    beside = table.loc[floors.index].assign(floor_psnr=floors["psnr"])
    assert set(beside["attack"]) == {"dlg"}
    assert beside.groupby("terms")["floor_psnr"].unique().map(list).to_dict() == {
        "gradient": [10.0],
        "lazy": [20.0],
    }
    assert rest.empty


def test_flat_images_are_the_floor_itself(make_rows):
    """The constant image is an exact copy of a flat photograph: an attack lies infinitely far below."""
    rows = make_rows("dlg", "none", 2, 20, 0.1, psnr_floor=float("inf"), lpips_floor=0.0)
    rows[1] |= {"psnr": float("inf"), "lpips": 0.0}
    table = frame(rows)
    found = evidence(table, rivals(table))
    assert [(each.name, each.right, each.tried) for each in found.measures] == [
        ("psnr", 0, 1),  # of one batch
        ("lpips", 0, 1),
    ]
    numbers = summary(table[:1]).iloc[0]
    assert numbers["psnr_over_floor_median"] == float("-inf")
    assert numbers["lpips_to_floor_median"] == float("inf")
    assert "| -∞ |" in to_markdown(table[:1])
    both = summary(table).iloc[0]
    assert both["psnr_over_floor_max"] == 0
    mixed = summary(frame([*make_rows("dlg", "none", 2, 20, 0.1, psnr=20.0, psnr_floor=float("inf"))]))
    assert mixed["psnr_over_floor_median"].tolist() == [float("-inf")]


def choosing(right, floor_right, **told):
    """The strongest measure of an attack and its noise floor, which are told more than the gradient."""
    return evidence_of(rows_of_both(right, floor_right, **told)).strongest


def evidence_of(rows, lacks=()):
    """Of the attack; `lacks` are the photographs of which there is no noise floor."""
    there = [r for r in rows if not (r.get("floor") == "noise-gradient" and r["original_index"] in lacks)]
    table = frame(there)
    return evidence(table[table["floor"].isna()], rivals(table))


def rows_of_both(right, floor_right, images=16, **told):
    rows = []
    known = {"labels": "known", "gallery_labels": "any", "bn_stats": "exact"} | told
    for name, count in (("gradinversion", right), ("floor:noise-gradient", floor_right)):
        own = {"floor": "noise-gradient", "floor_of": "gradinversion"} if name.startswith("floor") else {}
        for i in range(images):
            row = {"attack": name, "defense": "none", "batch_size": 1, "batch_seed": i, "image": 0}
            row |= {"status": "ok", "attack_seed": 0, "data": "folder:x", "original_index": i} | own
            rows.append(row | {"iip": i < count, "iip_chance": 0.04, "gallery_size": 25} | known)
    return rows


@pytest.mark.parametrize(
    "told", [{"gallery_labels": "same"}, {"bn_stats": "none"}, {}], ids=["statistics", "labels", "both"]
)
def test_who_knows_more_than_the_gradient_is_compared_with_a_floor_that_knows_it_too(told):
    """Half of the photographs are identified from the labels and the statistics alone."""
    found = choosing(8, 8, **told)
    assert (found.right, found.rival, found.p) == (8, 8, 1.0)
    found = choosing(16, 8, **told)
    assert (found.right, found.rival) == (16, 8)
    assert found.p == pytest.approx(binomtest(8, 8, 0.5, alternative="greater").pvalue)


@pytest.mark.parametrize("lacks", [range(16), [15]], ids=["all", "one"])
def test_without_the_attacks_own_floor_nothing_is_said_of_choices(lacks):
    """A floor that is told nothing must not stand in for it, and a half-finished run is no evidence."""
    rows = rows_of_both(10, 10)
    mean = [row | {"attack": "floor:mean-image", "floor": "mean-image", "iip": False} for row in rows[:16]]
    found = evidence_of([*rows, *mean], lacks)
    assert (found.measures, found.complete) == ((), False)
    assert verdict(line(-9.0, 2.0), found, 1) == "unsure"


def test_the_floor_of_another_setting_does_not_stand_in():
    rows = rows_of_both(16, 16)
    running = [row | {"bn_stats": "running"} if row.get("floor") else row for row in rows]
    assert evidence_of(rows).measures[0].rival == 16
    assert evidence_of(running).measures == ()


def test_of_two_attack_seeds_those_count_whose_floor_is_there():
    rows = rows_of_both(16, 16)
    second = [row | {"attack_seed": 1} for row in rows if not row.get("floor")]
    first_floorless = [row | ({"attack_seed": 1} if row.get("floor") else {}) for row in rows]
    found = evidence_of(first_floorless + second)
    assert (found.measures[0].right, found.measures[0].rival) == (16, 16)


def test_the_strongest_floor_is_told_where_no_floor_is_beaten():
    rows = rows_of_both(0, 8)
    mean = [row | {"attack": "floor:mean-image", "floor": "mean-image", "iip": False} for row in rows[:16]]
    assert evidence_of([*mean, *rows]).measures[0].rival == 8


def test_who_knows_the_gradient_alone_is_compared_with_chance():
    found = choosing(8, 8, gallery_labels="same", bn_stats="running")
    assert found.rival is None
    assert found.p == pytest.approx(binomtest(8, 16, 0.04, alternative="greater").pvalue)


@pytest.mark.parametrize(
    ("right", "rival", "images", "expected"),
    [
        (16, 8, 16, "better"),
        (9, 8, 16, "unsure"),
        (2, 2, 32, "guess"),
        (30, 30, 32, "unsure"),  # no attack could have shown itself better than this floor
    ],
)
def test_verdicts_against_a_floors_choices(right, rival, images, expected):
    gained = max(right - rival, 0)
    p = binomtest(gained, gained, 0.5, alternative="greater").pvalue if gained else 1.0
    found = Measure("iip", right, images, rival / images, p, rival)
    assert verdict(line(-1.0), Evidence(images, (found,)), 1) == expected


def of_batches(attack, floor, size=8, **more):
    """The measures of an attack, and its noise floor, that have these PSNR; [batches, size]."""
    rows = []
    for name, psnr in (("dlg", attack), ("floor:noise-gradient", floor)):
        own = {"floor": "noise-gradient", "floor_of": "dlg"} if name.startswith("floor") else {}
        for seed, batch in enumerate(psnr):
            for i, each in enumerate(batch):
                row = {"attack": name, "defense": "none", "batch_size": size, "batch_seed": seed, "image": i}
                row |= {"status": "ok", "attack_seed": 0, "data": "x", "original_index": seed * size + i}
                rows.append(
                    row | {"psnr": float(each)} | own | {k: v[name][seed][i] for k, v in more.items()}
                )
    table = frame(rows)
    return evidence(table[table["floor"].isna()], rivals(table))


def test_a_batch_counts_once_where_one_search_rebuilt_it_all():
    """A search that happens to come out well is no evidence, however many images it rebuilt."""
    rng = np.random.default_rng(0)
    claims = 0
    for _ in range(60):
        attack, floor = rng.normal(12, 1, (2, 7, 1)) + rng.normal(0, 0.3, (2, 7, 8))
        (measure,) = of_batches(attack, floor).measures
        assert (measure.tried, measure.batches) == (7, True)
        claims += measure.above_chance(0.05)
    # 1 in 16 would be right by chance in 7 of 7 or 6 of 7; image by image a quarter and more
    assert claims <= 8
    assert of_batches(attack * 0 + 1, floor * 0).measures[0].p == pytest.approx(0.5**7)


def test_half_of_a_batch_is_no_majority_of_it():
    (measure,) = of_batches([[1, 1, 0, 0]] * 3 + [[1, 1, 1, 0]], [[0.5] * 4] * 4, size=4).measures
    assert (measure.right, measure.tried) == (1, 4)


def test_choices_of_a_batch_count_once_too():
    """Ties are no evidence: of 6 batches the attack has more in 3, the floor in none."""
    own = [[True, True]] * 3 + [[True, False]] * 3
    other = [[True, False]] * 6
    known = {"dlg": own, "floor:noise-gradient": other}
    told = {
        name: {key: [[value] * 2] * 6 for key in known}
        for name, value in {"labels": "known", "gallery_labels": "any", "iip_chance": 0.04}.items()
    }
    found = of_batches([[1, 1]] * 6, [[1, 1]] * 6, size=2, iip=known, **told).measures[-1]
    assert (found.name, found.right, found.tried, found.rival) == ("iip", 3, 6, 0)
    assert found.p == 0.5**3


def test_two_that_choose_alike_are_rarely_told_apart():
    """Over all outcomes of an attack and a floor that are right equally often, each for itself."""
    level, images = 0.05, 12
    for share in (0.1, 0.5, 0.9):
        told = 0.0
        for gained in range(images + 1):
            for lost in range(images + 1 - gained):
                same = images - gained - lost
                either = share * (1 - share)
                mass = multinomial.pmf([gained, lost, same], images, [either, either, 1 - 2 * either])
                own = pd.Series([True] * gained + [False] * lost + [True] * same)
                other = pd.Series([0.0] * gained + [1.0] * lost + [1.0] * same)
                told += mass * _paired("iip", own, other, np.arange(images)).above_chance(level)
        assert told <= level


def test_copies_of_one_photograph_in_a_batch_count_once(make_rows):
    """One lucky choice is one, however often the batch holds its image."""
    rows = make_rows("dlg", "none", 4, 12.0, 0.4)
    for row in rows:
        row |= {"original_index": row["image"], "identified": True, "gallery_size": 200}
        row |= {"gallery_labels": "same", "copy_of": None if row["image"] == 0 else 0}
    table = frame(rows)
    found = evidence(table, rivals(table))
    (chosen,) = [measure for measure in found.measures if measure.name == "identified"]
    assert (found.images, chosen.right, chosen.tried) == (1, 1, 1)
    assert chosen.p == pytest.approx(1 / 200)
    apart = table.assign(copy_of=pd.NA)
    assert evidence(apart, rivals(apart)).images == 4
