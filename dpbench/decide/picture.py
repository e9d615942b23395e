"""The picture of a decision: what each choice lets an attacker do, and the bounds along epsilon."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpbench.decide.choices import RARE, Choice, Training
from dpbench.privacy import PRIOR_SUCCESS
from dpbench.privacy.rounding import down, up
from dpbench.report.plots.axes import at_values, short
from dpbench.report.plots.colours import OKABE_ITO
from dpbench.system.words import counted

MOST_CURVES = 6
_SMALL = 8
_PANEL = 2.0  # the bounds' panel, inches


def picture(training: Training, chosen: Sequence[Choice]) -> Figure:
    """Draw the trade-off curves and, for several choices, the bounds against epsilon.

    Args:
        training: what the noise is for.
        chosen: at least one choice; of more than `MOST_CURVES` some curves are left out.
    """
    several = len(chosen) > 1
    figure = Figure(figsize=(7.0, 3.8) if several else (3.6, 3.3), layout="constrained")
    axes = figure.subplots(1, 2 if several else 1, squeeze=False)[0]
    _curves(axes[0], chosen)
    if several:
        _bounds(axes[1], chosen)
    title = (
        f"{counted(training.train_size, 'image')}, batches of {training.train_batch_size:,}, "
        f"{counted(training.epochs, 'epoch', 'g')}, δ = {up(training.delta, 6)}"
    )
    if training.sample_rate < 1:
        but = "unless “batches known”: " if several else ""
        title += f"\n{but}for attackers who do not know the batches"
    figure.suptitle(title, fontsize=_SMALL + 1)
    return figure


def _curves(axis: Axes, chosen: Sequence[Choice]) -> None:
    """The best attacker's receiver operating characteristic for each choice, both axes logarithmic."""
    places = np.unique(np.linspace(0, len(chosen) - 1, min(len(chosen), MOST_CURVES)).round().astype(int))
    alpha = np.geomspace(1e-5, 1, 400)
    axis.plot(alpha, alpha, color="0.6", linestyle="--", linewidth=1)
    axis.text(3e-2, 2.1e-2, "guessing", color="0.4", fontsize=_SMALL, rotation=36, va="top")
    for i, place in enumerate(places):
        choice = chosen[place]
        power = np.interp(alpha, choice.curve.false_positive, choice.curve.true_positive)
        label = f"ε = {up(choice.eps)}, σ = {up(choice.noise_multiplier)}"
        axis.plot(alpha, power, color=OKABE_ITO[i % len(OKABE_ITO)], linewidth=1.4, label=label)
        axis.plot(RARE, choice.power, "o", color=OKABE_ITO[i % len(OKABE_ITO)], markersize=3)
    axis.set(xscale="log", yscale="log", xlim=(1e-5, 1), ylim=(1e-5, 1.3))
    axis.set_xlabel("false positive rate (or prior κ)", fontsize=_SMALL)
    axis.set_ylabel("most that an attacker gets right", fontsize=_SMALL)
    axis.set_title("Whole training: 1 - f", fontsize=_SMALL + 1, loc="left")
    axis.legend(fontsize=_SMALL - 1, frameon=False, loc="lower right")
    axis.tick_params(labelsize=_SMALL, which="both")


def _bounds(axis: Axes, chosen: Sequence[Choice]) -> None:
    eps = [choice.eps for choice in chosen]
    lines = (
        ("rebuilt, one gradient", [c.rero_release_kappa for c in chosen], "-"),
        ("rebuilt, training", [c.rero_training_kappa for c in chosen], "-"),
        ("rebuilt, training, batches known", [c.rero_server_kappa for c in chosen], "-"),
        ("membership advantage", [c.advantage for c in chosen], "--"),
        (f"TPR at FPR {RARE:g}", [c.power for c in chosen], ":"),
    )
    for i, (label, values, style) in enumerate(lines):
        axis.plot(
            eps, values, style, marker="o", markersize=3, color=OKABE_ITO[i], label=label, linewidth=1.4
        )
    kappa = chosen[0].kappa
    axis.axhline(kappa, color="0.6", linestyle=":", linewidth=1)
    axis.text(
        max(eps), kappa, f"prior κ = {down(kappa)}", fontsize=_SMALL - 1, color="0.4", ha="right", va="bottom"
    )
    axis.set(xscale="log", ylim=(0, 1.02))
    at_values(axis, eps, [short(value) for value in eps], _PANEL)
    axis.set_xlabel("ε of the training", fontsize=_SMALL)
    prior = "" if kappa == PRIOR_SUCCESS else f" (κ = {down(kappa)})"
    axis.set_title(f"Bounds{prior}", fontsize=_SMALL + 1, loc="left")
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncol": 2}  # there is no curve
    axis.legend(fontsize=_SMALL - 1, frameon=False, **below)
    axis.tick_params(labelsize=_SMALL)
