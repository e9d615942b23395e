"""The page from top to bottom: one function for each section."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from dpbench.report.page.answer import answer
from dpbench.report.page.cells import cells
from dpbench.report.page.decided import decided
from dpbench.report.page.frontiers import frontiers
from dpbench.report.page.images import images
from dpbench.report.page.pictures import pictures
from dpbench.report.page.plots import plots
from dpbench.report.page.provenance import provenance
from dpbench.report.page.results import results
from dpbench.report.page.state import state
from dpbench.report.page.utility import utility
from dpbench.store import Store

Make = Callable[[pd.DataFrame, Store], Markup | None]
"""(per-image results with all columns of `dpbench.store.columns`, maybe no row; the run's folder) -> HTML of
the section without its heading; None where it has nothing to show."""


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        name: its anchor in the page.
        title: its heading.
        make: what makes it.
    """

    name: str
    title: str
    make: Make


SECTIONS = (
    Section("answer", "The answer", answer),
    Section("decide", "Which epsilon", decided),
    Section("frontier", "The measured frontier", frontiers),
    Section("utility", "What it costs", utility),
    Section("pictures", "Pictures", pictures),
    Section("state", "What is here, and what is missing", state),
    Section("plots", "Plots", plots),
    Section("results", "Results", results),
    Section("images", "Image by image", images),
    Section("cells", "Cells", cells),
    Section("provenance", "How this was made", provenance),
)
