"""The summary against the same numbers computed by hand."""

import numpy as np
import pandas as pd
import pytest

from dpbench.report.naming import number
from dpbench.report.summary import summary
from dpbench.store.columns import conditions
from dpbench.store.schema import frame


def one(lines, **conditions):
    for name, value in conditions.items():
        lines = lines[(lines[name] == value).fillna(False).astype(bool)]
    assert len(lines) == 1
    return lines.iloc[0]


def test_numbers_by_hand(make_rows):
    psnr, lpips = [10.0, 14.0, 30.0], [0.5, 0.2, 0.1]
    right = [True, False, True]
    rows = []
    for seed in range(3):
        row = make_rows("dlg", "none", 1, 0, 0, seed=seed)[0]
        row |= {"psnr": psnr[seed], "lpips": lpips[seed], "label_correct": right[seed], "seconds": seed + 1.0}
        row |= {"compile_seconds": 2.0 * seed}
        row |= {"iip": seed == 2, "iip_chance": 0.02}
        rows.append(
            row
            | {
                "psnr_floor": 12.0,
                "lpips_floor": 0.4,
                "ssim": psnr[seed] / 100,
                "iip": seed == 2,
                "iip_chance": 0.02,
            }
        )
    line = one(summary(frame(rows)), attack="dlg")
    expected = {
        "psnr_mean": 18.0,
        "psnr_median": 14.0,
        "psnr_max": 30.0,
        "psnr_q10": 10 + 0.2 * 4,
        "psnr_q90": 14 + 0.8 * 16,
        "ssim_median": 0.14,
        "ssim_max": 0.30,
        "lpips_mean": 0.8 / 3,
        "lpips_median": 0.2,
        "lpips_min": 0.1,
        "psnr_over_floor_median": 2.0,
        "psnr_over_floor_max": 18.0,
        "lpips_to_floor_median": 0.5,
        "lpips_to_floor_min": 0.25,
        "label_accuracy": 2 / 3,
        "seconds": 2.0,
        "compile_seconds": 2.0,
        "images": 3,
        "cells": 3,
        "failed": 0,
        "iip": 1 / 3,
        "iip_chance": 0.02,
    }
    for name, value in expected.items():
        assert line[name] == pytest.approx(value), name


@pytest.mark.parametrize(("psnr", "over"), [(13.0, -np.inf), (np.inf, 0.0)])
def test_a_flat_images_floor_cannot_be_beaten(make_rows, psnr, over):
    row = make_rows("dlg", "none", 1, 0, 0)[0]
    row |= {"psnr": psnr, "psnr_floor": np.inf, "lpips": 0.0, "lpips_floor": 0.0}
    line = one(summary(frame([row])), attack="dlg")
    assert line["psnr_over_floor_median"] == line["psnr_over_floor_max"] == over
    assert line["lpips_to_floor_median"] == 1
    assert number(line["psnr_over_floor_median"], "+.1f") == {13.0: "-∞", np.inf: "+0.0"}[psnr]


def test_against_a_plain_loop_over_conditions(make_run, make_rows):
    rows = make_rows("dlg", "prune", 4, 15, 0.2, prune_ratio=0.9, seed=0)
    rows += make_rows("dlg", "prune", 4, 17, 0.2, prune_ratio=0.9, seed=1)
    rows += make_rows("dlg", "prune", 4, 12, 0.3, prune_ratio=0.99)
    table = pd.concat([make_run(), frame(rows)], ignore_index=True)
    lines = summary(table)
    seen = 0
    for _, line in lines.iterrows():
        same = np.ones(len(table), bool)
        for name in conditions():
            equal = table[name].isna() if pd.isna(line[name]) else (table[name] == line[name]).fillna(False)
            same &= equal.to_numpy(bool)
        part = table[same]
        seen += len(part)
        assert line["images"] == len(part)
        assert line["cells"] == part["key"].nunique()
        assert line["psnr_mean"] == pytest.approx(np.mean(part["psnr"]))
        assert line["psnr_q90"] == pytest.approx(np.quantile(part["psnr"], 0.9))
        assert line["lpips_median"] == pytest.approx(np.median(part["lpips"]))
        assert line["lpips_min"] == part["lpips"].min()
        assert line["psnr_over_floor_max"] == pytest.approx((part["psnr"] - part["psnr_floor"]).max())
        if part["label_correct"].notna().any():
            assert line["label_accuracy"] == pytest.approx(part["label_correct"].mean())
    assert seen == len(table)


@pytest.mark.parametrize("name", conditions())
def test_rows_that_differ_in_any_condition_stay_apart(make_rows, name):
    values = {"string": ("a", "b"), "Int64": (1, 2), "float64": (1.0, 2.0), "boolean": (True, False)}
    first, second = make_rows("dlg", "none", 1, 10, 0.1)[0], make_rows("dlg", "none", 1, 30, 0.1)[0]
    dtype = str(frame([])[name].dtype).replace("str", "string").replace("stringing", "string")
    pair = values[dtype]
    assert len(summary(frame([first | {name: pair[0]}, second | {name: pair[1]}]))) == 2
    assert len(summary(frame([first | {name: pair[0]}, second | {name: None}]))) == 2


def test_seeds_and_images_are_averaged_over(make_rows):
    rows = [row for seed in range(5) for row in make_rows("dlg", "none", 4, 20, 0.1, seed=seed)]
    line = one(summary(frame(rows)), attack="dlg")
    assert (line["images"], line["cells"]) == (20, 5)


def test_failed_cells_are_counted_and_not_measured(make_rows):
    good = make_rows("dlg", "none", 4, 20, 0.1)
    bad = [
        row | {"status": "failed", "key": "bad", "psnr": 99.0} for row in make_rows("dlg", "none", 4, 0, 0.1)
    ]
    line = one(summary(frame(good + bad)), attack="dlg")
    assert (line["images"], line["cells"], line["failed"]) == (4, 1, 1)
    assert line["psnr_max"] < 21
    only = one(summary(frame(bad)), attack="dlg")
    assert (only["images"], only["failed"]) == (0, 1)
    assert pd.isna(only["psnr_mean"])


def test_order_floors_then_undefended_then_defended(make_run, make_rows):
    more = frame(make_rows("dlg", "prune", 1, 15, 0.2, prune_ratio=0.9))
    lines = summary(pd.concat([more, make_run(batch_sizes=(4, 1))], ignore_index=True))
    assert lines["batch_size"].is_monotonic_increasing
    first = lines[lines["batch_size"] == 1]
    kinds = [
        "floor" if a.startswith("floor:") else d
        for a, d in zip(first["attack"], first["defense"], strict=True)
    ]
    assert kinds == ["floor"] * 4 + ["none", "prune", "dp", "dp"]
    assert first["eps"].dropna().tolist() == [1.0, 1000.0]


def test_nothing_at_all():
    assert len(summary(frame([]))) == 0


def test_the_ablation_is_told_in_its_own_order(make_rows):
    terms = ("registered", "lazy", "gradient", "fidelity")
    rows = [row for t in terms for row in make_rows("gradinversion", "none", 1, 10, 0.2, terms=t, key=t)]
    assert list(summary(frame(rows))["terms"]) == ["gradient", "fidelity", "lazy", "registered"]
