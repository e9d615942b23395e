"""Both sequences stop at their first non-rejection, and err as often as one test."""

import numpy as np
import pytest

from dpbench.frontier.evidence import CHANCE, MARGIN, Verdict
from dpbench.frontier.sequence import fixed_sequences
from dpbench.protocol import InputError
from tests.helpers.evidence import RUNS, simulated

WORDS = {"L": Verdict.LEAK, "N": Verdict.NONE, "?": Verdict.UNDECIDED}


def ends_of(word, asked=None):
    """The ends where the levels 1, 2, ... have these verdicts, in whatever order they are given."""

    def test(level):
        if asked is not None:
            asked.append(level)
        return Verdict.LEAK if level == 0 else WORDS[word[int(level) - 1]]

    return fixed_sequences(range(len(word), 0, -1), test)


@pytest.mark.parametrize(
    ("word", "leak_up_to", "none_from"),
    [
        ("LL?NN", 2, 4),
        ("LLNN", 2, 3),
        ("LLLL", 4, None),
        ("NNNN", None, 1),
        ("????", None, None),
        ("L?LN", 1, 4),
        ("LN?N", 1, 4),
        ("?L", None, None),
    ],
)
def test_where_the_sequences_end(word, leak_up_to, none_from):
    found = ends_of(word)
    assert (found.leak_up_to, found.none_from) == (leak_up_to, none_from)


def test_nothing_is_attacked_beyond_the_first_level_without_a_verdict():
    asked = []
    found = ends_of("L?LL?N", asked)
    assert asked == [0, 1, 2, 6, 5] == [*found.tested]


@pytest.mark.parametrize("undefended", [Verdict.NONE, Verdict.UNDECIDED])
def test_it_refuses_where_the_attacks_fail_undefended(undefended):
    with pytest.raises(InputError, match="not seen to succeed without a defence, so their failure says noth"):
        fixed_sequences([1.0], lambda level: Verdict.LEAK if level else undefended)


@pytest.mark.parametrize(
    "levels", [[], [0.0, 1.0], [-1.0], [1.0, 1.0], [float("inf")], [float("nan")], 0.1, ["a"]]
)
def test_levels_are_different_and_above_0(levels):
    with pytest.raises(InputError, match="`levels` must be different noise multipliers above 0"):
        fixed_sequences(levels, lambda level: Verdict.LEAK)


@pytest.mark.parametrize(
    "rates",
    [
        [0.9, 0.2, CHANCE + MARGIN, CHANCE, CHANCE],
        [CHANCE] * 6,
        [CHANCE + MARGIN] * 6,
    ],
)
def test_each_sequence_errs_in_one_run_of_twenty_at_most(rates):
    verdicts = np.stack([simulated([rate], seed=10 + i)[0] for i, rate in enumerate(rates)], axis=1)
    leaks_by_mistake = passes_by_mistake = 0
    for run in verdicts:
        found = fixed_sequences(
            range(1, len(rates) + 1), lambda level, run=run: run[int(level) - 1] if level else Verdict.LEAK
        )
        leaks_by_mistake += found.leak_up_to is not None and rates[int(found.leak_up_to) - 1] <= CHANCE
        too_far = rates[int(found.none_from) - 1 :] if found.none_from is not None else []
        passes_by_mistake += any(rate >= CHANCE + MARGIN for rate in too_far)
    assert leaks_by_mistake < 0.05 * RUNS
    assert passes_by_mistake < 0.05 * RUNS
