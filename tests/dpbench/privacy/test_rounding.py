"""No number of a guarantee is printed on the side on which it would promise too much."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpbench.privacy.rounding import down, down_places, up, up_percent, up_places, upwards

NINTH = 1e-8  # what is above that in relation is no arithmetic


@given(st.floats(1e-12, 1e12), st.integers(1, 6))
def test_it_is_never_below_and_hardly_above(value, digits):
    for found in (float(up(value, digits)), upwards(value, digits)):
        assert value * (1 - NINTH) <= found <= value * (1 + 10 ** (1 - digits)) + NINTH


@given(st.floats(1e-12, 1), st.integers(1, 6))
def test_a_prior_is_never_above_and_hardly_below(value, digits):
    assert value * (1 - 10 ** (1 - digits)) * (1 - NINTH) <= float(down(value, digits)) <= value * (1 + NINTH)


@given(st.floats(0, 1))
def test_shares(share):
    assert float(up_places(share)) >= share * (1 - NINTH)
    assert float(up_percent(share).removesuffix(" %")) >= 100 * share * (1 - NINTH)
    assert float(down_places(share)) <= share * (1 + NINTH)


@pytest.mark.parametrize("value", [0.1, 0.35, 1.0, 2.45, 8.0, 512.0, 1e6, 1e-5])
def test_what_is_short_stays_as_it_is(value):
    assert float(up(value)) == value
    assert float(up(value * (1 + 1e-12))) == value  # computed, and equal but for arithmetic


def test_no_exponent_below_a_million():
    assert [up(v) for v in (999.2, 999.5, 1000.1, 142758.9, 0.0)] == ["1000", "1000", "1001", "142759", "0"]
