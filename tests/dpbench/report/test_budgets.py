"""The lines above a table: which training, and which noise."""

from __future__ import annotations

import pytest

from dpbench.report.budgets import MOST_LINES, budgets
from dpbench.report.summary import summary
from dpbench.report.tables import to_markdown, to_tex
from dpbench.store.schema import frame

NOW = {"train_batch_size": 256, "sample_rate": 256 / 50_000, "steps": 1954}


def lines(rows):
    return budgets(summary(frame(rows)))


def test_sigma_and_q_of_a_training_stand_above_the_table(make_rows, dp):
    rows = make_rows("dlg", "none", 1, 20, 0.1)
    for size in (1, 4):
        for eps, sigma in ((8.0, 0.537), (1.0, 1.18)):
            rows += make_rows("dlg", "dp", size, 9, 0.4, **dp | NOW | {"eps": eps, "noise_multiplier": sigma})
    expected = (
        "budget of a training on 50,000 images in batches of 256 (q = 0.00512, T = 1,954): "
        "σ = 1.18 at ε = 1, σ = 0.537 at ε = 8"
    )
    assert lines(rows) == [expected]
    for text in (to_markdown(frame(rows)), to_tex(frame(rows))):
        assert 0 <= text.find("in batches of 256") < text.find("PSNR")


def test_results_without_a_training_batch_keep_their_own_rate(make_rows, dp):
    (line,) = lines(make_rows("dlg", "dp", 1, 9, 0.4, **dp))
    assert line == "budget of a training on 50,000 images (q = 2e-05, T = 500,000): σ = 0.5 at ε = 1"


@pytest.mark.parametrize(("releases", "what"), [(1, "the attacked release"), (10, "10 releases")])
def test_a_budget_of_releases(make_rows, dp, releases, what):
    given = {"eps": None, "eps_scope": "release", "eps_release": 8.0, "sample_rate": 1.0, "steps": 1}
    given |= {"train_size": None, "releases": releases}
    assert lines(make_rows("dlg", "dp", 1, 9, 0.4, **dp | given)) == [
        f"budget of {what} (q = 1): σ = 0.5 at ε = 8"
    ]


def test_budgets_of_several_deltas_are_told_apart(make_rows, dp):
    given = {"eps": None, "eps_scope": "release", "sample_rate": 1.0, "steps": 1, "train_size": None}
    rows = []
    for delta, sigma in ((1e-5, 0.601), (0.1, 0.322)):
        more = given | {"eps_release": 8.0, "delta": delta, "noise_multiplier": sigma}
        rows += make_rows("dlg", "dp", 1, 9, 0.4, **dp | more, key=f"at{sigma}")
    assert sorted(lines(rows)) == [
        "budget of the attacked release (q = 1) at δ = 0.1: σ = 0.322 at ε = 8",
        "budget of the attacked release (q = 1) at δ = 1e-05: σ = 0.601 at ε = 8",
    ]


def test_many_are_counted(make_rows, dp):
    rows = []
    for size in range(1, 8):
        rows += make_rows("dlg", "dp", size, 9, 0.4, **dp | {"sample_rate": size / 50_000})
        rows += make_rows(
            "dlg", "dp", 1, 9, 0.4, **dp | NOW | {"eps": float(size), "noise_multiplier": 1 / size}
        )
    found = lines(rows)
    assert len(found) == MOST_LINES + 1
    assert found[-1].startswith("and 4 more")
    (many,) = (line for line in found if "batches of 256" in line)
    assert many.count("σ") == 4
    assert "... σ = 0.143 at ε = 7" in many


def test_nothing_is_said_without_a_guarantee(make_rows):
    assert lines(make_rows("dlg", "clip", 1, 9, 0.4)) == []


@pytest.mark.parametrize(
    ("releases", "what"), [(1, "the attacked release (q = 0.1)"), (3, "3 releases (q = 0.1)")]
)
def test_sampled_releases_have_their_own_rate(make_rows, dp, releases, what):
    """It was said to be 1, at which this noise spends far more."""
    given = {"eps": None, "eps_scope": "release", "eps_release": 8.0, "sample_rate": 1.0, "steps": 1}
    given |= {"train_size": None, "releases": releases, "inclusion": 0.1, "threat_model": "informed"}
    (line,) = lines(make_rows("prior-aware", "dp", 1, 9, 0.4, **dp | given))
    assert line == f"budget of {what}: σ = 0.5 at ε = 8"


def test_the_training_set_of_users_holds_clients(make_rows, dp):
    rows = make_rows("dlg", "dp", 1, 9, 0.4, **dp | NOW | {"unit": "user", "key": "user"})
    (line,) = lines(rows)
    assert line.startswith("budget of a training on 50,000 clients in rounds of 256 (q")
    rows += make_rows("dlg", "dp", 1, 9, 0.4, **dp | NOW | {"unit": "record", "key": "record"})
    assert len(lines(rows)) == 2
