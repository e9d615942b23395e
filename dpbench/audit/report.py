"""The outcome of an audit, as numbers, as a table and in a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from dpbench.audit.noise import Check
from dpbench.privacy.rounding import down_places, up


@dataclass(frozen=True)
class Finding:
    """What one canary gives away; both bounds hold together with those of all other canaries.

    Attributes:
        canary: its name.
        eps: lower bound on epsilon, at the report's delta, of any mechanism.
        mu: lower bound on mu, for a mechanism that claims to be a Gaussian release.
        eps_gaussian: the epsilon of a Gaussian release with that mu.
        seen_by: the score of `directions.learn` that `eps` was found with.
    """

    canary: str
    eps: float
    mu: float
    eps_gaussian: float
    seen_by: str


@dataclass(frozen=True)
class Report:
    """The outcome of an audit.

    Attributes:
        findings: one for each canary.
        checks: of the noise; they count where a Gaussian release is claimed.
        releases: made for each canary, half of them with it.
        confidence: that no bound is above the truth, and no check fails a correct mechanism.
        delta: of all epsilons.
        claimed_eps: for one release; None where nothing is claimed.
        gaussian: the claim is that of a Gaussian release, so bounds on mu and checks of the noise count.
        asked: for each canary, before the time limit.
        reach: the epsilon so many releases would show if they gave the canary away every time; no claim above
            it can be refuted by a bound.
    """

    findings: tuple[Finding, ...]
    checks: tuple[Check, ...]
    releases: int
    confidence: float
    delta: float
    claimed_eps: float | None
    gaussian: bool
    reach: float
    asked: int = 0

    @property
    def eps(self) -> float:
        """The audited epsilon: the highest lower bound that counts.

        Where a Gaussian release is claimed, bounds on mu count: they refute the claim whatever was released,
        but are about the epsilon spent only if that was a Gaussian release.
        """
        return max(max(f.eps, f.eps_gaussian if self.gaussian else 0.0) for f in self.findings)

    @property
    def exceeded(self) -> bool:
        """The audited epsilon is above the claimed one: the defence has a bug, or its claim has."""
        return self.claimed_eps is not None and self.eps > self.claimed_eps

    @property
    def departures(self) -> tuple[Check, ...]:
        """Failed checks of a noise that is claimed to be Gaussian; empty where no such claim is made."""
        return tuple(check for check in self.checks if self.gaussian and check.failed)

    @property
    def failed(self) -> bool:
        """The claim is refuted, by the audited epsilon or by the noise."""
        return self.exceeded or bool(self.departures)


def tables(report: Report, name: str) -> tuple[Table, Table]:
    """Bounds for each canary, and the checks of the noise of the defence called `name`."""
    bounds = Table(
        title=f"{name}: lower bounds at {100 * report.confidence:g}% confidence, all of them together"
    )
    bounds.add_column("canary")
    for heading in ("eps", "mu (Gaussian DP)", "eps of that mu"):
        bounds.add_column(heading, justify="right")
    bounds.add_column("seen by")
    for f in report.findings:
        bounds.add_row(
            f.canary, down_places(f.eps), down_places(f.mu, 3), down_places(f.eps_gaussian), f.seen_by
        )
    noise = Table(title="its noise, " + ("which counts" if report.gaussian else "for information only"))
    for heading in ("check", "found"):
        noise.add_column(heading)
    noise.add_column("p", justify="right")
    noise.add_column("")
    for check in report.checks:
        verdict = "no" if check.failed else "yes"
        noise.add_row(check.name, check.found, f"{check.p:.2g}", verdict)
    noise.columns[-1].header = "as claimed" if report.gaussian else "as of independent Gaussian noise"
    return bounds, noise


def sentence(report: Report, name: str) -> str:
    """What was found of the defence called `name`, and whether its claim stands."""
    least = down_places(max(finding.eps for finding in report.findings))
    fewer = f", of {report.asked:,} asked for," if report.releases < report.asked else ""
    found = (
        f"{report.releases:,} releases{fewer} for each of {len(report.findings)} canaries: "
        f"a release of {name} spends at least eps {least} at delta {report.delta:g}"
    )
    if report.gaussian:
        found += f", and {down_places(report.eps)} if it is Gaussian as it claims"
    claimed = (
        "it claims nothing" if report.claimed_eps is None else f"the claim is {up(report.claimed_eps, 4)}"
    )
    found += f"; {claimed}"
    failed = "; ".join(f"{check.name} ({check.found})" for check in report.checks if check.failed)
    if report.departures:
        found += f". Its noise is not what it claims: {failed}"
    elif report.gaussian:
        found += f". Its noise passes {len(report.checks)} checks"
    elif failed:
        found += f". For information, its noise is not independent Gaussian noise: {failed}"
    if report.claimed_eps is None:
        return f"{found}."
    if report.failed:
        return f"BUG. {found}."
    if report.claimed_eps >= report.reach:
        return (
            f"Passed for want of evidence. {found}. So few releases show no epsilon above {up(report.reach)}."
        )
    return f"Passed: no leak above the claim was found. {found}. This is no proof that the claim holds."
