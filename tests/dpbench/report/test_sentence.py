"""The sentence says what the numbers say, in each case."""

import pandas as pd
import pytest

from dpbench.report.sentence import sentence, verdict
from dpbench.store.schema import frame


def test_success_undefended_and_dp_at_the_floor(make_run):
    said = sentence(make_run(batch_sizes=(1,)))
    assert said.startswith(
        "Against the early convnet, batch of 1: inverting-gradients rebuilds the undefended image ("
    )
    assert "under dp ε=1 (" in said
    assert "the attack does no better than a guess without the gradient" in said
    assert "whole training by the pld accountant" in said
    assert "LPIPS is empty" not in said


def test_the_numbers_are_the_tables(make_rows, dp):
    undefended = make_rows("dlg", "none", 1, 0, 0, psnr=21.0, psnr_floor=12.5, lpips=0.11, lpips_floor=0.28)
    defended = make_rows("dlg", "dp", 1, 0, 0, **dp, psnr=9.0, psnr_floor=12.5, lpips=0.41, lpips_floor=0.28)
    said = sentence(frame(undefended + defended))
    assert "(21.0 dB PSNR, 8.5 dB above the best floor, LPIPS 0.11 against the lowest floor's 0.28, " in said
    assert "dp ε=1 (3.5 dB below)" in said


def test_failure_undefended_credits_no_defence(make_run):
    said = sentence(make_run(undefended=(11.0, 0.4), defended=(9.0, 0.5)))
    assert said.count("does no better on the undefended gradient than a guess without it") == 2
    assert said.count("so nothing here can be credited to a defence") == 2
    assert "rebuil" not in said


def test_partial_success_is_called_partial(make_run):
    assert "only in part" in sentence(make_run(undefended=(14.5, 0.2)))
    assert "only in part" in sentence(
        make_run(undefended=(20.0, 0.30))
    )  # PSNR high, but noise looks as alike


def test_a_defence_that_does_not_hold_is_named(make_run):
    assert "under dp ε=1" in sentence(make_run(defended=(19.0, 0.1)))
    assert "they are still rebuilt" in sentence(make_run(defended=(19.0, 0.1)))
    assert "they are rebuilt in part" in sentence(make_run(defended=(14.0, 0.2)))


def test_defences_are_listed_by_what_is_left(make_run, make_rows):
    more = frame(make_rows("inverting-gradients", "prune", 1, 19, 0.1, prune_ratio=0.9))
    said = sentence(pd.concat([make_run(batch_sizes=(1,)), more], ignore_index=True))
    assert "under prune ratio=0.9 (" in said
    assert said.index("it is still rebuilt") < said.index("under dp ε=1 (")


def test_the_strongest_attack_speaks(make_run, make_rows):
    more = frame(make_rows("dlg", "none", 1, 40, 0.01))
    said = sentence(pd.concat([make_run(batch_sizes=(1,)), more], ignore_index=True))
    assert "batch of 1: dlg rebuilds" in said
    assert "dp ε=1 (inverting-gradients, 3." in said


def test_without_lpips(make_run):
    said = sentence(make_run(lpips_there=False))
    assert "LPIPS is empty, so PSNR alone judges" in said
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
    assert sentence(frame([])).startswith("There is nothing to say")


def test_noise_that_passes_lpips_is_a_guess(make_rows):
    made = make_rows("dlg", "none", 1, 0, 0, psnr=10.5, psnr_floor=14.1, lpips=0.27, lpips_floor=0.31)
    said = sentence(frame(made))
    assert "does no better on the undefended gradient than a guess without it (10.5 dB PSNR" in said


def test_a_defence_without_a_result_is_not_untried(make_rows):
    rows = make_rows("dlg", "none", 1, 20, 0.08)
    rows += make_rows("dlg", "clip", 1, 0, 0, status="failed", key="bad")
    said = sentence(frame(rows))
    assert said.endswith("; there is no result under clip (1 cell has no result).")
    assert "no defence was tried" not in said
    said = sentence(frame(rows + make_rows("dlg", "prune", 1, 9, 0.5, prune_ratio=0.9)))
    assert "but under prune ratio=0.9 (3." in said
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
        ((20.0, 0.08), (19.0, 0.1), ", and under clip (6.8 dB above) it is still rebuilt"),
        ((20.0, 0.08), (14.0, 0.2), ", but under clip (1.8 dB above) it is rebuilt in part"),
        ((20.0, 0.08), (9.0, 0.4), ", but under clip (3.2 dB below) the attack does no better than"),
        ((14.0, 0.2), (14.0, 0.2), ", and under clip (1.8 dB above) it is rebuilt in part"),
        ((14.0, 0.2), (19.0, 0.1), ", and under clip (6.8 dB above) it is rebuilt"),
    ],
)
def test_what_a_defence_changes_decides_the_conjunction(make_rows, undefended, defended, expected):
    rows = []
    for defense, (psnr, lpips) in (("none", undefended), ("clip", defended)):
        rows += make_rows("dlg", defense, 1, 0, 0, psnr=psnr, lpips=lpips)
    assert expected in sentence(frame(rows))


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


def test_victims_are_kept_apart(make_run):
    table = pd.concat(
        [make_run(), make_run(undefended=(9.0, 0.5)).assign(victim="trained")], ignore_index=True
    )
    said = sentence(table)
    assert "gainst the early convnet, batch of 1" in said
    assert "Against the trained convnet, batch of 1: inverting-gradients does no better" in said


@pytest.mark.parametrize(
    ("over", "ratio", "expected"),
    [
        (3.0, 0.99, "works"),
        (3.0, float("nan"), "works"),
        (3.0, 1.0, "partly"),
        (2.9, 0.2, "partly"),
        (1.0, 0.9, "floor"),
        (1.0, float("nan"), "floor"),
        (1.0, 0.67, "floor"),
        (1.1, 0.9, "partly"),
        (-5.0, 0.66, "partly"),
        (-3.6, 0.27 / 0.31, "floor"),
        (float("nan"), 0.1, "unknown"),
        (float("inf"), 0.0, "works"),
    ],
)
def test_verdicts_at_their_borders(over, ratio, expected):
    assert verdict(over, ratio) == expected
