"""The sentence says what the numbers say, in each case."""

import re

import numpy as np
import pandas as pd
import pytest

from attacks.base import attacks
from dpbench.report.naming import Naming
from dpbench.report.page.verdicts import picked, verdicts
from dpbench.report.rows import WITHOUT_GRADIENT
from dpbench.report.sentence import sentence
from dpbench.report.summary import summary
from dpbench.report.tables import to_markdown
from dpbench.store.schema import frame


def test_success_undefended_and_dp_at_the_floor(make_run):
    said = sentence(make_run(batch_sizes=(1,)))
    assert said.startswith(
        "Against the early convnet, batch of 1: inverting-gradients rebuilds the undefended image ("
    )
    assert "under dp ε=1 (" in said
    assert "there are not enough images to say whether it does better than a guess" in said
    assert "one image says nothing of others" in said
    assert "whole training by the pld accountant" in said
    assert "LPIPS is empty" not in said


def test_the_numbers_are_the_tables(make_rows, dp):
    undefended = make_rows("dlg", "none", 1, 0, 0, psnr=21.0, psnr_floor=12.5, lpips=0.11, lpips_floor=0.28)
    defended = make_rows("dlg", "dp", 1, 0, 0, **dp, psnr=9.0, psnr_floor=12.5, lpips=0.41, lpips_floor=0.28)
    said = sentence(frame(undefended + defended))
    numbers = (
        "(1 image: 21.0 dB PSNR, 8.5 dB above the best floor, LPIPS 0.11 against the lowest floor's 0.28, "
    )
    assert numbers in said
    assert (
        "dp ε=1 (1 image: 3.5 dB below; 0 of 1 nearer by PSNR than the strongest guess, 95 % interval" in said
    )


def test_failure_undefended_credits_no_defence(make_run, in_batches_of_their_own):
    table = make_run(undefended=(11.0, 0.4), defended=(9.0, 0.5), batch_sizes=(16,))
    said = sentence(in_batches_of_their_own(table))
    assert said.count("is not seen to do better on the undefended gradient than a guess without it") == 1
    assert said.count("so nothing here can be credited to a defence") == 1
    assert "rebuil" not in said


def test_few_images_are_no_reason_to_speak_of_a_guess(make_run):
    said = sentence(make_run(undefended=(11.0, 0.4), defended=(9.0, 0.5), batch_sizes=(1, 4)))
    for wanting in ("images", "batches"):  # of one image, and of four
        assert f"there are not enough {wanting} to say whether inverting-gradients does better on" in said
    assert said.count("so nothing here can be credited to a defence") == 2
    assert "not seen" not in said
    assert re.search(r"it takes about \d\d images or \d\d batches to see that an attack is no better", said)


def test_as_many_images_as_are_said_to_be_enough_are(make_run, in_batches_of_their_own):
    """Half of them nearer than the strongest guess and half not, as of an attack that sees nothing."""

    def said(images):
        table = in_batches_of_their_own(make_run(undefended=(12.2, 0.2375), dp=False, batch_sizes=(images,)))
        attacked = table["floor"].isna()
        even = np.arange(len(table)) % 2 == 0
        psnr = table["psnr"].mask(attacked, np.where(even, 9.0, 30.0))
        lpips = table["lpips"].mask(attacked, np.where(even, 0.9, 0.01))
        return sentence(table.assign(psnr=psnr, lpips=lpips))

    enough = int(re.search(r"it takes about (\d+) images", said(6))[1])
    assert "is not seen to do better" in said(enough)
    assert "there are not enough images" in said(enough - 2)


def test_better_than_a_guess_is_not_rebuilt(make_run, in_batches_of_their_own):
    for undefended in ((14.5, 0.2), (20.0, 0.30)):  # PSNR high, but noise looks as alike
        said = sentence(in_batches_of_their_own(make_run(undefended=undefended, batch_sizes=(8,))))
        assert "inverting-gradients does better on the undefended gradient than a guess without it (8" in said
        assert "rebuil" not in said


