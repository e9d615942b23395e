"""Names follow from roles and from what varies, a third party's settings included."""

import pandas as pd
import pytest

from dpbench.report.naming import Naming
from dpbench.report.rows import only_labels, ordered
from dpbench.report.summary import metrics, summary
from dpbench.report.tables import to_markdown
from dpbench.store.columns import Column, _columns, add
from dpbench.store.schema import frame


@pytest.fixture
def third_party(monkeypatch):
    """Columns of somebody's attack, defence and metrics."""
    for name, column in list(_columns.items()):
        monkeypatch.setitem(_columns, name, column)
    new = (
        Column("blur", "float64", "attack", "of the blur", "px", True, symbol="blur"),
        Column("schedule", "string", "attack", "of steps", "", True, "schedule", choices=("slow", "fast")),
        Column("antialias", "boolean", "attack", "whether", "", True, symbol="antialias"),
        Column("levels", "Int64", "defence", "of the quantiser", "", True, symbol="L"),
        Column("edge_error", "float64", "measured", "of edges", better="lower"),
        Column("likeness", "float64", "measured", "of faces", "%", better="higher"),
        Column("hidden", "float64", "measured", "not a metric"),
    )
    add(*new)
    yield
    for column in new:
        del _columns[column.name]


def names(rows):
    table = frame(rows)
    naming = Naming(table)
    return [(naming.attack(row), naming.defence(row)) for row in table.to_dict("records")]


def test_what_does_not_vary_is_not_said(make_rows, third_party, dp):
    rows = make_rows("dlg", "none", 1, 20, 0.1, blur=2.0, schedule="fast", antialias=True)
    rows += make_rows("dlg", "dp", 1, 20, 0.1, blur=2.0, schedule="fast", antialias=True, **dp)
    rows += make_rows("idlg", "dp+quantise", 1, 20, 0.1, **dp, levels=4, releases=3)
    assert names(rows) == [("dlg", "no defence"), ("dlg", "dp ε=1"), ("idlg", "dp+quantise ε=1")]


def test_what_varies_within_one_attack_or_one_defence_is_said(make_rows, third_party):
    rows = make_rows("dlg", "none", 1, 20, 0.1, blur=2.0, schedule="fast", antialias=True)
    rows += make_rows("dlg", "none", 1, 20, 0.1, blur=0.5, schedule="slow", antialias=False)
    rows += make_rows("idlg", "quantise", 1, 20, 0.1, schedule="slow", levels=4)
    rows += make_rows("idlg", "quantise", 1, 20, 0.1, schedule="slow", levels=8)
    rows += make_rows("floor:start", "none", 1, 8, 0.4, floor_of="dlg", blur=0.5, schedule="slow")
    assert names(rows) == [
        ("dlg (blur=2 px, schedule fast, antialias)", "no defence"),
        ("dlg (blur=0.5 px, schedule slow, no antialias)", "no defence"),
        ("idlg", "quantise L=4"),
        ("idlg", "quantise L=8"),
        ("floor:start (dlg, blur=0.5 px, schedule slow)", "—"),
    ]


def test_empty_against_given_is_a_difference_only_under_one_defence(make_rows, dp):
    """`inclusion` and `adaptive` play no role without a defence; an empty `matching` is another one."""
    rows = make_rows("dlg", "none", 1, 20, 0.1, adaptive=None)
    rows += make_rows("dlg", "dp", 1, 20, 0.1, inclusion=0.5, **dp)
    assert [attack for attack, _ in names(rows)] == ["dlg", "dlg"]
    rows += make_rows("dlg", "none", 1, 20, 0.1, matching="cosine")
    assert [attack for attack, _ in names(rows)] == ["dlg", "dlg", "dlg (matching cosine)"]


