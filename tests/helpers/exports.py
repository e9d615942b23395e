"""Runs that leave data and tables: figures, entries and pages take longer, and have tests of their own."""

from __future__ import annotations

import pytest

from dpbench.report import export
from dpbench.report.plots import files

_USUAL = {name: getattr(files, name) for name in ("KINDS", "WIDTHS", "DPI")}

BARE_RUN = """
import sys
from dpbench.report import export
export.plots = {}
export._entry = lambda store, table: []
export.page.write = lambda store, table: store.path / "report.html"
from dpbench.run import main
sys.exit(main())
"""
"""For `python -c`, instead of `python -m dpbench.run`."""


FIGURES_IN_ONE_FILE = """
from dpbench.report.plots import files
files.KINDS, files.WIDTHS = ("svg",), {"": files.WIDTHS[""]}
"""
"""For other processes: what `figures_in_one_file` does in those of the tests."""


def in_one_file(patch: pytest.MonkeyPatch) -> None:
    """Figures of this process are drawn at one width and saved as one small file."""
    for name, value in (("KINDS", ("svg",)), ("WIDTHS", {"": files.WIDTHS[""]}), ("DPI", 20)):
        patch.setattr(files, name, value)


def in_all_files(patch: pytest.MonkeyPatch) -> None:
    """Figures of this process are saved as users get them."""
    for name, value in _USUAL.items():
        patch.setattr(files, name, value)


def bare(patch: pytest.MonkeyPatch) -> None:
    """Exports of this process draw nothing and write neither an entry nor a page."""
    patch.setattr(export, "plots", {})
    patch.setattr(export, "_entry", lambda store, table: [])
    patch.setattr(export.page, "write", lambda store, table: store.path / export.page.FILE)
