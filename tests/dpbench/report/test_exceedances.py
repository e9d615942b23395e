"""What lies above its bound is named, and chance alone is not."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from dpbench.report.exceedances import exceedances
from dpbench.report.summary import summary
from dpbench.report.tables import to_markdown
from dpbench.store.schema import frame


@pytest.fixture
def informed(make_rows):
    """Rows of the informed attacker, one per budget: (right answers of 40, bound)."""

    def made(*cells, **more):
        rows = []
        for i, (right, bound) in enumerate(cells):
            given = {"eps_release": 1.0 + i, "noise_multiplier": 3.0, "accountant": "analytic", "delta": 1e-5}
            given |= {"threat_model": "informed", "candidates": 10, "trials": 40, "psnr": None, "lpips": None}
            given |= {"success": right / 40, "success_bound": bound, "key": f"c{i}"}
            rows += make_rows("prior-aware", "dp", 1, 0, 0, **(given | more))
        return frame([{k: v for k, v in row.items() if v is not None} for row in rows])

    return made


def test_an_attacker_far_above_the_bound_is_named(informed):
    assert exceedances(informed((6, 0.16))) == []
    (said,) = exceedances(informed((36, 0.16), (6, 0.16)))
    assert said.startswith("prior-aware under dp ε=1, batch of 1: picked 90 % of 40 (corrected interval 7")
    assert said.endswith("where at most 16 % is possible")


def test_among_many_intervals_one_a_little_above_its_bound_is_chance(informed):
    """13 of 40 at .16: its own 95 % interval begins at .186, the one corrected for 26 does not."""
    alone, among = informed((13, 0.16)), informed((13, 0.16), *[(6, 0.16)] * 25)
    assert len(exceedances(alone)) == 1
    assert exceedances(among) == []
    assert "1 of 26 intervals (95 %) lie above their bound" in to_markdown(among)
    assert "Corrected for their number (Bonferroni), none of them does." in to_markdown(among)
    assert "lie above" not in to_markdown(informed((6, 0.16)))
    assert "an error in a defence" in to_markdown(informed((36, 0.16)))


def test_false_alarms_are_rarer_than_five_in_a_hundred(informed):
    generator = np.random.default_rng(0)
    table = informed(*[(0, 0.3)] * 26)
    found = [exceedances(table.assign(success=generator.binomial(40, 0.3, 26) / 40)) for _ in range(60)]
    alarms = sum(map(bool, found))
    assert alarms <= 5  # .976 of the time with 3 expected at most; without a correction about 30


def test_membership_has_a_bound_too(informed):
    fine = {"membership": 0.55, "membership_low": 0.43, "membership_high": 0.66, "membership_bound": 0.553}
    table = informed((6, 0.16), **fine)
    assert exceedances(table) == []
    text = to_markdown(table)
    assert "| Member | Member 95 % | Member bound |" in text
    assert "| 55% | 0.43–0.66 | 0.553 |" in text
    broken = {"membership": 0.8, "membership_low": 0.69, "membership_high": 0.88}
    (said,) = exceedances(informed((6, 0.16), **(fine | broken)))
    assert "membership 80 % of 80" in said


def test_membership_of_several_cells_is_pooled(informed):
    cell = {"membership_low": 0.1, "membership_high": 0.9, "membership_bound": 0.6}
    one = informed((6, 0.16), membership=0.5, **cell)
    two = informed((6, 0.16), membership=0.75, trials=20, success=0.15, key="other", **cell)
    assert summary(one).iloc[0][["membership_low", "membership_high"]].tolist() == [0.1, 0.9]
    line = summary(pd.concat([one, two])).iloc[0]
    assert (line["success"], line["trials"]) == (9 / 60, 60)
    exact = binomtest(70, 120).proportion_ci(0.95, "exact")
    found = line[["membership", "membership_low", "membership_high", "membership_bound"]].tolist()
    assert found == pytest.approx([70 / 120, exact.low, exact.high, 0.6])
