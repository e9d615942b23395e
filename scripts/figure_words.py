"""How figures are written in README.md and docs/."""

from __future__ import annotations

import math
from collections.abc import Mapping


def percent(value: float) -> str:
    """A share without its sign; a decimal only where 0 or 100 would not be true."""
    scaled = 100 * value
    if 0 < scaled < 0.5:
        return f"{max(scaled, 0.1):.1f}"
    if 99.5 <= scaled < 100:
        return f"{min(scaled, 99.9):.1f}"
    return f"{scaled:.0f}"


def ends(found: Mapping[str, float]) -> str:
    """An interval of shares, as `12 to 36 %`."""
    return f"{percent(found['low'])} to {percent(found['high'])} %"


def decimals(found: Mapping[str, float]) -> str:
    """A count with its share and interval, as `49: .98 [.89, 1.00]`."""
    share, low, high = (plain(x, 2) for x in (found["count"] / found["of"], found["low"], found["high"]))
    return f"{found['count']}: {share} [{low}, {high}]"


def plain(value: float, places: int, signed: bool = False) -> str:
    """A number without a leading zero, with a real minus: `−.058`, `+3.0`."""
    text = f"{abs(value):.{places}f}"
    sign = "−" if value < 0 else "+" if signed else ""
    return sign + (text.removeprefix("0") if places > 1 else text)


def power(value: float) -> str:
    """A probability to one digit, as `2e-15`, or `.2` where it is not small."""
    return f"{value:.0e}".replace("e-0", "e-") if value < 0.01 else f"{value:.1g}".removeprefix("0")


def upper(value: float) -> str:
    """A bound as percent with one decimal, rounded up so that what is printed holds."""
    return f"{math.ceil(round(1000 * value, 6)) / 10:.1f}"


def release(version: str) -> str:
    """A version without its last number."""
    return ".".join(version.split(".")[:2])


def verdicts(found: Mapping[str, str]) -> str:
    """At which budgets a leak was shown and at which none was seen, in words."""
    said = {"leak shown": "", "not seen by these attacks": ""}
    for verdict in said:
        said[verdict] = " and ".join(sorted((eps for eps in found if found[eps] == verdict), key=float))
    shown, unseen = said.values()
    return f"is shown to find images at ε = {shown} and is not seen to at ε = {unseen}"


def restored(found: Mapping[tuple, float], victim: str, rule: str, size: int) -> str:
    """Shares of labels restored, distinct and random; one where both are equal."""
    draws = [found.get((victim, rule, draw, size)) for draw in ("distinct", "random")]
    words = ["" if share is None else percent(share) for share in draws]
    if not any(words):
        return ""
    return f"{words[0]} %" if words[0] == words[1] else f"{words[0]} \\| {words[1]} %".lstrip()


def spread(found: Mapping[str, float]) -> str:
    """A median over batches with its range, as `0.080 (0.075–0.119)`."""
    median, least, most = (f"{found[name]:.3f}" for name in ("lpips", "least", "most"))
    return f"{median} ({least}–{most})"


def lower_than(found: Mapping[str, list[float]], other: Mapping[str, list[float]]) -> int:
    """In how many batches one is lower than another."""
    return sum(a < b for a, b in zip(found["batches"], other["batches"], strict=True))


FILTERS = {
    each.__name__: each
    for each in (
        *(percent, ends, decimals, plain, power, upper),
        *(release, verdicts, restored, spread, lower_than),
    )
}
