"""`check_defense` refuses a class whose epsilon would be computed for a noise that it has not."""

from __future__ import annotations

import pytest

from defenses import Aggregator, defense
from defenses.base import Aggregates
from defenses.dp_sgd import DPSGD
from dpbench.cell import parts
from dpbench.cell.rows import without_result
from dpbench.protocol import InputError, parameter
from dpbench.testing import check_defense
from dpbench.testing.noise import its_noise_is_gaussian_where_it_takes_a_guarantee as check
from tests.helpers.cells import cell, part
from tests.helpers.mechanisms import Correct, HandWritten, MoreNoise, NotClipped
from tests.helpers.noise_bugs import LaplaceNoise, NoiseByTotalLength
from tests.helpers.plans import planned
from tests.helpers.registries import as_in_a_new_process


@pytest.fixture(autouse=True)
def registries():
    with as_in_a_new_process():
        yield


class HalfSigma(HandWritten):
    def noise(self, count, size, generator):
        return super().noise(count, size, generator) / 2


class BiasNotNoised(HandWritten):
    """The last tensor, of five entries."""

    def noise(self, count, size, generator):
        noise = super().noise(count, size, generator)
        noise[:, -5:] = 0
        return noise


def registered(mechanism):
    """`mechanism` as a plug-in, whose clip norm is a parameter."""

    @defense("mine")
    class Mine(mechanism):
        repeatable = True
        max_grad_norm: float = parameter(1.0, "clip norm C: the l2 bound of each sample's gradient", above=0)


def test_correct_gaussian_noise_passes():
    registered(Correct)
    for seed in range(20):
        check("mine", seed)


def test_more_noise_than_is_claimed_passes():
    registered(MoreNoise)
    check("mine")


@pytest.mark.parametrize(
    ("mechanism", "found"),
    [
        (LaplaceNoise, "shape: entries"),
        (HalfSigma, r"size: 0\.\d+ to 0\.\d+ of the claimed standard deviation"),
        (NoiseByTotalLength, "size: "),
        (BiasNotNoised, "5 of 105 entries not noised"),
        (NotClipped, r"shift of the mean: about \d+\.\d+ C"),
    ],
)
def test_other_noise_is_refused_in_one_sentence(mechanism, found):
    registered(mechanism)
    with pytest.raises(
        AssertionError, match=rf"^mine takes a `guarantee`, so its epsilon .*{found}"
    ) as error:
        check("mine")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [1, 0.5])
def test_a_class_derived_from_dp_is_checked(share):
    @defense("mine")
    class Mine(DPSGD):
        __module__ = __name__

        def aggregates(self, model, loss, images, labels, generator, count):
            means, method = self.clipped(model, loss, images, labels, generator)
            return Aggregates(means(share * self.noise_multiplier, count), method)

    globals()["Mine"], Mine.__qualname__ = Mine, "Mine"  # where pickle finds it
    if share == 1:
        check_defense(Mine)
    else:
        with pytest.raises(
            AssertionError, match=r"mine takes a `guarantee`.*\(size: 0\.\d+ to 0\.\d+ of the"
        ):
            check_defense(Mine)


def test_a_class_that_states_its_epsilon_itself_is_refused():
    with pytest.raises(TypeError, match=r"Stated states its `guarantee` itself.*override `claim`"):

        class Stated(Aggregator):
            @property
            def guarantee(self):
                return None

    with pytest.raises(TypeError, match="Named states its `guarantee` itself"):

        class Named(Aggregator):
            guarantee = "ε of 0.1"


def test_a_run_says_whose_word_the_noise_is():
    @defense("mine")
    class Mine(DPSGD):
        pass

    said = "The epsilon of mine is that of Gaussian noise, which its author vouches for and not dpbench: "
    assert planned(defense=("mine", "dp")).cautions() == [f"{said}dpbench.testing.check_defense tests it."]
    for name, unchecked in (("mine", True), ("dp", None)):
        row = without_result(cell("dlg", part(name, eps=1.0)), "failed", "").rows[0]
        assert row["eps"] == 1.0
        assert row.get("noise_unchecked") is unchecked


def test_sigma_has_to_be_declared():
    """Attacks make a defence again from its public parameters."""
    registered(Correct)
    with pytest.raises(
        InputError, match="mine takes a `guarantee`, so it must declare its `noise_multiplier`"
    ):
        parts.defence_of(cell("dlg", part("mine", eps=1.0)))
