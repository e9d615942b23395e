"""Does a defence keep what it promises? A lower bound on epsilon from its own releases."""

from __future__ import annotations

from dpbench.audit.auditor import audit
from dpbench.audit.noise import Check
from dpbench.audit.report import Finding, Report

__all__ = ["Check", "Finding", "Report", "audit"]
