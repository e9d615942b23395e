"""Figures of the suites about GradInversion: medians, beside those of the same search fed noise."""

from __future__ import annotations

from typing import Any

import pandas as pd
from stored_results import results, share


def _medians(rows: pd.DataFrame) -> dict[str, float]:
    return {"psnr": rows["psnr"].median(), "lpips": rows["lpips"].median(), "iip": rows["iip"].mean()}


def _beside_noise(attacked: pd.DataFrame, floors: pd.DataFrame) -> dict[str, Any]:
    fed_noise = floors[floors["floor"] == "noise-gradient"]
    return _medians(attacked) | {"fed_noise": _medians(fed_noise) if len(fed_noise) else None}


def _each(rows: pd.DataFrame, names: list[str]) -> dict[Any, dict[str, Any]]:
    """For every value of these columns the attack and the same search fed noise."""
    rows = rows[rows["floor"].isna() | rows["floor_of"].notna()]
    rows = rows.assign(attack=rows["floor_of"].fillna(rows["attack"]))
    key = names if len(names) > 1 else names[0]
    return {
        name: _beside_noise(found[found["floor"].isna()], found[found["floor"].notna()])
        for name, found in rows.groupby(key)
    }


def methods() -> dict[str, Any]:
    """Suite `gradinversion-table`: the methods on one batch."""
    rows = results("gradinversion-table")
    constant = _medians(rows[rows["floor"] == "constant-image"])
    return {"of": _each(rows, ["attack"]), "constant": constant}


def terms() -> dict[Any, Any]:
    """Suite `gradinversion-ablation`: the terms with exact and with running statistics."""
    return _each(results("gradinversion-ablation"), ["terms", "bn_stats"])


def statistics() -> dict[str, Any]:
    """Suite `bn-knowledge`: what statistics and labels are worth."""
    return {"of": _each(results("bn-knowledge"), ["bn_stats", "labels"])}


def confidence() -> dict[Any, Any]:
    """Suite `confidence`: the victim's last layer scaled, undefended and clipped."""
    rows = results("confidence")
    found = {}
    for (victim, scale), mine in rows.groupby(["victim", "logit_scale"]):
        attacked = mine[mine["floor"].isna()]
        found[victim, scale] = _each(mine, ["defense"]) | {
            "least_loss": attacked["image_loss"].min(),
            "most_loss": attacked["image_loss"].max(),
            "share": attacked["image_grad_share"].max(),
        }
    return found


def batches_of_four() -> dict[str, Any]:
    """Five batches of four images against the early and the converged ResNet-20, and two more searches."""
    of = {victim: _by_batch(results(f"gradinversion-{victim}")) for victim in ("early", "trained")}
    more_seeds = results("deepinversion")
    return {
        "of": of,
        "four_seeds": {v: _by_batch(rows)["deepinversion"] for v, rows in more_seeds.groupby("victim")},
        "paper": _by_batch(results("gradinversion-paper")),
    }


def _by_batch(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Of each attack and floor the batches' median LPIPS: their median, their range, and each."""
    fed_noise = (rows["floor"] == "noise-gradient").fillna(False)
    found = {}
    for name, mine in rows.groupby(rows["attack"].mask(fed_noise, rows["floor_of"] + ", fed noise")):
        medians = mine.groupby("batch_seed")["lpips"].median()
        found[name] = {
            "lpips": medians.median(),
            "least": medians.min(),
            "most": medians.max(),
            "batches": medians.to_list(),
            "iip": mine["iip"].mean(),
            "images": len(mine),
        }
    return found


def batch_sizes() -> dict[int, dict[str, Any]]:
    """Suite `batch-size`: GradInversion on batches of 1 to 32 images."""
    rows = pd.concat([results("batch-size"), results("batch-size-large")], ignore_index=True)
    return {
        size: _each(mine, ["attack"])["gradinversion"] | _gained(mine)
        for size, mine in rows.groupby("batch_size")
    }


def _gained(rows: pd.DataFrame) -> dict[str, Any]:
    """By how much the attack's mean LPIPS of a batch is below that of the same search fed noise."""
    mean = rows.groupby(["attack", "batch_seed"])["lpips"].mean()
    gain = mean["floor:noise-gradient"] - mean["gradinversion"]
    return {
        "images": int(rows["floor"].isna().sum()),
        "batches": len(gain),
        "lower": int((gain > 0).sum()),
        "gain": gain.mean(),
    }


def single_photographs() -> dict[str, Any]:
    """ResNet-50, one photograph of 64 pixels a batch: means, and how often the gradient helps."""
    rows = results("resnet50-64px")
    mean = rows.groupby("attack")[["psnr", "lpips"]].mean()
    each = rows.set_index(["attack", "batch_seed"])[["psnr", "lpips"]]
    gain = each.loc["gradinversion"] - each.loc["floor:noise-gradient"]
    return {
        "images": len(gain),
        "of": mean.to_dict("index"),
        "nearer": {"psnr": int((gain["psnr"] > 0).sum()), "lpips": int((gain["lpips"] < 0).sum())},
    }


def deep_search() -> dict[str, Any]:
    """The default search in ResNet-50 on the photographs of `single_photographs`: means, and the nearer."""
    rows, beside = results("resnet50-search"), results("resnet50-64px")
    each = rows.pivot(index="original_index", columns="attack", values="lpips")
    theirs = beside[beside["attack"] == "gradinversion"].set_index("original_index")[["psnr", "lpips"]]
    ours = each.pop("inverting-gradients")
    return {
        "images": len(ours),
        "gallery": int(rows["gallery_size"].max()),
        "of": {
            attack: {
                "psnr": found["psnr"].mean(),
                "lpips": found["lpips"].mean(),
                "iip": share(found["iip"].sum(), len(found)),
            }
            for attack, found in rows.groupby("attack")
        },
        "nearer": int((ours < each.min(axis=1)).sum()),
        "gradinversion": theirs.mean().to_dict(),
        "nearer_than_gradinversion": int((ours < theirs["lpips"][ours.index]).sum()),
    }
