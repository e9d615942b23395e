"""What a frontier is once it is measured, in numbers and in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from dpbench.frontier import evidence
from dpbench.frontier.evidence import Verdict
from dpbench.privacy.intervals import anytime
from dpbench.privacy.rounding import up


@dataclass(frozen=True, kw_only=True)
class Noise:
    """A noise multiplier and the privacy that it gives.

    Attributes:
        sigma: the noise multiplier; 0 without a defence.
        eps: epsilon of the training; None where there is none to speak of, or only the release counts.
        eps_release: epsilon of the attacked release(s).
    """

    sigma: float
    eps: float | None = None
    eps_release: float | None = None

    def described(self) -> str:
        """In words."""
        spent = [f"ε {up(self.eps)} of the training"] if self.eps is not None else []
        spent += [f"{up(self.eps_release)} of the release"] if self.eps_release is not None else []
        return f"σ {up(self.sigma)}" + (f" ({', '.join(spent)})" if spent else "")


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How often one attack succeeded at one noise level.

    Attributes:
        attack: its name, and what differs from its defaults.
        successes: batches in which the attacked image ranked first.
        trials: batches.
        low: lower end of an interval of the rate that holds at whatever moment the batches ended, 95 %.
        high: its upper end.
        evidence_of_a_leak: e-value against a rate of 1/200 or below.
        evidence_below_margin: e-value against a rate of 1/200 + .05 or above.
    """

    attack: str
    successes: int
    trials: int
    low: float
    high: float
    evidence_of_a_leak: float
    evidence_below_margin: float

    @classmethod
    def of(cls, attack: str, successes: int, trials: int) -> Rate:
        """With what follows from the counts."""
        low, high = anytime(successes, trials)
        return cls(
            attack=attack,
            successes=successes,
            trials=trials,
            low=low,
            high=high,
            evidence_of_a_leak=float(evidence.leak(successes, trials)),
            evidence_below_margin=float(evidence.below(successes, trials)),
        )


@dataclass(frozen=True, kw_only=True)
class Level:
    """One noise level as it was attacked.

    Attributes:
        noise: what was attacked.
        rates: how often each attack succeeded.
        verdict: what the sequences say of it; None where neither reached it, and in a curve without verdicts.
    """

    noise: Noise
    rates: tuple[Rate, ...]
    verdict: Verdict | None = None


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """What one threat model's attacks are seen to get, by noise.

    Attributes:
        threat_model: its name.
        attacks: the set that was fixed beforehand.
        levels: those that were attacked, in ascending order of noise, the undefended first.
        leak_up_to: the largest noise up to which a leak is shown; None where it is shown without a defence
            only, or nothing was tested.
        none_from: the smallest noise from which on none is seen by these attacks; None where there is none.
        certified: for each prior success kappa, the noise from which on no attacker at all gains .05.
        setting: data, model, batch size and whatever else the result is for.
    """

    threat_model: str
    attacks: tuple[str, ...]
    levels: tuple[Level, ...]
    leak_up_to: Noise | None
    none_from: Noise | None
    certified: dict[str, Noise]
    setting: dict[str, Any] = field(default_factory=dict)

    @property
    def tested(self) -> bool:
        """Whether there are verdicts."""
        return any(level.verdict is not None for level in self.levels)

    def sentence(self) -> str:
        """The result in words."""
        who = f"{self.threat_model}, {' and '.join(self.attacks)}"
        if not self.tested:
            counts = ", ".join(_count(level) for level in self.levels)
            said = f"{who}: {counts}. This is a curve without verdicts"
            if not any(rate.successes for rate in self.levels[0].rates):
                said += ", and as no attack succeeded undefended it says nothing about a defence"
            return f"{said}."
        shown = "without a defence"
        if self.leak_up_to is not None:
            shown = f"up to {self.leak_up_to.described()}"
        words = f"{who}: a leak is shown {shown}; "
        if self.none_from is None:
            return f"{words}there is no level from which on none is seen by these attacks."
        words += f"from {self.none_from.described()} on none is seen by these attacks"
        return f"{words}; what lies between is undecided."

    def described(self) -> dict[str, Any]:
        """Plain values for JSON."""
        meaning = evidence.MEANING if self.tested else ""
        return asdict(self) | {"sentence": self.sentence(), "meaning": meaning}

    def rows(self) -> list[dict[str, Any]]:
        """One flat row for each level and attack."""
        return [
            {"threat_model": self.threat_model, **asdict(level.noise), "verdict": level.verdict}
            | asdict(rate)
            | {"rate": rate.successes / rate.trials if rate.trials else None}
            for level in self.levels
            for rate in level.rates
        ]


def _count(level: Level) -> str:
    counted = " and ".join(f"{rate.successes} of {rate.trials}" for rate in level.rates)
    return f"{counted} {'undefended' if level.noise.sigma == 0 else f'at σ {up(level.noise.sigma)}'}"
