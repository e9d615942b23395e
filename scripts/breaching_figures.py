"""Figures of `benchmarks.quality`: what dpbench and breaching made of the same releases."""

from __future__ import annotations

from typing import Any

import pandas as pd
from stored_results import HOME

from benchmarks.quality import SETTING, compared

_OURS = ("inverting-gradients", "inverting-gradients:paper")
_THEIRS = ("breaching:invertinggradients", "breaching:modern")


def quality() -> list[dict[str, Any]]:
    """Each setting: what all four attacks reached, and the gain over breaching's better one by mean PSNR."""
    found = []
    for file in ("convnet", "resnet20"):
        table = pd.DataFrame(compared(pd.read_csv(HOME / "quality" / f"{file}.csv")))
        for setting, rows in table.groupby(list(SETTING), sort=False):
            of = rows.set_index("attack")
            best = of.loc[of.loc[list(_THEIRS), "PSNR"].idxmax()]
            row = dict(zip(SETTING, setting, strict=True)) | {"images": int(best["images"])}
            row |= {"attacks": [of.loc[name, ["PSNR", "LPIPS"]].tolist() for name in (*_OURS, *_THEIRS)]}
            found.append(row | {name: best[name] for name in ("gain", "low", "high", "better")})
    return found
