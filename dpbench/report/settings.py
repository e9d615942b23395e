"""Results by setting: one batch size against one victim, and what the attacks on it reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from dpbench.report.evidence import NEEDED, Evidence, evidence
from dpbench.report.naming import Naming
from dpbench.report.rivals import rivals
from dpbench.report.rows import is_defended, is_floor, is_informed, is_of_attack, only
from dpbench.report.summary import grouped
from dpbench.report.verdict import Judged, worst
from dpbench.system.once import once

_SAID = ("model", "norm", "victim", "threat_model", "trainable")
"""Settings of the victim that its name has words of its own for."""
_CHANGED = {
    "malicious-linear": " with a layer that the server planted",
    "fishing": " with a last layer that the server changed",
    "loki": " with a layer and kernels that the server planted",
}
"""What a malicious server did to the victim."""


@dataclass(frozen=True)
class Setting:
    """One batch size against one victim.

    Attributes:
        lines: its attacks' rows of the summary.
        found: the evidence of each, by index.
        naming: of the whole table.
    """

    lines: pd.DataFrame
    found: Mapping[int, Evidence]
    naming: Naming

    @property
    def batch_size(self) -> int:
        """Images in the attacked batch."""
        return self.lines.iloc[0]["batch_size"]

    @property
    def wanting(self) -> str:
        """What there are too few of where there is no verdict: each image or batch is one observation."""
        return "images" if self.batch_size == 1 else "batches"

    @cached_property
    def measured(self) -> pd.DataFrame:
        """The rows with a result."""
        return only(self.lines, self.lines["images"] > 0)

    @cached_property
    def bare(self) -> pd.DataFrame:
        """Of these, the undefended ones."""
        return only(self.measured, ~is_defended(self.measured))

    @cached_property
    def defended(self) -> pd.DataFrame:
        """Of these, the defended ones."""
        return only(self.measured, is_defended(self.measured))

    @cached_property
    def lost(self) -> pd.DataFrame:
        """The rows without a result."""
        return self.lines[self.lines["images"] == 0]

    def worst(self, lines: pd.DataFrame) -> Judged:
        """The attack among these that gets furthest."""
        return worst([(self._each[index], self.found[index]) for index in lines.index])

    @cached_property
    def _each(self) -> dict[int, pd.Series]:
        """Each row by itself, by index."""
        return dict(self.lines.iterrows())

    @once
    def reached(self) -> dict[str, Judged]:
        """Each defence with the attack that gets furthest under it, in the order of the summary."""
        by_defence = self.defended.groupby(self.labels(self.defended), sort=False)
        return {label: self.worst(rows) for label, rows in by_defence}

    def labels(self, lines: pd.DataFrame) -> pd.Series:
        """The defence's name in each row."""
        return pd.Series(self.naming.defences(lines), index=lines.index)


@dataclass(frozen=True)
class Results:
    """Every setting of a table, the informed attacker apart.

    Attributes:
        naming: of the whole table.
        attacked: the summary without floors.
        lines: of these the attacks that rebuild images: all but the informed attacker's.
        found: the evidence of each that has a result, by index.
    """

    naming: Naming
    attacked: pd.DataFrame
    lines: pd.DataFrame
    found: Mapping[int, Evidence]

    @staticmethod
    def of(table: pd.DataFrame) -> Results:
        """From per-image results with all columns and a fresh index."""
        return _results(table)

    @cached_property
    def measured(self) -> pd.DataFrame:
        """The lines with a result."""
        return only(self.lines, self.lines["images"] > 0)

    @once
    def victims(self) -> list[tuple[str, list[Setting]]]:
        """The name of each victim, and its settings, the smallest batch first."""
        others = [name for name in self.naming.headings if name not in _SAID]
        found = []
        for _, part in self.lines.groupby([*_SAID, *others], dropna=False, sort=False):
            batches = [rows for _, rows in part.groupby("batch_size", dropna=False)]
            settings = [Setting(rows, self.found, self.naming) for rows in batches]
            found.append((_victim(part.iloc[0], self.naming), settings))
        return found


@once
def _results(table: pd.DataFrame) -> Results:
    lines, group = grouped(table)
    attacked = lines[~is_floor(lines)]
    lines = attacked[~is_informed(attacked)]
    lines = lines.assign(threat_model=lambda rows: rows["threat_model"].fillna("honest"))
    lines = lines.sort_values("threat_model", kind="stable")
    well, floors = table.loc[is_of_attack(table), [*NEEDED]], rivals(table)
    measured = lines.index[lines["images"] > 0]
    found = {i: evidence(rows, floors) for i, rows in well.groupby(group[well.index]) if i in measured}
    return Results(Naming(table), attacked, lines, found)


def _victim(row: pd.Series, naming: Naming) -> str:
    norm = row["norm"]
    name = " ".join(row[part] for part in ("victim", "model") if pd.notna(row[part]))
    name += "" if pd.isna(norm) or norm == "none" else f" ({norm})"
    name += _in_part(row["trainable"]) if pd.notna(row["trainable"]) else ""
    name += _CHANGED.get(row["threat_model"], "")
    return ", ".join([name, *naming.heading(row, leave_out=_SAID)])


def _in_part(trainable: str) -> str:
    parts = ["the last layer" if part == "head" else part for part in trainable.split("+")]
    return f" of which {' and '.join(parts)} alone {'is' if len(parts) == 1 else 'are'} trained"
