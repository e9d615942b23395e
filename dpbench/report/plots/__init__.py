"""One file per picture; each registers what it draws under the name of its file."""

# The order is that of the page: the answer first, then what explains it.
# isort: off
from dpbench.report.plots import (  # noqa: F401 (each registers its plot)
    leakage,
    noise,
    utility,
    tradeoff,
    frontier,
    threats,
    shares,
    search,
    batches,
    confidence,
    pictures,
)

# isort: on
from dpbench.report.plots.registry import Plot, as_plot, plot, plots

__all__ = ["Plot", "as_plot", "plot", "plots"]
