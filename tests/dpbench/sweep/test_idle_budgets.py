"""A budget that no defence takes is said to play no role: whoever asks for one believes to have it."""

import pytest

from tests.helpers.plans import planned

SAID = "plays no role: it is for dp and other calibrated defences, and no cell has one."


@pytest.mark.parametrize("name", ["eps", "noise_multiplier"])
def test_a_budget_for_clipping_alone(name):
    assert planned(defense=("clip",), **{name: (1.0,)}).cautions() == [f"`{name}` {SAID}"]


@pytest.mark.parametrize("defences", [("dp",), ("clip", "dp+prune")])
def test_a_budget_that_some_defence_takes(defences):
    assert not any(SAID in line for line in planned(defense=defences, eps=(1.0,)).cautions())


def test_no_budget():
    assert planned(defense=("clip",)).cautions() == []