def test_a_defence_that_does_not_hold_is_named(make_run, in_batches_of_their_own):
    assert "under dp ε=1" in sentence(make_run(defended=(19.0, 0.1)))
    assert "they are still rebuilt" in sentence(make_run(defended=(19.0, 0.1)))
    weak = in_batches_of_their_own(make_run(defended=(14.0, 0.2), batch_sizes=(8,)))
    assert "it does better than a guess" in sentence(weak)


def test_defences_are_listed_by_what_is_left(make_run, make_rows):
    more = frame(make_rows("inverting-gradients", "prune", 1, 19, 0.1, prune_ratio=0.9))
    said = sentence(pd.concat([make_run(batch_sizes=(1,)), more], ignore_index=True))
    assert "under prune (" in said
    assert said.index("it is still rebuilt") < said.index("under dp ε=1 (")


def test_the_strongest_attack_speaks(make_run, make_rows):
    more = frame(make_rows("dlg", "none", 1, 40, 0.01))
    said = sentence(pd.concat([make_run(batch_sizes=(1,)), more], ignore_index=True))
    assert "batch of 1: dlg rebuilds" in said
    assert "dp ε=1 (inverting-gradients, 1 image: 3." in said


def test_no_attack_is_said_to_fail_under_a_defence_that_it_was_not_tried_on(make_run, make_rows, dp):
    """Another one was: what "it" does is not known."""
    more = make_rows("dlg", "none", 1, 13, 0.3) + make_rows("dlg", "dp", 1, 9, 0.5, **dp)
    table = pd.concat([make_run(dp=False, batch_sizes=(1,)), frame(more)], ignore_index=True)
    assert "there are not enough images to say whether any attack does better" in sentence(table)


def test_without_lpips(make_run):
    said = sentence(make_run(lpips_there=False))
    assert "LPIPS is empty" in said
    assert "rebuilds the undefended images" in said


def test_without_dp(make_run):
    said = sentence(make_run(dp=False))
    assert said.count("no defence was tried") == 2
    assert "accountant" not in said


def test_the_worst_case_behind_a_median_at_the_floor(make_run, make_rows, dp):
    rows = make_rows("inverting-gradients", "dp", 4, 9.0, 0.45, **dp)
    rows[2]["psnr"] = 19.0
    table = pd.concat([make_run(dp=False, batch_sizes=(4,)), frame(rows)], ignore_index=True)
    assert "6.8 dB above for the most exposed image" in sentence(table)


def test_without_floors_or_without_an_undefended_row(make_run):
    table = make_run()
    bare = table.assign(psnr_floor=float("nan"), lpips_floor=float("nan"))
    assert "there are no floors to judge inverting-gradients" in sentence(bare)
    assert "without an undefended result no defence can be credited" in sentence(
        table[table["defense"] == "dp"]
    )


def test_failures_and_nothing(make_run, make_rows):
    failed = frame(make_rows("inverting-gradients", "clip", 1, 0, 0, status="failed", key="bad"))
    assert "1 cell has no result" in sentence(pd.concat([make_run(), failed], ignore_index=True))
    assert sentence(failed) == "There is nothing to say: no attack ended well (1 cell has no result)."
    floor = failed.assign(key="floor", floor="mean-image", attack="floor:mean-image")
    said = sentence(pd.concat([make_run(), failed, floor], ignore_index=True))
    assert "2 cells have no result" in said  # as the notes under the table count them
    assert sentence(frame([])).startswith("There is nothing to say")


def test_a_defence_without_a_result_is_not_untried(make_rows):
    rows = make_rows("dlg", "none", 1, 20, 0.08)
    rows += make_rows("dlg", "clip", 1, 0, 0, status="failed", key="bad")
    said = sentence(frame(rows))
    assert "; there is no result under clip (" in said
    assert said.endswith("; 1 cell has no result).")
    assert "no defence was tried" not in said
    said = sentence(frame(rows + make_rows("dlg", "prune", 1, 9, 0.5, prune_ratio=0.9)))
    assert "but under prune (1 image: 3." in said
    assert "; there is no result under clip" in said


def test_wrong_inferred_labels_are_told(make_rows):
    said = sentence(frame(make_rows("dlg", "none", 4, 20, 0.08)))
    assert "50% of its labels right" in said
    known = make_rows("dlg", "none", 4, 20, 0.08, labels="known", label_correct=True)
    assert "labels right" not in sentence(frame(known))