def test_what_a_preset_decides_is_not_said_beside_it(make_rows):
    tuned = {"preset": "tuned", "max_iterations": 1_500, "restarts": 4, "matching": "cosine"}
    paper = {"preset": "paper", "max_iterations": 20_000, "restarts": 8, "matching": "layer-l2"}
    rows = make_rows("gradinversion", "none", 1, 20, 0.1, **tuned)
    rows += make_rows("gradinversion", "none", 1, 20, 0.1, **tuned, seed=1)
    assert {attack for attack, _ in names(rows)} == {"gradinversion"}
    rows += make_rows("gradinversion", "none", 1, 20, 0.1, **paper)
    said = ["gradinversion (preset tuned)"] * 2 + ["gradinversion (preset paper)"]
    assert [attack for attack, _ in names(rows)] == said
    rows += make_rows("gradinversion", "none", 1, 20, 0.1, **(paper | {"restarts": 2}))
    assert [attack for attack, _ in names(rows)][2:] == [
        "gradinversion (restarts=8, preset paper)",
        "gradinversion (restarts=2, preset paper)",
    ]


def test_an_attack_that_was_not_adaptive_always_says_so(make_rows):
    rows = make_rows("dlg", "clip", 1, 20, 0.1, adaptive=False) + make_rows("dlg", "none", 1, 20, 0.1)
    assert [attack for attack, _ in names(rows)] == ["dlg (not adaptive)", "dlg"]


def test_budgets_name_a_defence_and_nothing_claims_one_that_is_not_there(make_rows, dp):
    released = dp | {"eps": None, "eps_release": 3.0}
    voided = dp | dict.fromkeys(("eps", "eps_release", "delta", "rero_release"))
    rows = [row for given in (dp, released, voided) for row in make_rows("dlg", "dp", 1, 9, 0.4, **given)]
    assert [defence for _, defence in names(rows)] == ["dp ε=1", "dp ε=3", "dp σ=0.5 without a guarantee"]


def test_defences_of_many_rows_are_named_as_each_is(make_rows, dp):
    rows = [*make_rows("dlg", "none", 1, 20.0, 0.1), *make_rows("dlg", "prune", 1, 9.0, 0.4, prune_ratio=0.5)]
    rows += [row for eps in (1.0, 8.0) for row in make_rows("dlg", "dp", 1, 9.0, 0.4, **dp | {"eps": eps})]
    rows += make_rows("dlg", "prune", 1, 9.0, 0.4, prune_ratio=0.9)
    table = frame([*rows, *make_rows("floor:mean-image", "none", 1, 11.0, 0.6)])
    naming = Naming(table)
    named = naming.defences(table)
    assert named == [naming.defence(row) for row in table.to_dict("records")]
    assert len(set(named)) == 6


def test_settings_of_the_batch_are_headings(make_rows):
    rows = make_rows("dlg", "none", 1, 20, 0.1, norm="gn") + make_rows("dlg", "none", 1, 20, 0.1)
    rows += make_rows("floor:mean-image", "none", 1, 20, 0.1, norm="gn")
    table = frame(rows)
    naming = Naming(table)
    assert naming.headings == ["norm"]
    assert [(title, len(part)) for title, part in naming.sections(table)] == [
        ("Batch of 1, norm gn", 2),
        ("Batch of 1, norm none", 1),
    ]
    # the mean image depends on no victim
    assert [naming.heading(row) for row in rows] == [["norm gn"], ["norm none"], []]


def test_choices_are_sorted_as_declared_and_numbers_by_size(make_rows, third_party):
    rows = []
    for schedule, levels in (("fast", 16), ("slow", 16), ("fast", 2), ("slow", 2)):
        rows += make_rows(
            "dlg", "quantise", 1, 20, 0.1, schedule=schedule, levels=levels, key=f"{schedule}{levels}"
        )
    found = ordered(frame(rows))
    assert found[["levels", "schedule"]].values.tolist() == [
        [2, "slow"],
        [2, "fast"],
        [16, "slow"],
        [16, "fast"],
    ]


