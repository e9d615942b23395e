"""The figures of docs/filters.md follow from the formulas, the stored audits and the stored run."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from defenses.sparse_vector import SparseVector
from dpbench.audit.options import defence_of, parse
from dpbench.audit.statistics import epsilon_bound, lower_bound
from dpbench.privacy import local_dp_epsilon, sparse_vector_epsilon

ROOT = Path(__file__).parents[1]
STORED = ROOT / "results" / "reference" / "filters"
PAGE = (ROOT / "docs" / "filters.md").read_text()

torch.set_num_threads(1)


def table(columns):
    lines = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines if len(line) == columns]


def commands():
    """Number of the row and the arguments of its audit."""
    found = re.findall(r"^(\d+)\. `python -m dpbench\.audit (.*)`", PAGE, re.MULTILINE)
    return {int(number): arguments.split() for number, arguments in found}


def number(text):
    return float(text.replace(",", "").replace("≥ ", "").replace("≤ ", ""))


AUDITS = {int(row[0]): row for row in table(7) if row[0].isdigit()}


def test_every_audited_row_has_its_command():
    assert sorted(commands()) == [1, 2, 3, 4, 5, 7, 8, 9]
    assert sorted(AUDITS) == list(range(1, 11))


@pytest.mark.parametrize("row", sorted(commands()))
def test_audits_are_those_that_are_stored(row):
    given = parse(commands()[row])
    stored = json.loads((STORED / Path(given["out"]).name).read_text())
    assert (stored["defense"], stored["releases"], stored["delta"]) == (given["defense"], 20_000, 1e-5)
    _, _, claims, _, plain, gaussian, outcome = AUDITS[row]
    expected = given["claimed_eps"]
    if expected is None and (claim := defence_of(given).claim(48)) is not None:
        expected = claim.eps
    assert stored["claimed_eps"] == (None if expected is None else pytest.approx(expected))
    assert claims == ("nothing" if expected is None else f"{expected:g}")
    assert plain == f"{max(f['eps'] for f in stored['findings']):.2f}"
    assert gaussian == (f"{stored['eps']:.1f}" if stored["gaussian"] else "–")
    assert outcome == ("refuted" if stored["failed"] else "–" if expected is None else "passes")


def test_the_worth_of_gaussian_filters_is_exact():
    for row, given in (
        (1, {}),
        (2, {"nominal_sensitivity": 1.0}),
        (3, {"nominal_sensitivity": 2.0, "nominal_eps": 0.9}),
        (4, {"nominal_sensitivity": 2.0}),
        (5, {"nominal_sensitivity": 2.0, "nominal_eps": 20.0}),
    ):
        eps = local_dp_epsilon(**given)
        assert AUDITS[row][3] == (f"{eps:.3g}" if eps < 1000 else f"{eps / 1e6:.0f} million")
    many = [local_dp_epsilon(eps, nominal_sensitivity=2.0) for eps in (50.0, 100.0)]
    assert AUDITS[6][3] == " and ".join(f"{eps:.3g}" for eps in many)
    assert f"{local_dp_epsilon(distance=1) / 1e6:.0f} million" in PAGE


def test_a_false_claim_passes():
    _, _, claims, worth, _, audited, outcome = AUDITS[4]
    assert float(audited) < float(claims) < float(worth)
    assert outcome == "passes"
    said = f"the truth, {worth}, is above the claim, {claims}, and the audit's bound, {audited}, below it"
    assert said in PAGE


def test_the_worth_of_sparse_vectors_is_what_is_proven():
    small, all_sent, large, net = (
        sparse_vector_epsilon(48),
        sparse_vector_epsilon(48, svt_fraction=1.0),
        sparse_vector_epsilon(100_000),
        sparse_vector_epsilon(7_000_000),
    )
    assert AUDITS[8][3] == f"{small.values:.3g} to {small.pure:.3g}"
    assert AUDITS[9][3] == f"{all_sent.values:.3g} to {all_sent.pure:.3g}"
    assert AUDITS[10][3] == f"{large.values:,.0f} to {large.pure:,.0f}"
    assert f"≤ {large.at_delta:.1f} at δ 10⁻⁵" in PAGE
    assert f"{net.claimed:,.0f} for 7 million entries (≤ {net.at_delta:,.0f} at δ 10⁻⁵)" in PAGE
    older = 0.05 * (1 + 20_000 ** (2 / 3))
    assert f"{older:.1f} for 100,000 entries" in PAGE


def test_sparse_vectors_of_a_model_give_its_update_away():
    """Two updates of 100,000 entries, 200 releases of each, told apart by the sum of what was sent."""
    generator, rule = torch.Generator().manual_seed(0), SparseVector()
    sums = [
        np.array([float(rule.process((update,), generator)[0].double().sum()) for _ in range(200)])
        for update in (torch.full((100_000,), 1e-4), torch.full((100_000,), -1e-4))
    ]
    found = lower_bound(*sums, epsilon_bound(1e-5), 0.05).value
    assert AUDITS[10][4] == f"{found:.2f}"
    assert AUDITS[10][2] == "0.1"
    assert found > 0.1


def test_the_attack_finds_so_much():
    found = pd.read_csv(STORED / "results.csv").query("status == 'ok'")
    attacked = found[found["floor"].isna()]
    rows = {row[0].strip("`"): row[1:] for row in table(5) if row[0].startswith("`")}
    assert set(rows) == set(attacked["defense"])
    for name, (_, psnr, spread, identified) in rows.items():
        images = attacked[attacked["defense"] == name]
        assert len(images) == 20
        assert psnr == f"{images['psnr'].mean():.1f}"
        assert spread == f"{images['psnr'].min():.1f} to {images['psnr'].max():.1f}"
        assert identified == f"{int(images['identified'].sum())} of 20"
        private = images["eps_release"]
        assert private.isna().all() if name != "dp" else math.isclose(private.iloc[0], 10, rel_tol=1e-6)
    floors = found[found["floor"] == "noise-gradient"]
    assert f"{floors['psnr'].mean():.1f} dB and {int(floors['identified'].sum())} of {len(floors)}" in PAGE
    class_mean = found[found["floor"] == "start"]["psnr"].mean()
    assert f"the mean of the class has {class_mean:.1f} dB" in PAGE