def test_conditions_that_vary_are_named(make_rows):
    rows = make_rows("dlg", "none", 1, 14, 0.2) + make_rows("dlg", "none", 1, 20, 0.08, labels="known")
    assert "dlg (labels known) rebuilds" in sentence(frame(rows))


@pytest.mark.parametrize(
    ("undefended", "defended", "expected"),
    [
        ((20.0, 0.08), (19.0, 0.1), ", and under clip (8 images: 6.8 dB above; X) they are still rebuilt"),
        (
            (20.0, 0.08),
            (14.0, 0.2),
            ", but under clip (8 images: 1.8 dB above; X) it does better than a guess",
        ),
        (
            (20.0, 0.08),
            (9.0, 0.4),
            ", but under clip (8 images: 3.2 dB below; X) it is not seen to do better",
        ),
        ((14.0, 0.2), (14.0, 0.2), ", and under clip (8 images: 1.8 dB above; X) it still does better than"),
        ((14.0, 0.2), (19.0, 0.1), ", and under clip (8 images: 6.8 dB above; X) they are rebuilt"),
        ((9.0, 0.4), (19.0, 0.1), ", and under clip (8 images: 6.8 dB above; X) they are rebuilt"),
    ],
)
def test_what_a_defence_changes_decides_the_conjunction(
    make_rows, in_batches_of_their_own, undefended, defended, expected
):
    rows = []
    for defense, (psnr, lpips) in (("none", undefended), ("clip", defended)):
        rows += make_rows("dlg", defense, 8, 0, 0, psnr=psnr, lpips=lpips)
    rows += make_rows("floor:mean-image", "none", 8, 0, 0, psnr=12.2, lpips=0.2375)
    before, after = expected.split("X")
    said = sentence(in_batches_of_their_own(frame(rows)))
    assert before in said
    assert after in said[said.index(before) :]


def test_identified_images_change_the_sentence(make_run, in_batches_of_their_own):
    """Six of 24 in a gallery of twenty are no chance (p = .001), whatever PSNR says."""
    table = make_run(undefended=(10.0, 0.4), dp=False, batch_sizes=(24,)).assign(gallery_size=20)
    attacked = table["floor"].isna()
    before = sentence(in_batches_of_their_own(table.assign(identified=False)))
    assert "is not seen to do better on the undefended gradient than a guess without it" in before
    table["identified"] = (attacked & (table["image"] < 6)).astype("boolean")
    after = sentence(table)
    assert "does better on the undefended gradient than a guess without it" in after
    assert "6 of 24 identified, 95 % interval 10 to 47 %, by chance 5 %" in after
    one = sentence(table.assign(identified=(attacked & (table["image"] < 1)).astype("boolean")))
    assert "there are not enough batches to say" in one


def test_all_identified_of_four_is_told(make_run):
    table = make_run(undefended=(11.0, 0.4), defended=(9.0, 0.5), batch_sizes=(4,)).assign(gallery_size=20)
    said = [sentence(table.assign(identified=flag)) for flag in (False, True)]
    assert "4 of 4 identified, 95 % interval 40 to 100 %, by chance 5 %" in said[1]
    assert "does better on the undefended gradient than a guess" in said[1]
    assert "under dp ε=1 (4 images: 3." in said[1]
    assert "so nothing here can be credited" in said[0]
    assert "so nothing here can be credited" not in said[1]


def test_the_worst_verdict_counts_whatever_its_psnr(make_rows, dp, in_batches_of_their_own):
    rows = make_rows("dlg", "none", 24, 20, 0.08)
    rows += make_rows("dlg", "dp", 24, 11.0, 0.45, **dp)
    hidden = make_rows("idlg", "dp", 24, 9.0, 0.45, **dp)
    for row in rows + hidden:
        row |= {"gallery_size": 20, "identified": False}
    rows += make_rows("floor:mean-image", "none", 24, 0, 0, psnr=12.2, lpips=0.2375)
    said = sentence(in_batches_of_their_own(frame(rows + hidden)))
    assert "no attack is seen to do better than a guess without the gradient" in said
    for row in hidden[:5]:
        row["identified"] = True
    said = sentence(frame(rows + hidden))
    assert "but under dp ε=1 (idlg, 24 images: 3." in said
    assert "an attack does better than a guess" in said


