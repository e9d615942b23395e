"""Flags about attacks: each is raised by rows that call for it, and not by rows that nearly do."""

import re

import pandas as pd
import pytest

from dpbench.report.flags import flags
from dpbench.report.flags.adaptive import KIND
from dpbench.report.flags.floors import BEATEN, FAILS
from dpbench.store.schema import frame


def without(rows, *attacks):
    return [row for row in rows if row["attack"] not in attacks]


def test_a_run_without_faults_has_no_flags(make_run, raised):
    assert raised(make_run()) == []


def test_there_are_no_flags_without_results(raised):
    assert raised([]) == []


def test_a_floor_that_is_nearer_by_psnr_and_no_less_alike_is_named_with_its_lead(make_run, raised):
    (flag,) = raised(make_run(defended=(8.0, 0.9), batch_sizes=(1,)))
    assert flag.kind == BEATEN
    assert "than inverting-gradients by the median of paired PSNR" in flag.text
    table = make_run(defended=(8.0, 0.9), batch_sizes=(1,)).set_index("key")["psnr"]
    lead = table["floor-mean-image-none--1-0"] - table["inverting-gradients-dp-1-0-1-0"]
    assert f"mean-image by {lead:.1f} dB under dp ε=1 (1 image)" in flag.text
    assert "constant-image" not in flag.text  # no attack could have handed back what it is made from
    assert flag.keys == ("inverting-gradients-dp-1-0-1-0", "inverting-gradients-dp-1000-0-1-0")


def test_without_lpips_nothing_is_said_of_it(make_run, raised):
    (flag,) = raised(make_run(defended=(8.0, 0.9), batch_sizes=(1,), lpips_there=False))
    assert flag.kind == BEATEN
    assert "LPIPS" not in flag.text


def test_victims_are_told_apart(make_run, raised):
    table = make_run(defended=(8.0, 0.9), batch_sizes=(1,))
    other = table.assign(victim="trained", key=table["key"] + "-trained")
    (flag,) = raised(pd.concat([table, other], ignore_index=True))
    assert "under dp ε=1 in batches of 1, victim early (1 image)" in flag.text


@pytest.mark.parametrize(
    ("psnr", "lpips", "why"), [(11.5, 0.9, "less than the margin"), (8.0, 0.2, "more alike by LPIPS")]
)
def test_a_floor_that_is_hardly_nearer_or_less_alike_is_not_named(make_run, raised, psnr, lpips, why):
    assert raised(make_run(defended=(psnr, lpips))) == [], why


def test_the_best_of_unnamed_floors_is_no_guess(make_rows, raised, dp):
    """It may be the constant image, which is made from the original."""
    rows = make_rows("dlg", "none", 1, 20, 0.08) + make_rows("dlg", "dp", 1, 8.0, 0.9, **dp)
    assert BEATEN not in {flag.kind for flag in raised(frame(rows))}
    named = make_rows("floor:mean-image", "none", 1, 12.2, 0.2)
    assert BEATEN in {flag.kind for flag in raised(frame(rows + named))}


def test_batch_sizes_are_told_apart_and_only_the_first_settings_are_spelt_out(make_run, raised):
    (flag,) = raised(make_run(defended=(8.0, 0.9)))
    assert "under dp ε=1000 in batches of 1 (1 image)" in flag.text
    assert "under dp ε=1000 in batches of 4" not in flag.text  # the fourth setting
    assert "; and in 1 more setting;" in flag.text
    assert len(flag.keys) == 4


def test_an_attack_at_chance_without_a_defence_credits_none(make_run, raised, in_batches_of_their_own):
    (flag,) = raised(in_batches_of_their_own(make_run(undefended=(10.9, 0.65), batch_sizes=(24,))))
    assert flag.kind == FAILS
    assert flag.text.startswith(
        "inverting-gradients is not seen to do better on the undefended gradient than a guess without it "
        "(24 images: 11.0 dB PSNR, -1.2 dB against the best floor; batches of 1)"
    )
    assert len(flag.keys) == 3  # undefended, and dp at two budgets


def test_too_few_images_are_said_to_show_nothing(make_run, raised):
    (flag,) = raised(make_run(undefended=(10.9, 0.65), batch_sizes=(1,)))
    assert flag.kind == FAILS
    assert flag.text.startswith("1 image cannot show that inverting-gradients does better")
    assert re.search(r" It takes about \d\d images to see that one is no better\.", flag.text)


