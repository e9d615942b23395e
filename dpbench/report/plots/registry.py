"""Plots by the name of their file: ours, and those of third parties."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from dpbench.protocol import Registry
from dpbench.store import Store

Plot = Callable[[pd.DataFrame, Store], Figure | None]
"""(per-image results with the columns of `dpbench.store.columns`, the run's cells) -> the figure; None where
there is nothing to draw."""

plots: Registry[Plot] = Registry("plot", group="dpbench.plots")


def plot(name: str) -> Callable[[Plot], Plot]:
    """Function decorator that registers a plot.

    Args:
        name: of its file, `leakage.png` say; its ending decides the format.
    """
    return plots.register(name)
