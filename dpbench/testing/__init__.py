"""The contract that every attack and defence keeps, for the test suite of anyone who writes one.

    from dpbench.testing import check_attack, check_defense
    from my_package import MyAttack, MyDefence


    def test_contract():
        check_attack(MyAttack)
        check_defense(MyDefence)

It needs no data and no network, and takes about a second for each class whose search can be cut short by the
parameter `iterations`.
"""

from __future__ import annotations

from attacks import Attack
from defenses import Defense
from dpbench.testing import attacks as _attacks
from dpbench.testing import defenses as _defenses
from dpbench.testing.chains import chains
from dpbench.testing.claims import works

__all__ = ["check_attack", "check_defense"]


def check_attack(kind: type[Attack]) -> None:
    """All that holds for every attack: what it returns, draws, leaves alone, refuses, and gains on noise.

    Args:
        kind: a class registered by `@attack("name")`, whose parameters all have defaults.

    Raises:
        AssertionError: for the first claim that does not hold, in one sentence.

    Example:
        >>> from attacks.analytic import Analytic
        >>> check_attack(Analytic)
    """
    for check in _attacks.CHECKS:
        with works(getattr(kind, "name", repr(kind))):
            check(kind)


def check_defense(kind: type[Defense]) -> None:
    """All that holds for every defence, alone and in chains with `clip` and `prune`.

    A class that takes a `guarantee` must have the noise that the guarantee is about, which a statistical test
    decides; `dpbench.audit` tests what its releases give away.

    Args:
        kind: a class registered by `@defense("name")`.

    Raises:
        AssertionError: for the first claim that does not hold, in one sentence.

    Example:
        >>> from defenses.quantisation import Sign
        >>> check_defense(Sign)
    """
    _defenses.is_registered(kind)
    for name in chains(kind):
        for check in _defenses.CHECKS:
            with works(name):
                check(name)
