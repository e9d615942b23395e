"""Figures of the suites about victims of which the last layer alone is trained."""

from __future__ import annotations

from typing import Any

import pandas as pd
from stored_results import identified, results

from dpbench.report.compare.intervals import bootstrap

OURS = "feature-inversion"
SHORT = 0.3
"""Norm of a gradient, of a clip norm of 1, below which images are counted apart; chosen after the fact."""


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


def noisy_heads() -> dict[str, Any]:
    """Suite `head-noise`: by attack and epsilon of the release, and what is gained over the other attacks."""
    rows = results("head-noise")
    attacked = rows[rows["floor"].isna()]
    defended, undefended = (attacked[attacked["defense"] == name] for name in ("dp", "none"))
    found = {
        (attack, f"{eps:g}"): _of(images) | {"sigma": images["noise_multiplier"].iloc[0]}
        for (attack, eps), images in defended.groupby(["attack", "eps_release"])
    }
    mean = rows[rows["floor"] == "mean-image"]
    return {
        "eps": sorted(defended["eps_release"].unique()),
        "attacks": [OURS, *(name for name in attacked["attack"].unique() if name != OURS)],
        "of": found,
        "gain": {
            (other, f"{eps:g}"): _gain(images[images["attack"] == OURS], images[images["attack"] == other])
            for eps, images in defended.groupby("eps_release")
            for other in images["attack"].unique()
            if other != OURS
        },
        "without": _of(undefended[undefended["attack"] == OURS]),
        "below": _by_norm(defended[defended["attack"] == OURS], undefended, below=True),
        "above": _by_norm(defended[defended["attack"] == OURS], undefended, below=False),
        "mean-image": mean["psnr"].mean(),
    }


def _by_norm(ours: pd.DataFrame, undefended: pd.DataFrame, below: bool) -> dict[str, Any]:
    """By epsilon, how many images were identified whose gradient has a norm below `SHORT`, or not."""
    norms = undefended.drop_duplicates("batch_seed").set_index("batch_seed")["release_norm"]
    chosen = ours[(ours["batch_seed"].map(norms) < SHORT) == below]
    return {f"{eps:g}": identified(images) for eps, images in chosen.groupby("eps_release")}


def _gain(ours: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """In dB, image by image, in the mean, with its interval over batches."""
    one, two = (rows.set_index(["batch_seed", "image"])["psnr"] for rows in (ours, other))
    gain = (one - two).dropna()
    low, high = bootstrap(gain.to_numpy(), gain.index.get_level_values("batch_seed").to_numpy())
    return {"mean": gain.mean(), "low": low, "high": high}


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
