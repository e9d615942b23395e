"""One file per picture; each registers what it draws under the name of its file."""

# isort: off (the order is that of the page: the answer first, then what explains it)
from dpbench.report.plots import (  # noqa: F401 (each registers its plot)
    batches,
    confidence,
    frontier,
    leakage,
    noise,
    pictures,
    search,
    shares,
    threats,
    tradeoff,
    utility,
)

# isort: on
from dpbench.report.plots.registry import Plot, as_plot, plot, plots

__all__ = ["Plot", "as_plot", "plot", "plots"]
