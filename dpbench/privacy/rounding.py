"""Numbers of a guarantee as text, never rounded to the side on which they would promise too much.

Epsilons, bounds and advantages hold from above, and noise has to be at least what it says: all are rounded
up. What an audit shows at least is rounded down. A number that is short already stays what it is: of its
digits nine count, as the others are nothing but arithmetic.
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

_EXACT = Context(prec=9)
_LONGEST = 1e6
"""From here on numbers are written with a power of ten."""


def upwards(value: float, digits: int = 3) -> float:
    """To so many digits, upwards.

    Example:
        >>> upwards(0.1), upwards(1.5901), upwards(1234.5)
        (0.1, 1.6, 1240.0)
    """
    if not math.isfinite(value) or value == 0:
        return value
    exact = _exact(value)
    return float(_rounded(exact, exact.adjusted() - digits + 1, ROUND_CEILING))


def up(value: float, digits: int = 3) -> str:
    """Likewise as text; whole numbers below a million keep all of their digits.

    Example:
        >>> up(1.114), up(0.1), up(999.5), up(12345.1), up(2e-5), up(float("inf"))
        ('1.12', '0.1', '1000', '12346', '2e-05', '∞')
    """
    if 10**digits <= value < _LONGEST:
        return str(_rounded(_exact(value), 0, ROUND_CEILING))
    found = upwards(float(value), digits)
    if math.isinf(found):
        return "∞"
    return f"{found:.0f}" if 10**digits <= found < _LONGEST else f"{found:.{digits}g}"


def up_places(value: float, places: int = 3) -> str:
    """To so many places behind the point, upwards.

    Example:
        >>> up_places(0.3511), up_places(0.1), up_places(2.449)
        ('0.352', '0.100', '2.449')
    """
    return _places(value, places, ROUND_CEILING)


def down_places(value: float, places: int = 2) -> str:
    """Likewise downwards: for what is at least so much.

    Example:
        >>> down_places(1.996)
        '1.99'
    """
    return _places(value, places, ROUND_FLOOR)


def down(value: float, digits: int = 3) -> str:
    """To so many digits downwards, as text: for a prior, which a bound takes for granted.

    Example:
        >>> down(0.1429), down(0.1), down(0.0012345)
        ('0.142', '0.1', '0.00123')
    """
    exact = _exact(value)
    return f"{float(_rounded(exact, exact.adjusted() - digits + 1, ROUND_FLOOR)):g}"


def up_percent(share: float, digits: int = 3) -> str:
    """A share in per cent, upwards.

    Example:
        >>> up_percent(0.35101), up_percent(0.1), up_percent(0.99991), up_percent(0.0023801)
        ('35.2 %', '10 %', '100 %', '0.239 %')
    """
    return f"{up(100 * _exact(share), digits)} %"


def down_percent(share: float, places: int = 2) -> str:
    """Likewise downwards, to so many places: for what a bound takes for granted.

    Example:
        >>> down_percent(1 / 3), down_percent(0.1), down_percent(0.005)
        ('33.33 %', '10 %', '0.5 %')
    """
    return f"{_rounded(100 * _exact(share), -places, ROUND_FLOOR).normalize():f} %"


def _exact(value: float) -> Decimal:
    return _EXACT.create_decimal(repr(float(value)))


def _places(value: float, places: int, rounding: str) -> str:
    return "∞" if math.isinf(value) else f"{_rounded(_exact(value), -places, rounding):f}"


def _rounded(exact: Decimal, place: int, rounding: str) -> Decimal:
    return exact.quantize(Decimal(1).scaleb(place), rounding)
