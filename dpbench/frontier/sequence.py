"""Many noise levels and still one error rate: fixed sequences of hypotheses, each tested only after the last.

The levels are chosen beforehand. From the largest noise down it is asked whether none of the attacks is seen
to succeed, and no further than to the first level where that cannot be said; from the smallest up whether a
leak is shown, likewise. Whoever errs in a sequence has erred at the first true hypothesis in it, or has not
come that far; so each sequence errs at all at most as often as one test, once in 20 times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dpbench.frontier.evidence import Verdict
from dpbench.protocol import InputError

Test = Callable[[float], Verdict]
"""Noise multiplier to what the batches there say; 0 is no defence. It is asked once for each level."""


@dataclass(frozen=True)
class Ends:
    """Where the two sequences ended.

    Attributes:
        leak_up_to: the largest noise multiplier up to which a leak is shown; None where it is shown without a
            defence only.
        none_from: the smallest from which on none is seen by these attacks; None if there is none.
        tested: the levels that were reached, and what the batches of each say by themselves.
    """

    leak_up_to: float | None
    none_from: float | None
    tested: dict[float, Verdict]

    def verdict(self, level: float) -> Verdict | None:
        """What the sequences say of a level, which err together at most as often as one test does.

        Where a sequence ended, the batches may say something by themselves, and it does not count.

        Args:
            level: noise multiplier; 0 is no defence.

        Returns:
            None for a level that neither sequence reached.
        """
        if level not in self.tested:
            return None
        if level <= (self.leak_up_to or 0.0):
            return Verdict.LEAK
        if self.none_from is not None and level >= self.none_from:
            return Verdict.NONE
        return Verdict.UNDECIDED


def checked_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """The levels in ascending order.

    Raises:
        InputError: for none at all, one twice, or one that is no finite number above 0.
    """
    try:
        found = tuple(sorted(float(level) for level in levels))
    except (TypeError, ValueError):  # one number alone, or words
        found = ()
    if not found or not 0 < found[0] <= found[-1] < float("inf") or len(set(found)) < len(found):
        raise InputError("`levels` must be different noise multipliers above 0, at least one of them.")
    return found


def fixed_sequences(levels: Sequence[float], test: Test) -> Ends:
    """Tests levels from both ends until each sequence has come to its end.

    Args:
        levels: noise multipliers above 0, fixed beforehand.
        test: tells the verdict at a level.

    Raises:
        InputError: where no leak is shown without a defence: attacks that fail there say nothing of one.

    Example:
        >>> said = {0: "LEAK", 0.1: "LEAK", 0.3: "UNDECIDED", 1: "NONE", 3: "NONE"}
        >>> ends = fixed_sequences([0.1, 0.3, 1, 3], lambda level: Verdict[said[level]])
        >>> ends.leak_up_to, ends.none_from
        (0.1, 1.0)
        >>> ends.verdict(0.3)
        <Verdict.UNDECIDED: 'undecided'>
    """
    levels, tested = checked_levels(levels), {}

    def verdict(level: float) -> Verdict:
        if level not in tested:
            tested[level] = test(level)
        return tested[level]

    if verdict(0.0) is not Verdict.LEAK:
        raise InputError(
            "These attacks are not seen to succeed without a defence, so their failure says nothing about "
            "one: take a stronger `attack`, a smaller `batch_size` or a victim that leaks more."
        )
    leak_up_to = none_from = None
    for level in levels:
        if verdict(level) is not Verdict.LEAK:
            break
        leak_up_to = level
    for level in reversed(levels):
        if verdict(level) is not Verdict.NONE:
            break
        none_from = level
    return Ends(leak_up_to, none_from, tested)
