"""A comparison with stored results, in words."""

from __future__ import annotations

from dpbench.report.check import tolerances
from dpbench.report.check.findings import Departure, Findings
from dpbench.report.check.stored import Stored
from dpbench.store.columns import columns


def lines(there: Stored, findings: Findings) -> list[str]:
    """What was compared and how strictly, what could not be, where the run departs, and the verdict.

    Args:
        there: what the run was compared with.
        findings: what came out.
    """
    said = [f"Checked against {there.name}: {_rows(findings.compared)} compared."]
    if findings.compared:
        said.append(_tolerances(findings))
    said += [f"Not compared: {line}." for line in findings.left_out]
    alike: dict[tuple[str, str], list[Departure]] = {}
    for each in findings.departures:  # a setting that changed changed for every attack and defence
        alike.setdefault((each.column, each.example), []).append(each)
    for (column, example), group in alike.items():
        where = "; ".join(f"{' on '.join(each.kind)} ({_rows(each.rows)})" for each in group)
        said.append(f"Departs: {column} of {where}: {example}.")
    if findings.agrees:
        said.append("It agrees.")
    elif findings.departures:
        count = len(alike)
        said.append(f"It departs in {count} place{'s' if count > 1 else ''}.")
    else:
        said.append("Nothing could be compared.")
    return said


def _tolerances(findings: Findings) -> str:
    if findings.exact == findings.compared:
        return "Same machine, packages and code: equal to the last digit."
    most = {name: f"{value:g} {columns()[name].unit}".strip() for name, value in tolerances.SEARCHED.items()}
    image = ", ".join(f"{name} {value}" for name, value in most.items() if not name.endswith("_floor"))
    exact = f"{_rows(findings.exact)} to the last digit; the others: " if findings.exact else ""
    return (
        f"Another machine, version or code, so within tolerances: {exact}what takes no search within "
        f"{tolerances.DIRECT:g}, shares of trials within {tolerances.TRIALS:g}; of a search one image within "
        f"{image}, and the mean of {tolerances.LEAST} or "
        f"more batches within a {100 * tolerances.CONFIDENCE:g} % interval of the difference; settings equal."
    )


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
