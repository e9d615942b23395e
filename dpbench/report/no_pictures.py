"""What is told of attacks that rebuild no image, or none from a gradient."""

from __future__ import annotations

import pandas as pd

from dpbench.report.evidence import originals
from dpbench.report.naming import number
from dpbench.report.rows import ended_well, is_floor, only_labels, reads_no_gradient
from dpbench.report.settings import Results, Setting
from dpbench.system.words import counted, per_cent, several


def of_no_picture(table: pd.DataFrame) -> list[str]:
    """What attacks on labels alone restored, and what those reached that read no gradient; none of either.

    Args:
        table: per-image results with all columns.

    Returns:
        Sentences, those on labels first.
    """
    attacked = ~is_floor(table)
    labels_alone, without_gradient = only_labels(table), reads_no_gradient(table)
    told = (table["labels"] == "known").fillna(False).astype(bool)
    restored, given = (table[attacked & labels_alone & each] for each in (~told, told))
    other = table[attacked & without_gradient & ~labels_alone]
    said = [_restored(restored)] if len(restored) else []
    for attack in given["attack"].unique():
        said.append(f"{attack} was told the labels (labels known), so it restored none.")
    return [*said, *_from_no_gradient(other)]


def _restored(table: pd.DataFrame) -> str:
    """How many labels each attack restored, setting by setting; a defence's settings in order."""
    return "\n".join(
        f"Labels restored against the {victim}, {'; '.join(map(_labels, settings))}."
        for victim, settings in Results.of(table).victims()
    )


def _labels(of: Setting) -> str:
    said = []
    for attack, rows in of.measured.groupby(of.measured.apply(of.naming.attack, axis=1), sort=False):
        shares = [f"{per_cent(row.label_accuracy, 1)}% of {row.images}" for row in rows.itertuples()]
        if len(of.defended):
            shares = [f"{share} under {label}" for share, label in zip(shares, of.labels(rows), strict=True)]
        said.append(f"{several(shares)} by {attack}")
    return f"batch of {of.batch_size}: {', '.join(said) or 'no attack ended well'}"


def _from_no_gradient(rows: pd.DataFrame) -> list[str]:
    found = []
    for attack, its in rows.groupby("attack", sort=False):
        said, by = [], ["victim", "model", "batch_size"]
        for (victim, model, size), each in its[ended_well(its)].groupby(by, sort=False, dropna=False):
            against = " ".join(word for word in (victim, model) if not pd.isna(word))
            images = originals(each).nunique()
            medians = "medians " if images > 1 else ""
            medians += f"{number(each['psnr'].median(), '.1f')} dB PSNR"
            if each["lpips"].notna().any():
                medians += f", LPIPS {each['lpips'].median():.2f}"
            said.append(f"{against}, batch of {size}: {counted(images, 'image')}, {medians}")
        reached = f" ({'; '.join(said)})" if said else ""
        found.append(f"{attack} reads no gradient{reached}, so it says nothing of what a release gives away.")
    return found
