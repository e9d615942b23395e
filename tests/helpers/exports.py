"""Runs that leave data and tables: figures and the page take longer, and have tests of their own."""

from __future__ import annotations

import pytest

from dpbench.report import export

BARE_RUN = """
import sys
from dpbench.report import export
export.plots = {}
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


def bare(patch: pytest.MonkeyPatch) -> None:
    """Exports of this process draw nothing and write no page."""
    patch.setattr(export, "plots", {})
    patch.setattr(export.page, "write", lambda store, table: store.path / export.page.FILE)
