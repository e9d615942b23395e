"""What is said of rows that are alike is worked out once."""

from __future__ import annotations

import pytest

from dpbench.report.alike import said_of
from dpbench.report.naming import Naming
from dpbench.report.settings import Results
from dpbench.store.schema import frame, numbered
from dpbench.system.once import kept


@pytest.fixture
def table(make_rows, dp):
    rows = [row for seed in range(5) for row in make_rows("dlg", "none", 4, 20.0, 0.1, seed=seed)]
    for eps in (1.0, 8.0, None):
        rows += make_rows("dlg", "dp", 4, 9.0, 0.4, **dp | {"eps": eps})
    return frame([*rows, *make_rows("idlg", "prune", 1, 9.0, 0.4, prune_ratio=0.5)]).sample(
        frac=1, random_state=0
    )


def test_it_is_what_would_be_said_of_each_row_alone(table):
    naming = Naming(table)
    alone = [f"{naming.attack(row)} {naming.defence(row)}" for row in table.to_dict("records")]
    assert said_of(table, lambda row: f"{naming.attack(row)} {naming.defence(row)}") == alone
    assert len(set(alone)) == 5


def test_it_is_asked_once_for_each_combination_of_settings(table):
    asked = []
    said_of(table, asked.append)
    assert len(asked) == 5


def test_seeds_and_measurements_are_not_to_be_had(table):
    with pytest.raises(KeyError, match="psnr"):
        said_of(table, lambda row: row["psnr"])


def test_it_is_asked_of_plain_values_and_none_where_a_row_has_none(table):
    seen = []
    said_of(table, seen.append)
    kinds = {type(value) for row in seen for value in row.values()}
    assert kinds == {str, int, float, bool, type(None)}
    there = table.drop_duplicates(["attack", "defense", "eps"])
    asked = [(row["attack"], row["defense"], row["eps"]) for row in seen]
    wanted = [*zip(there["attack"], there["defense"], there["eps"], strict=True)]
    assert sorted(map(repr, asked)) == sorted(map(repr, wanted))


def test_an_export_splits_and_judges_its_settings_once(table):
    table = numbered(table)
    with kept():
        victims = Results.of(table).victims()
        assert Results.of(table).victims() is victims
        for _, settings in victims:
            assert all(each.reached() is each.reached() for each in settings)


def test_of_nothing_nothing_is_said(table):
    assert said_of(table.head(0), len) == []
