"""The page of a run: one file that opens without a network, prints, and can be sent to a colleague."""

from dpbench.report.page.document import FILE, html, write

__all__ = ["FILE", "html", "write"]
