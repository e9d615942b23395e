"""What an audit prints: no number of it is cut."""

import io

import pytest
from rich.console import Console

from dpbench.audit.noise import Check
from dpbench.audit.report import Finding, Report, tables


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_number_of_an_audit_is_cut(width):
    names = ("C, others random", "100 C, others opposed and as uneven as they can be")
    findings = tuple(Finding(name, 1234.56, 123.456, 98765.43, "a score that was learned") for name in names)
    found = "0.95512345 to 1.03712345 of the claimed standard deviation"
    checks = tuple(Check(name, found, 1.2e-308, 0.05) for name in ("size", "releases independent of others"))
    report = Report(findings, checks, 20_000, 0.95, 1e-5, 1.0, True, 9.0)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(*tables(report, "their-own-defence+" * 9))
    text = console.export_text()
    assert "…" not in text
    words = text.replace("│", " ").split()
    for number in ("1234.56", "123.456", "98765.43", "1.2e-308", "0.95512345", "1.03712345"):
        assert words.count(number) == 2
