"""Figures of the suites about victims of which the last layer alone is trained."""

from __future__ import annotations

from typing import Any

import pandas as pd
from stored_results import identified, results

OURS = "feature-inversion"


def heads() -> dict[tuple[int, str, str], dict[str, Any]]:
    """Suites `head` and `head-batches`, by batch size, victim and attack; `noise` is pure noise attacked."""
    found = {}
    for name in ("head", "head-batches"):
        rows = results(name)
        attacked = rows[rows["floor"].isna()]
        noise = rows[(rows["floor"] == "noise-gradient") & (rows["floor_of"] == OURS)]
        for (size, victim), whole in attacked.groupby(["batch_size", "victim"]):
            own = {attack: whole[whole["attack"] == attack] for attack in whole["attack"].unique()}
            own["noise"] = noise[noise["victim"] == victim]
            own["mean-image"] = rows[(rows["floor"] == "mean-image") & (rows["victim"] == victim)]
            found |= {(int(size), victim, attack): _of(images) for attack, images in own.items()}
            found[int(size), victim, "solved"] = _solved(own[OURS])
            found[int(size), victim, "nearer"] = _nearer(own[OURS], own["inverting-gradients"])
    return found


def _of(images: pd.DataFrame) -> dict[str, Any]:
    return {
        "images": len(images),
        "batches": images["batch_seed"].nunique(),
        "psnr": images["psnr"].mean(),
        "least": images["psnr"].min(),
        "lpips": images["lpips"].mean(),
        "identified": identified(images),
        "seconds": images["seconds"].median(),
    }


def _nearer(ours: pd.DataFrame, search: pd.DataFrame) -> dict[str, float]:
    """What is gained over the default search, image by image."""
    one, other = (rows.set_index(["batch_seed", "image"])["psnr"] for rows in (ours, search))
    gain = one - other
    return {"gain": gain.mean(), "count": int((gain > 0).sum()), "of": len(gain)}


def _solved(images: pd.DataFrame) -> dict[str, int]:
    """In how many batches all features, some, and none were read."""
    notes = images.groupby("batch_seed")["note"].first().fillna("")
    none, some = notes.str.startswith("Not solved"), notes.str.contains("rounding errors")
    return {"none": int(none.sum()), "some": int(some.sum()), "all": int((~none & ~some).sum())}
