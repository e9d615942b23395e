"""Draws results/reference/exact/exact.png from stored results: exact attacks beside the default search.

python scripts/exact_picture.py
"""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from stored_results import HOME, results

from dpbench.report.plots.style import COLOURS, DASHES, FULL, LIGHT, SMALL, STYLE

Curves = dict[tuple[str, str], pd.Series]
"""(attack, victim) -> PSNR in dB of each image."""
VICTIMS = {"early": "early", "trained": "converged"}


def one_image() -> Curves:
    """`peel` and the search on the same images, batch seeds 1000 to 1049."""
    found = results("exact")
    peel = found[found["floor"].isna() & (found["defense"] == "none")]
    return {("peel", v): peel.loc[peel["victim"] == v, "psnr"] for v in VICTIMS} | _search(1)


def four_images() -> Curves:
    """`spear` and the search, batches of seeds 1000 to 1012."""
    found = results("exact-convnet")
    spear = found[found["floor"].isna() & (found["defense"] == "none")]
    return {("spear", v): spear.loc[spear["victim"] == v, "psnr"] for v in VICTIMS} | _search(4)


def _search(batch_size: int) -> Curves:
    found = pd.read_csv(HOME / "default-attack" / "presets.csv")
    found = found[(found["preset"] == "tuned") & (found["batch_size"] == batch_size)]
    return {("inverting-gradients", v): found.loc[found["victim"] == v, "psnr"] for v in VICTIMS}


def drawn() -> Figure:
    """Two panels: the share of images that are at least as near as so many dB."""
    figure = Figure(figsize=(FULL, 2.9), layout="constrained")
    floors = results("epsilon").query("floor == 'constant-image'")  # of the images of the left panel
    for axis, title, curves in zip(
        figure.subplots(1, 2, sharey=True),
        ("One image: peel and search", "Four images: spear and search"),
        (one_image(), four_images()),
        strict=True,
    ):
        attacks = list(dict.fromkeys(attack for attack, _ in curves))
        for (attack, victim), psnr in curves.items():
            best_first = psnr.sort_values(ascending=False)
            share = [100 * (i + 1) / len(best_first) for i in range(len(best_first))]
            late, how = victim == "trained", "search" if attack == "inverting-gradients" else "peel or spear"
            axis.step(
                best_first,
                share,
                where="post",
                color=COLOURS[attacks.index(attack)],
                linestyle=DASHES[late],
                label=f"{how}, {VICTIMS[victim]} victim",
            )
        axis.axvline(floors["psnr"].mean(), color=LIGHT, zorder=0, label="best constant image")
        axis.set(title=title, xlabel="PSNR, dB (right: leaks more)", ylim=(0, 103))
        axis.label_outer()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=SMALL)
    figure.axes[0].set_ylabel("images at least as near, %")
    return figure


def main() -> None:
    """Write the picture."""
    with matplotlib.rc_context(STYLE):
        drawn().savefig(HOME / "exact" / "exact.png", dpi=200, metadata={"Software": None})


if __name__ == "__main__":
    main()
