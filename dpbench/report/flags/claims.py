"""What contradicts a claim: an audit, a bound, or attacks that were tuned on the images they are tried on."""

from __future__ import annotations

from collections.abc import Iterator

from dpbench.privacy.rounding import down_places, up
from dpbench.privacy.vouched import vouched
from dpbench.report.evidence import originals
from dpbench.report.exceedances import exceeding
from dpbench.report.flags.audits import audits
from dpbench.report.flags.flag import Flag, Results, keys
from dpbench.report.rows import only
from dpbench.system.words import counted

AUDIT, BOUND, TUNED = "audit above the claim", "bound exceeded", "tuned on attacked images"
UNCHECKED = "epsilon on the author's word"
TUNING = ("cifar10", 100, 999)
"""The data, and the first and last batch seed, that attacks of dpbench are tuned on."""


def audited(results: Results) -> Iterator[Flag]:
    """Audits in the run's folder that refute a claim (`python -m dpbench.audit --out`)."""
    for audit in audits(results.store.path) if results.store else ():
        found = []
        if audit.exceeded and audit.claimed_eps is not None:
            claim = f"where {up(audit.claimed_eps, 4)} is claimed"
            found.append(f"at least ε {down_places(audit.eps)} for one release {claim}")
        if audit.departures:
            names = ", ".join(audit.departures)
            found.append(
                f"noise that fails {len(audit.departures)} of {counted(audit.checks, 'check')} ({names})"
            )
        if found:
            yield Flag(
                AUDIT,
                f"The audit {audit.name} of {audit.defense} found {' and '.join(found)} "
                f"({counted(audit.releases, 'release')} for each of {audit.canaries} canaries, confidence "
                f"{100 * audit.confidence:g} %), so its guarantee does not hold.",
                keys(results.table[(results.table["defense"] == audit.defense).fillna(False)]),
            )


def exceeded(results: Results) -> Iterator[Flag]:
    """Attackers above a bound that none can pass, corrected for how many were compared."""
    if results.well[["success_bound", "membership_bound"]].isna().all(axis=None):
        return
    _, group = results.conditions
    for each, text in exceeding(results.table):
        yield Flag(
            BOUND,
            f"{text}, which is an error in the defence, its accounting or the bound.",
            keys(results.table[group == each.line.name]),
        )


def unchecked(results: Results) -> Iterator[Flag]:
    """Budgets and bounds of a plug-in, whose noise dpbench has not tested."""
    asked = only(results.table, results.table["noise_unchecked"].fillna(False).astype(bool))
    for defence, rows in asked.groupby("defense", sort=False):
        yield Flag(UNCHECKED, vouched(defence), keys(rows))


def tuned(results: Results) -> Iterator[Flag]:
    """Images that the attack was tuned on, and batches of the seeds that are kept for tuning attacks."""
    own = only(results.well, results.well["tuned"].notna())
    for source, attacked in own.groupby("tuned"):
        rows = attacked[attacked["tuned_on"].fillna(False).astype(bool)]
        if len(rows):
            hit, all_of_them = (originals(each).nunique() for each in (rows, attacked))
            yield Flag(
                TUNED,
                f"{hit} of {counted(all_of_them, 'image')} are among those that the attack's parameters were "
                f"tuned on ({source}), so it may do better on them than on others: report batches of other "
                "images.",
                keys(rows),
            )
    data, first, last = TUNING
    attacked = only(results.well, (results.well["data"] == data).fillna(False).astype(bool))
    rows = only(attacked, attacked["batch_seed"].between(first, last).fillna(False).astype(bool))
    if len(rows):
        hit, all_of_them = (originals(each).nunique() for each in (rows, attacked))
        yield Flag(
            TUNED,
            f"{hit} of {counted(all_of_them, 'image')} of {data} are of the batch seeds {first} to {last}, "
            "which are kept for tuning attacks, so an attack may do better on them than on others: report "
            f"seeds from {last + 1} on.",
            keys(rows),
        )
