"""Does a defence keep what it promises? A lower bound on epsilon from its own releases."""

from __future__ import annotations

from dpbench.audit.auditor import Finding, Report, audit

__all__ = ["Finding", "Report", "audit"]