def test_the_same_photograph_counts_once(make_rows):
    rows = [row for seed in range(8) for row in make_rows("dlg", "none", 1, 11, 0.4, seed=seed)]
    for seed in range(8):
        rows += make_rows("floor:mean-image", "none", 1, 0, 0, psnr=12.2, lpips=0.2375, seed=seed)
    apart = sentence(frame([row | {"original_index": row["batch_seed"]} for row in rows]))
    assert (
        "dlg is not seen to do better on the undefended gradient than a guess without it (8 images: " in apart
    )
    again = sentence(frame([row | {"original_index": 0} for row in rows]))
    assert "not enough images to say whether dlg does better on the undefended gradient" in again
    assert "(1 image: " in again


def test_an_attack_as_good_as_the_floors_but_one_is_no_better_than_a_guess(make_run, in_batches_of_their_own):
    """Nearer than two guesses on every image and farther than the third."""
    table = make_run(undefended=(10.0, 0.6), dp=False, batch_sizes=(16,))
    said = sentence(in_batches_of_their_own(table))
    assert "is not seen to do better" in said


def test_a_constant_image_is_no_guess_as_it_is_made_from_the_original(make_run, in_batches_of_their_own):
    """Nearer than all that can be had without the image; the mean colour of the original is not."""
    table = make_run(undefended=(11.6, 0.6), dp=False, batch_sizes=(16,))
    said = sentence(in_batches_of_their_own(table))
    assert "0.6 dB below the best floor" in said
    assert "the best floor may be a constant image made from the original, which is no guess" in said
    assert "inverting-gradients does better on the undefended gradient than a guess without it" in said
    assert "16 of 16 nearer by PSNR than the strongest guess" in said


def test_without_the_floors_one_by_one_nothing_is_called_a_guess(make_rows, in_batches_of_their_own):
    """The best of all floors may be the constant image, whom nobody can be asked to beat."""
    table = in_batches_of_their_own(frame(make_rows("dlg", "none", 16, 9, 0.5)))
    assert "floors are missing to say whether dlg does better on the undefended gradient" in sentence(table)
    assert verdicts(table)[0].lines[0].words == "floors are missing"


def test_the_best_floor_of_each_image_is_no_guess(make_rows, in_batches_of_their_own):
    """Each of two floors is the nearer one on half of the images; the attack beats each on most of them."""
    rows = make_rows("dlg", "none", 32, 0, 0, lpips_there=False, psnr=12.0, psnr_floor=13.0)
    for name, good in (("mean-image", 0), ("start", 1)):
        of = {"floor_of": "dlg"} if name == "start" else {}
        floors = make_rows(f"floor:{name}", "none", 32, 0, 0, lpips_there=False, **of)
        for row in floors:
            row["psnr"] = 13.0 if row["image"] % 8 == good else 8.0
        rows += floors
    said = sentence(in_batches_of_their_own(frame(rows)))
    assert "dlg does better on the undefended gradient than a guess without it (32 images: 12.0" in said
    assert (
        "28 of 32 nearer by PSNR than the strongest guess, 95 % interval 71 to 96 %, by chance 50 %" in said
    )


def test_each_victim_has_a_line(make_run):
    table = pd.concat([make_run(), make_run().assign(victim="trained")], ignore_index=True)
    assert [line[:22] for line in sentence(table).splitlines()] == [
        "Against the early conv",
        "Against the trained co",
        "An informed attacker, ",
    ]


def test_release_scope_is_named(make_rows, dp):
    released = dp | {"eps": None, "eps_release": 1.0, "eps_scope": "release", "accountant": "analytic"}
    rows = make_rows("dlg", "none", 1, 20, 0.1) + make_rows("dlg", "dp", 1, 9, 0.4, **released)
    assert "ε is for the attacked gradient by the analytic accountant" in sentence(frame(rows))
    both = sentence(frame(rows + make_rows("dlg", "dp", 1, 9, 0.4, **dp | {"eps": 1.0, "eps_release": 3.9})))
    assert "ε is for the whole training by the pld accountant or for the attacked gradient by the " in both