def test_a_metric_of_a_third_party_is_summarised_and_shown(make_rows, third_party):
    rows = make_rows("dlg", "none", 4, 20, 0.1)
    for row in rows:
        row |= {"edge_error": 0.25 * row["image"], "likeness": 10.0 * row["image"], "hidden": 1.0}
    line = summary(frame(rows)).iloc[0]
    assert line[["edge_error_mean", "edge_error_min"]].tolist() == [0.375, 0.0]
    assert line[["likeness_mean", "likeness_max"]].tolist() == [15.0, 30.0]
    assert not [name for name in line.index if name.startswith("hidden")]
    text = to_markdown(frame(rows))
    assert "| edge error | edge error min | likeness (%) | likeness (%) max |" in text
    assert "| 0.375 | 0 | 15 | 30 |" in text
    assert "fft2d" not in text


def test_our_own_metrics_have_the_statistics_they_had(make_rows):
    expected = {
        "psnr": ["mean", "median", "max", "q10", "q90"],
        "ssim": ["mean", "median", "max"],
        "lpips": ["mean", "median", "min", "q10", "q90"],
        "fft2d": ["mean", "median", "min"],
    }
    assert set(metrics()) == set(expected)
    found = list(summary(frame(make_rows("dlg", "none", 4, 20, 0.1))).columns)
    for metric, statistics in expected.items():
        start = found.index(f"{metric}_mean")
        assert found[start : start + len(statistics)] == [f"{metric}_{s}" for s in statistics]
    assert "psnr_unbiased_probe_mean" not in found


def test_an_attack_after_labels_alone_is_known_by_its_rows(make_rows):
    restored = make_rows("somebodys-rule", "none", 1, 0, 0, psnr=None, lpips=None)
    assert only_labels(frame(restored)).all()
    assert not only_labels(frame(make_rows("dlg", "none", 1, 20, 0.1))).any()
    failed = make_rows("dlg", "none", 1, 0, 0, psnr=None, lpips=None, label_correct=None, status="failed")
    assert not only_labels(frame(failed)).any()


def test_floors_are_rows_with_a_floor_whatever_their_name(make_rows):
    rows = make_rows("floor:mean-image", "none", 1, 11, 0.6) + make_rows("dlg", "none", 1, 20, 0.1)
    text = to_markdown(frame(rows).assign(attack=["a guess", "dlg"]))
    assert "| a guess | — |" in text
    assert "| dlg | no defence |" in text


def test_floors_that_are_measured_again_stand_once(make_rows):
    rows = []
    for terms in ("gradient", "lazy"):
        rows += make_rows("floor:mean-image", "none", 1, 0, 0, psnr=11.0, lpips=0.6, bn_stats=terms)
        rows += make_rows("gradinversion", "none", 1, 20, 0.1, terms=terms, key=terms)
    assert to_markdown(frame(rows)).count("floor:mean-image") == 1
    assert len(pd.unique(summary(frame(rows))["bn_stats"])) == 3


def test_how_an_epsilon_was_computed_is_said_where_one_budget_was_computed_twice(make_rows, dp):
    rows = make_rows("dlg", "dp", 1, 9, 0.4, **(dp | {"eps": 1.0}))
    other = dp | {"accountant": "rdp"}
    apart = frame(rows + make_rows("dlg", "dp", 1, 9, 0.4, **(other | {"eps": 8.0})))
    assert defences(apart) == {"dp ε=1", "dp ε=8"}
    twice = frame(rows + make_rows("dlg", "dp", 1, 9, 0.4, **(other | {"eps": 1.0})))
    assert defences(twice) == {"dp ε=1 by PLD accounting", "dp ε=1 by Rényi accounting"}


def defences(table):
    naming = Naming(table)
    return {naming.defence(row) for row in table.to_dict("records")}


def test_epsilons_in_names_are_rounded_up(make_rows, dp):
    assert defences(frame(make_rows("dlg", "dp", 1, 9, 0.4, **(dp | {"eps": 1.00001})))) == {"dp ε=1.001"}
