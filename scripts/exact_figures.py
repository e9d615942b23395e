"""Figures of the suites about exact attacks on whole batches."""

from __future__ import annotations

from typing import Any

from stored_results import results, share

from dpbench.report.naming import Naming
from dpbench.report.rows import ordered


def spear() -> dict[tuple[str, str, int], dict[str, Any]]:
    """Suite `exact-batches`, by victim, defence and batch size."""
    rows = results("exact-batches")
    rows = rows[rows["floor"].isna()]
    return {
        (victim, defence, int(size)): {
            "batches": found["batch_seed"].nunique(),
            "certified": share(found["certified"].sum(), len(found)),
            "labels": found["label_correct"].mean(),
            "median": found["psnr"].median(),
            "worst": found["psnr"].min(),
            "worst_certified": found.loc[found["certified"] == 1, "psnr"].min(),
            "seconds": found["seconds"].median(),
            "most_seconds": found["seconds"].max(),
        }
        for (victim, defence, size), found in rows.groupby(["victim", "defense", "batch_size"])
    }


def convolutions() -> dict[tuple[str, str], dict[str, Any]]:
    """Suite `exact-convnet`, by victim and defence."""
    rows = results("exact-convnet")
    means = rows[rows["floor"] == "mean-image"].groupby("victim")["psnr"].mean()
    rows = rows[rows["floor"].isna()]
    return {
        (victim, defence): {
            "images": len(found),
            "batches": found["batch_seed"].nunique(),
            "labels": found["label_correct"].mean(),
            "median": found["psnr"].median(),
            "worst": found["psnr"].min(),
            "best": found["psnr"].max(),
            "above": share((found["psnr"] > 30).sum(), len(found)),
            "certified": int(found["certified"].sum()),
            "mean_image": means[victim],
            "seconds": found["seconds"].median(),
        }
        for (victim, defence), found in rows.groupby(["victim", "defense"])
    }


def transformer() -> dict[str, Any]:
    """Suite `exact-vit`, by victim and defence, and the default search on the first of its images."""
    rows = results("exact-vit")
    rows = rows[rows["floor"].isna()].assign(certified=lambda t: t["certified"].astype(bool))
    searched = results("exact-vit-search")
    guess = searched[searched["floor"] == "mean-image"]["psnr"].median()
    searched = searched[searched["floor"].isna()]
    same = rows[rows["batch_seed"].isin(searched["batch_seed"])]
    same = same[(same["victim"] == "early") & (same["defense"] == "none")]
    return {
        "of": {
            (victim, defence): {
                "certified": share(found["certified"].sum(), len(found)),
                "above": share((found["psnr"] > 60).sum(), len(found)),
                "median": found["psnr"].median(),
                "worst": found["psnr"].min(),
                "seconds": found["seconds"].median(),
                "most_seconds": found["seconds"].max(),
            }
            for (victim, defence), found in rows.groupby(["victim", "defense"])
        },
        "search": {
            "images": len(searched),
            "median": searched["psnr"].median(),
            "best": searched["psnr"].max(),
            "mean_image": guess,
            "solved": same["psnr"].median(),
        },
    }


def behind() -> dict[str, dict[str, Any]]:
    """`exact-behind` and `exact-behind-batches`, by attack, victim, defence and strength."""
    found = {}
    for name in ("exact-behind", "exact-behind-batches"):
        rows = results(name)
        rows = ordered(rows[rows["floor"].isna()])
        naming = Naming(rows)
        rows = rows.assign(
            certified=rows["certified"].astype(bool),
            defended=[naming.defence(row) for row in rows.to_dict("records")],
        )
        for (attack, victim, defended), own in rows.groupby(["attack", "victim", "defended"], sort=False):
            found[f"`{attack}`, {victim}, {defended}"] = {
                "certified": share(own["certified"].sum(), len(own)),
                "above": share((own["psnr"] > 60).sum(), len(own)),
                "labels": share(own["label_correct"].sum(), len(own)),
                "median": own["psnr"].median(),
                "worst": own["psnr"].min(),
                "images": int(own["batch_size"].iloc[0]),
            }
    return found
