"""Whether a run gives the results that were stored of it, and where it departs from them."""

from dpbench.report.check.departures import compare
from dpbench.report.check.findings import Findings
from dpbench.report.check.stored import Stored, read
from dpbench.report.check.words import lines

__all__ = ["Findings", "Stored", "compare", "lines", "read"]
