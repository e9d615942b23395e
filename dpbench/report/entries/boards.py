"""Results of many entries put on boards: ranked where they can be compared, and only there."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dpbench.report.flags.floors import FAILS

BAND = 10
"""Points of accuracy that a band is wide."""
LEAST = 59
"""Images or trials from which on a result is ranked: as many as a frontier takes where nothing succeeds. Even
if none of so many is right, 6.1 % are still possible (95 % interval); with fewer, more. In a frontier, whose
intervals hold whenever its batches ended, it is 9.1 %."""


@dataclass(frozen=True)
class Item:
    """One result of one entry.

    Attributes:
        entry: the whole entry.
        result: one of its results.
        unchecked: what of the entry could not be checked.
    """

    entry: dict[str, Any]
    result: dict[str, Any]
    unchecked: tuple[str, ...] = ()

    @property
    def success(self) -> dict[str, Any] | None:
        """How often the strongest attack was right, with its interval."""
        return self.result["strongest"]["success"]

    @property
    def accuracy(self) -> dict[str, Any] | None:
        """The most accurate of the models trained under the defence; None where none was."""
        return max(self.result["utility"], key=lambda each: each["mean"], default=None)

    @property
    def unranked(self) -> str:
        """Why it has no rank, in words; empty where it has one."""
        if not self.success:
            return "no attack was asked how often it is right"
        if any(flag["kind"] == FAILS for flag in self.flags):
            return "the attack fails undefended, so what it misses is to nobody's credit"
        if not any(map(self._is_undefended, self.entry["results"])):
            return "the entry has no undefended result of the same attacks, so nothing shows that they work"
        if self.success["asked"] < LEAST:
            return f"{self.success['asked']} of at least {LEAST} images or trials"
        return ""

    def _is_undefended(self, other: dict[str, Any]) -> bool:
        return other["defence"]["name"] == "none" and _attacked(other) == _attacked(self.result)

    @property
    def flags(self) -> list[dict[str, Any]]:
        """The entry's flags on this result, and those on all of it."""
        return [
            each
            for each in self.entry["flags"]
            if not each["results"] or self.result["id"] in each["results"]
        ]


@dataclass(frozen=True)
class Board:
    """Results that can be compared.

    Attributes:
        suite: the suite's name; empty where the runs are of none.
        threat_model: what the attacker may do.
        scene: the settings that all share, as text.
        attacks: what attacked.
        protocol: hash of these attacks with their settings.
        band: the accuracy, as text.
        ranked: (rank, item), in a rank by the upper end of the interval; no rank where `Item.unranked` says
            why.
    """

    suite: str
    threat_model: str
    scene: str
    attacks: str
    protocol: str
    band: str
    ranked: tuple[tuple[int | None, Item], ...]


def boards(items: Iterable[Item]) -> list[Board]:
    """Sort results onto boards: those of one suite, threat model, scene, attacks and utility band.

    Accuracies of different models say nothing of defences, so a band is of one model.
    """
    found: dict[tuple[str, ...], list[Item]] = {}
    for item in items:
        found.setdefault(_place(item), []).append(item)
    return [Board(*place, ranked=tuple(_ranked(each))) for place, each in sorted(found.items())]


def ranks(intervals: list[tuple[float, float]]) -> list[int]:
    """1 + the number of others whose interval lies wholly below; so ties within the interval share a rank.

    Example:
        >>> ranks([(0.0, 0.1), (0.05, 0.3), (0.2, 0.4)])
        [1, 1, 2]
    """
    return [1 + sum(high < low for _, high in intervals) for low, _ in intervals]


def band(accuracy: dict[str, Any] | None) -> str:
    """The utility band of an accuracy, `BAND` points wide, with its model.

    Example:
        >>> band({"mean": 0.634, "utility_model": "scattering-linear"}), band(None)
        ('accuracy 60 to 70 % (scattering-linear)', 'accuracy not measured')
    """
    if accuracy is None:
        return "accuracy not measured"
    least = min(math.floor(100 * accuracy["mean"] / BAND + 1e-9) * BAND, 100 - BAND)
    return f"accuracy {least} to {least + BAND} % ({accuracy['utility_model']})"


def _ranked(items: list[Item]) -> list[tuple[int | None, Item]]:
    measured = [item for item in items if not item.unranked]
    places = ranks([(item.success["low"], item.success["high"]) for item in measured])
    in_order = sorted(zip(places, measured, strict=True), key=lambda each: (each[0], each[1].success["high"]))
    return [*in_order, *((None, item) for item in items if item not in measured)]


def _place(item: Item) -> tuple[str, ...]:
    return item.entry["suite"] or "", *_attacked(item.result), band(item.accuracy)


def _attacked(result: dict[str, Any]) -> tuple[str, ...]:
    """Threat model, scene, attacks and their settings: what a defence and its absence are compared in."""
    success = result["strongest"]["success"] or {}
    # one release is what everybody attacks unless said otherwise; undefended, it is not said
    scene = {n: v for n, v in result["scene"].items() if not (n in ("releases", "inclusion") and v == 1)}
    words = [f"{name.replace('_', ' ')} {_word(value)}" for name, value in scene.items()]
    if chance := success.get("chance"):
        words.append(f"chance {chance:.3g}")
    return result["threat_model"] or "", ", ".join(words), ", ".join(result["attacks"]), result["protocol"]


def _word(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
