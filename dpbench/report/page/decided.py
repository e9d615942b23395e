"""The table of `dpbench decide`: what follows from each epsilon before anything is attacked."""

from __future__ import annotations

from typing import Any

import pandas as pd
from markupsafe import Markup

from dpbench.report.page import plots
from dpbench.report.page.beside import from_json
from dpbench.report.page.figures import at_most, figure
from dpbench.report.page.templating import render
from dpbench.store import Store

FILE = "decide.json"


def decided(table: pd.DataFrame, store: Store) -> Markup | None:
    """One line for each choice of noise; None where the folder has no `decide.json`."""
    read = from_json(store.path / FILE)
    if not isinstance(read, dict) or not read.get("choices"):
        return None
    choices: list[dict[str, Any]] = read["choices"]
    first, training = choices[0], read["training"]
    images = first["images_per_user"]
    header = ["ε training", "σ", "ε release", "bound, one release", "bound, training"]
    header.append("bound, batches known")
    if own := first["kappa"] != 0.1:
        header += [f"bound, {what}, prior {first['kappa']:g}" for what in ("training", "batches known")]
    header += ["membership advantage", "true positives at 0.1 % false ones", "GDP μ"]
    if images > 1:
        header.append(f"ε of {images} images")
    return render(
        "decided",
        training={
            "N": figure(training["train_size"], ",d"),
            "batch": figure(training["train_batch_size"], ",d"),
            "epochs": figure(training["epochs"], "g"),
            "q": figure(training["sample_rate"]),
            "T": figure(training["steps"], ",d"),
            "delta": at_most(training["delta"], 6),
        },
        header=header,
        rows=[_row(choice, own=own, images=images) for choice in choices],
        picture=plots.picture(store.path / "decide.png", "What follows from each epsilon, as in the table."),
        images=images,
    )


def _row(choice: dict[str, Any], *, own: bool, images: int) -> list[Markup]:
    names = ["eps", "noise_multiplier", "eps_release", "rero_release", "rero_training", "rero_server"]
    names += ["rero_training_kappa", "rero_server_kappa"] if own else []
    names += ["advantage", "power"]
    # a file of an older version lacks what was added
    cells = [at_most(choice.get(name), 4 if name == "noise_multiplier" else 3) for name in names]
    cells.append(figure(choice["gaussian_mu"]))
    if images > 1:  # JSON knows no infinity: what was not found is null
        value = choice["eps_user"]
        cells.append(Markup("none found") if value is None else at_most(value))
    return cells