def test_a_head_that_is_trained_alone_is_a_victim_of_its_own(make_run):
    whole, head = make_run(), make_run().assign(trainable="head")
    found = sentence(pd.concat([whole, head], ignore_index=True))
    assert found.count("of which the last layer alone is trained, batch") == 1
    assert "of which" not in sentence(whole)
    parts = pd.concat([whole, make_run().assign(trainable="head+blocks.3")], ignore_index=True)
    assert "of which the last layer and blocks.3 alone are trained, batch" in sentence(parts)


def test_victims_are_kept_apart(make_run):
    table = pd.concat(
        [make_run(), make_run(undefended=(9.0, 0.5)).assign(victim="trained")], ignore_index=True
    )
    said = sentence(table)
    assert "gainst the early convnet, batch of 1" in said
    assert "Against the trained convnet, batch of 1: there are not enough images to say whether" in said


def test_the_floors_choices_are_told_where_chance_is_not_what_a_guess_gets(make_run, in_batches_of_their_own):
    table = make_run(undefended=(11.0, 0.4), dp=False, batch_sizes=(8,)).assign(gallery_size=20)
    noise = table["floor"] == "noise-gradient"
    table["identified"] = (table["floor"].isna() | (noise & (table["image"] < 2))).astype("boolean")
    informed = table.assign(gallery_labels="any", labels="known")
    said = sentence(in_batches_of_their_own(informed))
    assert "8 of 8 identified, 95 % interval 63 to 100 %, by the strongest guess 2 of 8" in said
    assert "there are not enough batches to say" in sentence(informed)
    assert "by chance 5 %" in sentence(table.assign(gallery_labels="same"))


def test_what_reads_no_gradient_is_no_attack_on_it(make_rows):
    """DeepInversion has the nearest images; what it shows was not in the release."""
    attacked = make_rows("gradinversion", "none", 8, 9.0, 0.5)
    baseline = make_rows("deepinversion", "none", 8, 20.0, 0.1)
    both, alone = sentence(frame(attacked + baseline)), sentence(frame(baseline))
    assert both == sentence(frame(attacked))
    assert "deepinversion" not in both
    assert alone.startswith("deepinversion reads no gradient (early convnet, batch of 8: 8 images, medians 2")
    assert alone.endswith("LPIPS 0.10), so it says nothing of what a release gives away.")
    assert [block.lines[0].cells[0] for block in verdicts(frame(attacked + baseline))] == ["gradinversion"]
    assert verdicts(frame(baseline)) == []
    labels = [row | {"attack": "label-restoration"} for row in make_rows("x", "none", 8, 9.0, 0.5)]
    labels = [row | {"psnr": None, "lpips": None, "label_correct": True} for row in labels]
    told = sentence(frame(labels + baseline))
    assert told.startswith("Labels restored against the early convnet, batch of 8: 100.0% of 8 by label-")
    assert "deepinversion reads no gradient" in told


def test_restored_labels_are_counted_setting_by_setting(make_rows, dp):
    def rows(right: bool, defense: str, size: int, **more) -> list[dict]:
        made = make_rows("label-restoration", defense, size, 0, 0, **more)
        unseen = {"psnr": None, "lpips": None}
        return [row | unseen | {"label_rule": "minimum", "label_correct": right} for row in made]

    def under(eps: float, right: bool, size: int) -> list[dict]:
        return rows(right, "dp", size, **dp | {"eps": eps, "eps_release": eps})

    two = rows(True, "none", 1) + under(0.1, False, 1) + under(8, True, 1)
    said = sentence(frame(two + under(8, True, 4) + [row | {"victim": "trained"} for row in two]))
    of_one = (
        "batch of 1: 100.0% of 1 under no defence, 0.0% of 1 under dp ε=0.1 and 100.0% of 1 under dp ε=8 "
        "by label-restoration"
    )
    assert said.split("\n") == [
        f"Labels restored against the early convnet, {of_one}; batch of 4: 100.0% of 4 under dp ε=8 by "
        "label-restoration.",
        f"Labels restored against the trained convnet, {of_one}.",
    ]
    many = [row for eps in (1, 2, 4, 8, 16) for row in under(eps, eps > 8, 1)]
    assert "0.0% of 1 under dp ε=1 to 100.0% of 1 under dp ε=16, 5 settings in all, by label-" in sentence(
        frame(many)
    )
    others = [row | {"label_rule": "sum"} for row in rows(False, "none", 1)]
    said = sentence(frame(rows(True, "none", 1) + others + rows(None, "none", 4, status="failed")))
    assert said.endswith(
        "100.0% of 1 by label-restoration (labels by minimum), 0.0% of 1 by label-restoration (labels by sum)"
        "; batch of 4: no attack ended well."
    )