def test_a_search_of_one_image_that_fails_points_to_the_closed_form(make_run, make_rows, raised):
    alone = make_run(undefended=(10.9, 0.65), batch_sizes=(1,))
    assert raised(alone)[0].text.endswith("add --attack peel.")
    peel = frame(make_rows("peel", "none", 1, 60, 0.0))
    assert "peel" not in raised(pd.concat([alone, peel]))[0].text
    assert "peel" not in raised(make_run(undefended=(10.9, 0.65), batch_sizes=(4,)))[0].text
    for more in ({"local_epochs": 2}, {"clients": 3}, {"threat_model": "malicious-linear"}):
        assert "peel" not in raised(alone.assign(**more))[0].text  # it refuses these


def test_an_attack_whose_undefended_cells_failed_is_named(make_run, raised):
    table = make_run(batch_sizes=(1,))
    bare = (table["attack"] == "inverting-gradients") & (table["defense"] == "none")
    table.loc[bare, "status"] = "failed"
    (flag,) = raised(table)
    assert flag.kind == FAILS
    assert "has no undefended result (1 cell failed or skipped; batches of 1)" in flag.text


@pytest.fixture
def both(make_run, make_rows, dp):
    """A run without floors; `both(gain)` adds rows that are not adaptive, so many dB nearer."""

    def made(gain, seeds=range(3), **more):
        rows = []
        for seed in range(3):
            given = {"seed": seed, "prior": "wiener"}
            rows += make_rows("dlg", "none", 1, 25, 0.01, **given)
            rows += make_rows("dlg", "dp", 1, 14, 0.3, **(given | dp))
        for row in [row for row in rows if row["defense"] == "dp" and row["batch_seed"] in seeds]:
            rows.append(row | {"adaptive": False, "psnr": row["psnr"] + gain, "key": f"n{row['key']}"} | more)
        return frame(rows)

    return made


def test_an_attack_that_ignores_the_defence_and_gets_nearer_is_named(both):
    (flag,) = flags(both(2.25))
    assert flag.kind == KIND
    assert flag.text.startswith("dlg is nearer the originals without its answer to the defence than with it")
    assert ": 2.2 dB under dp ε=1 (3 images);" in flag.text or ": 2.3 dB under" in flag.text
    assert set(flag.keys) == {f"dlg-dp-1-0-1-{seed}" for seed in range(3)}


def test_only_pairs_of_the_same_batch_count(both):
    (flag,) = flags(both(2.0, seeds=(0, 2)))
    assert "(2 images)" in flag.text
    assert flags(both(2.0, seeds=(), batch_seed=7)) == []


@pytest.mark.parametrize("more", [{"max_grad_norm": 3.0}, {"prior": "none"}, {"batch_seed": 9}])
def test_rows_that_differ_in_something_else_are_no_pairs(both, more):
    table = both(2.0, **more)
    assert [flag for flag in flags(table) if flag.kind == KIND] == []


def test_a_gain_below_the_margin_and_a_loss_are_not_named(both):
    assert flags(both(0.9)) == []
    assert flags(both(-1.5)) == []


def test_exact_copies_are_level(both):
    table = both(0.0).copy(deep=True)
    table.loc[table["defense"] == "dp", "psnr"] = float("inf")
    assert flags(table) == []


def test_attackers_who_rebuild_no_image_are_not_compared_with_floors(make_run, make_rows, dp):
    more = {"threat_model": "informed", "success": 0.3, "success_bound": 0.5, "candidates": 10, "trials": 40}
    informed = make_rows("prior-aware", "dp", 1, 0, 0, **(more | dp))
    informed = [
        {k: v for k, v in row.items() if k not in ("psnr", "lpips", "psnr_floor")} for row in informed
    ]
    labels = make_rows("label-restoration", "none", 1, 0, 0)
    labels = [{k: v for k, v in row.items() if k not in ("psnr", "lpips", "psnr_floor")} for row in labels]
    assert flags(pd.concat([make_run(), frame(informed + labels)])) == []


def test_an_attack_without_any_result_credits_nobody(make_run, raised):
    """All attacks on all victims hold many that do not apply; none of their rows can be misread."""
    table = make_run(batch_sizes=(1,))
    table.loc[table["attack"] == "inverting-gradients", "status"] = "skipped"
    assert raised(table) == []
