"""Sentences say whom a guarantee protects, and who adds its noise."""

import pandas as pd
import pytest

from dpbench.report import informed, units
from dpbench.report.naming import Naming
from dpbench.report.page import answer
from dpbench.report.summary import summary


@pytest.fixture
def table(make_run):
    return make_run(batch_sizes=(1,))


def said(table):
    lines = summary(table)
    return informed.sentence(lines[lines["floor"].isna()], Naming(table))


def test_an_informed_attacker_of_a_user_lacks_a_whole_client(table):
    assert "who knows all but one sample" in said(table)
    users = said(table.assign(unit="user"))
    assert "who knows all but one client" in users
    assert "all the images of that one" in users
    assert "sample" not in users


def test_records_and_users_have_a_sentence_each(table):
    defended = table["defense"] == "dp"
    user = table[defended].assign(unit="user", key="other")
    both = said(pd.concat([table.assign(unit="record"), user], ignore_index=True))
    assert both.count("An informed attacker") == 2


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        (None, "The client adds the noise, before anybody sees the gradient."),
        ("distributed", "Each client adds its share"),
        ("central", "The server adds the noise to the sum, which it has seen without."),
    ],
)
def test_the_page_says_who_adds_the_noise_and_whom_it_protects(noise, words, table, store_of):
    table = table.assign(noise=noise, unit="user")
    run = store_of(table)
    card = answer.answer(table, run)
    assert words in card
    assert "It is for one client with all its images (one client added or removed)." in card
    assert units.units(table) == ["user"]


def test_the_bound_that_is_said_is_the_largest_of_its_name(table):
    """Of one and of ten releases under one defence."""
    table = table.assign(success=float("nan"))
    more = table[table["defense"] == "dp"].assign(rero_release=0.97, releases=10, key="more")
    for both in (pd.concat([table, more]), pd.concat([more, table])):
        assert "97 %" in said(both.reset_index(drop=True))


def test_a_bound_of_sampled_releases_is_not_said_of_a_batch_that_is_known_to_hold_the_image(table, store_of):
    sampled = table.assign(inclusion=0.1)
    card = answer.answer(sampled, store_of(sampled))
    assert "chance of inclusion</th><td" in card
    assert "the image was drawn with it for each release, and nobody knows which ones hold it." in card
    assert "all but one sample, but not which releases hold it, and without" in said(sampled)
    mixed = pd.concat([table, sampled.assign(key="sampled")], ignore_index=True)
    assert said(mixed).count("An informed attacker") == 2
    assert "not which releases" not in said(table)
    card = answer.answer(table, store_of(table, name="fixed"))
    assert "of a batch that is known to hold the image." in card
