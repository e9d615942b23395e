"""`dpbench-entry.json`: what a run shows, in one file that can be checked and ranked beside others."""

from dpbench.report.entries.entry import FILE, entry, write

__all__ = ["FILE", "entry", "write"]