def test_the_baselines_without_a_gradient_are_the_attacks_that_noise_is_never_fed_to():
    found = [name for name, kind in attacks.items() if kind.rebuilds_images and not kind.noise_floor]
    assert tuple(found) == WITHOUT_GRADIENT


def test_a_median_as_high_as_the_most_exposed_image_hides_none(make_run):
    """Far above its floor by PSNR, and by LPIPS no more alike: there is no "yet" to it."""
    said = sentence(make_run(defended=(20.0, 0.3), batch_sizes=(1,)))
    assert "under dp ε=1 (1 image: 7." in said
    assert "most exposed" not in said


def test_a_victim_without_a_name_is_called_by_its_model(make_run):
    said = sentence(make_run(batch_sizes=(1,)).assign(victim=None))
    assert said.startswith("Against the convnet, batch of 1")


def test_labels_are_told_of_where_the_attack_on_images_failed(make_rows):
    nothing = {"status": "failed", "psnr": None, "label_correct": None}
    images = [row | nothing for row in make_rows("dlg", "none", 1, 9, 0.5)]
    labels = [
        row | {"psnr": None, "lpips": None} for row in make_rows("label-restoration", "none", 1, 9, 0.5)
    ]
    assert sentence(frame(images + labels)) == (
        "No attack that rebuilds images from a gradient ended well (1 cell has no result). Labels restored "
        "against the early convnet, batch of 1: 100.0% of 1 by label-restoration."
    )


def test_nearly_all_is_not_printed_as_all(make_rows, in_batches_of_their_own):
    rows = make_rows("dlg", "none", 256, 20, 0.08)
    rows = [row | {"label_correct": row["image"] > 0, "identified": True, "gallery_size": 20} for row in rows]
    table = in_batches_of_their_own(frame(rows))
    said = sentence(table)
    assert "99.6% of its labels right" in said
    assert "identified, 95 % interval 99 to 100 %" in said
    assert "| 99.6% |" in to_markdown(table)
    many = pd.concat([table] * 4, ignore_index=True).assign(batch_seed=range(1024))
    assert "identified, 95 % interval 99.6 to 100 %" in sentence(many)


@pytest.mark.parametrize(
    ("differing", "said"),
    [
        ({"victim": "trained"}, ["victim early", "victim trained"]),
        ({"adaptive": False}, ["dp ε=1", "dp ε=1, not adaptive"]),
    ],
)
def test_each_informed_attacker_is_told_of(make_rows, dp, differing, said):
    given = dp | {"threat_model": "informed", "candidates": 10, "success_bound": 0.65, "trials": 400}
    rows = [
        row | {"key": f"{share}", "success": share, "psnr": None, "lpips": None, "labels": "known"} | more
        for share, more in ((0.09, {}), (0.52, differing))
        for row in make_rows("prior-aware", "dp", 1, 0, 0, **given)
    ]
    told = sentence(frame(rows))
    assert f"{said[0]} (measured among 10 candidates: 9 % of 400 trials" in told
    assert f"{said[1]} (measured among 10 candidates: 52 % of 400 trials" in told
    lines = summary(frame(rows))
    names = [name for name, _ in picked(lines, Naming(frame(rows)))]
    assert [any(name.endswith(each) for name in names) for each in said] == [True, True]
