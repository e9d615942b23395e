"""The comparison of several runs as figures: what each got in each setting, and the paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dpbench.protocol import InputError
from dpbench.report.compare.differences import Difference, Paired, paired
from dpbench.report.compare.lineup import Alone, Setting, line_up
from dpbench.report.compare.runs import Run
from dpbench.report.compare.settings import LABELS, of_attacks, really_run
from dpbench.report.evidence import originals, over_floor
from dpbench.report.summary import pooled
from dpbench.store.columns import columns


@dataclass(frozen=True)
class Line:
    """One run in one setting.

    Attributes:
        run: its letter.
        rows: per-image results.
        figures: `images`, `photographs`, `batches`, `psnr` and `lpips` (medians), `psnr_max`, `lpips_min`,
            `psnr_over_floor` (median, dB), `right` and `asked` (photographs identified in a gallery, or the
            informed attacker's right answers); missing ones are NaN.
        paired: what it has in common with the first run; None for the first run itself.
    """

    run: str
    rows: pd.DataFrame
    figures: dict[str, float]
    paired: Paired | None = None


@dataclass(frozen=True)
class Compared:
    """One setting of several runs.

    Attributes:
        lines: one for each run that has it, the first run's first.
        differs: columns in which the attacks differ, each with its values.
    """

    lines: tuple[Line, ...]
    differs: tuple[tuple[str, str], ...]

    @property
    def head(self) -> pd.Series:
        """A row of the first run: all of its rows agree in what was really run."""
        return self.lines[0].rows.iloc[0]


@dataclass(frozen=True)
class Comparison:
    """Several runs compared.

    Attributes:
        runs: the first one is what the others are compared with.
        settings: those that the first run shares with another.
        alone: those of one run only, with the figures of it.
    """

    runs: tuple[Run, ...]
    settings: tuple[Compared, ...]
    alone: tuple[tuple[Alone, Line], ...]

    def differences(self) -> list[tuple[Compared, Line, Difference]]:
        """Every paired difference."""
        return [
            (setting, line, each)
            for setting in self.settings
            for line in setting.lines
            if line.paired
            for each in line.paired.differences.values()
        ]


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare runs with the first of them.

    Raises:
        InputError: the first run shares no setting with any other.
    """
    settings, alone = line_up(runs)
    if not settings:
        nearest = min(
            (each for each in alone if each.run == runs[0].letter), key=lambda each: each.distance
        ).nearest
        others = " and ".join(run.path for run in runs[1:])
        raise InputError(
            f"{runs[0].path} has no setting in common with {others}, so there is nothing to compare; the "
            f"most similar ones differ in: {nearest}."
        )
    by_letter = {run.letter: run for run in runs}
    found = sorted(
        (_compared(by_letter, setting) for setting in settings), key=lambda each: _order(each.head)
    )
    rest = sorted(alone, key=lambda each: (each.run, *_order(each.rows.iloc[0])))
    lines = [(each, Line(each.run, each.rows, figures(each.rows))) for each in rest]
    return Comparison(tuple(runs), tuple(found), tuple(lines))


def _compared(runs: dict[str, Run], setting: Setting) -> Compared:
    (first, ours), *others = setting.rows.items()
    lines = [Line(first, ours, figures(ours))]
    for letter, rows in others:
        together = paired(runs[first], runs[letter], ours, rows)
        lines.append(Line(letter, rows, figures(rows), together))
    return Compared(tuple(lines), setting.differs)


_FIGURES = ["data", "original_index", "copy_of", "batch_size", "label_draw", "batch_seed", "image"]
_FIGURES += ["success", "trials", "identified", "psnr", "psnr_floor", "lpips"]


def figures(rows: pd.DataFrame) -> dict[str, float]:
    """What one run got in one setting; see `Line.figures`."""
    rows = rows[_FIGURES]  # of a hundred columns, which take time to copy
    photograph = originals(rows)
    informed = rows["success"].notna().any()
    right, asked = pooled(rows if informed else rows[~photograph.duplicated()])
    return {
        "images": len(rows),
        "photographs": photograph.nunique(),
        "batches": rows["batch_seed"].nunique(),
        "psnr": rows["psnr"].median(),
        "psnr_max": rows["psnr"].max(),
        "lpips": rows["lpips"].median(),
        "lpips_min": rows["lpips"].min(),
        "psnr_over_floor": over_floor(rows["psnr"], rows["psnr_floor"]).median(),
        "right": right,
        "asked": asked,
    }


def _order(row: pd.Series) -> tuple[Any, ...]:
    """Batches as in other tables; in each the undefended setting first, then much noise before little."""
    defended = row["defense"] != "none"
    sigma = row.get("noise_multiplier")
    noise = float("inf") if pd.isna(sigma) else -sigma
    return (
        row["batch_size"],
        str(row["threat_model"]),
        defended,
        str(row["defense"]),
        noise,
        str(row["attack"]),
    )


def merged(comparison: Comparison) -> pd.DataFrame:
    """Everything as one table: a row for each setting and run.

    Returns:
        `setting` (a number; empty where the run has it alone), `run` (letter), `folder`, `versions`, the
        columns of the setting and its budgets, the figures, and for each measure `*_difference`, `*_low`,
        `*_high` with `pairs`, `groups` and `mcnemar_p`; `alone` says what the nearest setting has otherwise.
    """
    path = {run.letter: run for run in comparison.runs}
    rows = []
    for number, setting in enumerate(comparison.settings, start=1):
        rows += [_row(path[line.run], line) | {"setting": number} for line in setting.lines]
    rows += [_row(path[line.run], line) | {"alone": alone.nearest} for alone, line in comparison.alone]
    table = pd.DataFrame(rows)
    names = [name for name in (*really_run(), *LABELS, *of_attacks()) if table[name].notna().any()]
    known = ["setting", "run", "folder", "versions", *names]
    return table[[*known, *(n for n in table if n not in known and n not in columns())]].astype(
        {"setting": "Int64"}
    )


def _row(run: Run, line: Line) -> dict[str, Any]:
    found = {"setting": None, "run": run.letter, "folder": run.path, "versions": " ".join(run.versions)}
    names = (*really_run(), *LABELS, *of_attacks())
    found |= {name: line.rows[name].iloc[0] for name in names if name in line.rows}
    found |= {f"median_{n}" if n in ("psnr", "lpips") else n: value for n, value in line.figures.items()}
    if line.paired is not None:
        found |= {"pairs": line.paired.pairs, "groups": line.paired.groups}
        for name, each in line.paired.differences.items():
            found |= {f"{name}_difference": each.value, f"{name}_low": each.low, f"{name}_high": each.high}
            found |= {"mcnemar_p": each.p} if name == "identified" else {}
    return found
