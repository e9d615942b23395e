"""Error rates of the two e-processes, over 2,000 synthetic runs each."""

import numpy as np
import pytest
from scipy.stats import binom

from dpbench.frontier.evidence import CHANCE, MARGIN, MOST, Verdict, Watch, below, leak
from dpbench.privacy.intervals import anytime
from tests.helpers.evidence import RUNS, simulated, successes

AT_MARGIN = CHANCE + MARGIN


@pytest.mark.parametrize("rate", [0.0, 0.001, CHANCE])
@pytest.mark.parametrize("trials", [1, 10, 100])
def test_evidence_of_a_leak_is_1_on_average_at_most_where_there_is_none(rate, trials):
    counts = np.arange(trials + 1)
    mean = (binom.pmf(counts, trials, rate) * leak(counts, trials)).sum()
    assert mean == pytest.approx(1) if rate == CHANCE else mean < 1


@pytest.mark.parametrize("rate", [AT_MARGIN, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("trials", [1, 10, 200])
def test_evidence_of_lying_below_the_margin_is_1_on_average_at_most_where_it_does_not(rate, trials):
    counts = np.arange(trials + 1)
    mean = (binom.pmf(counts, trials, rate) * below(counts, trials)).sum()
    assert mean == pytest.approx(1) if rate == AT_MARGIN else mean < 1


def test_pure_noise_passes_in_nine_of_ten_runs_after_about_sixty_batches():
    verdicts, batches = simulated([CHANCE])
    assert (verdicts == Verdict.NONE).mean() >= 0.9
    assert (verdicts == Verdict.LEAK).mean() <= 0.035  # 2 % expected, standard error .3 %
    assert 55 <= np.median(batches) <= 65


def test_at_the_margin_few_runs_pass():
    verdicts, _ = simulated([AT_MARGIN])
    assert (verdicts == Verdict.NONE).mean() < 0.05


def test_a_large_leak_is_shown_after_two_batches():
    verdicts, batches = simulated([0.5])
    assert (verdicts == Verdict.LEAK).all()
    assert 2 <= batches.mean() <= 3  # 2.5: the first success is enough, but for some that come late


@pytest.mark.parametrize("rate", [0.2, 1.0])
def test_a_defence_that_leaks_never_passes(rate):
    verdicts, _ = simulated([rate])
    assert (verdicts == Verdict.LEAK).all()


def test_several_attacks_show_no_leak_by_mistake_more_often_than_one():
    verdicts, _ = simulated([CHANCE] * 5)
    assert (verdicts == Verdict.LEAK).mean() <= 0.05


def test_one_attack_of_several_at_the_margin_is_enough_not_to_pass():
    verdicts, _ = simulated([CHANCE, CHANCE, AT_MARGIN])
    assert (verdicts == Verdict.NONE).mean() < 0.05


def test_a_leak_of_one_attack_of_several_is_shown():
    verdicts, batches = simulated([CHANCE, CHANCE, 0.5])
    assert (verdicts == Verdict.LEAK).mean() > 0.999
    assert batches.mean() < 4


@pytest.mark.parametrize("rates", [[CHANCE], [AT_MARGIN, CHANCE], [0.3, 0.0]])
def test_a_watch_ends_as_the_simulation_does(rates):
    verdicts, batches = simulated(rates, runs=40, seed=7)
    for run, outcomes in enumerate(successes(rates, runs=40, seed=7)):
        watch = Watch(len(rates))
        said = next(found for found in map(watch.add, outcomes) if found)
        assert (said, watch.trials) == (verdicts[run], batches[run])


def test_undecided_after_the_last_batch():
    watch = Watch(1, most=3)
    assert [watch.add([False]) for _ in range(3)] == [None, None, Verdict.UNDECIDED]


def test_batches_left_is_what_failures_alone_need():
    watch = Watch(2)
    watch.add([False, True])
    said, count = None, watch.batches_left
    for _ in range(count):
        assert said is None
        said = watch.add([False, False])
    assert said is Verdict.NONE


def test_a_watch_refuses_outcomes_of_another_number_of_attacks():
    with pytest.raises(ValueError, match="2 attacks have as many outcomes, not 1"):
        Watch(2).add([True])


@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_the_interval_holds_at_all_moments_together(rate):
    trials = 60
    found = (np.random.default_rng(1).random((RUNS, trials)) < rate).cumsum(1)
    ends = {}
    for n in range(1, trials + 1):
        for s in np.unique(found[:, n - 1]):
            ends[s, n] = anytime(int(s), n)
    low, high = (
        np.array([[ends[s, n][end] for n, s in enumerate(run, start=1)] for run in found]) for end in (0, 1)
    )
    missed = ((rate < low) | (rate > high)).any(1).mean()
    assert 0 < missed <= 0.05


@pytest.mark.parametrize(("successes", "trials"), [(0, 60), (60, 60), (0, MOST), (1, MOST)])
def test_the_interval_holds_the_observed_rate(successes, trials):
    low, high = anytime(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    assert high - low < 0.2
