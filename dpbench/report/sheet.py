"""Results as a sheet of text cells, before it is known where they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from dpbench.report.budgets import budgets
from dpbench.report.fields import SHORT, Field, fields, for_papers
from dpbench.report.naming import Naming
from dpbench.report.notes import details, notes
from dpbench.report.rows import is_floor, is_informed
from dpbench.report.summary import summary
from dpbench.store import schema
from dpbench.system.once import once


@dataclass(frozen=True)
class Section:
    """The rows of one batch size and of other conditions that vary.

    Attributes:
        title: the batch size and these conditions.
        header: one title per column, those of attack and defence first.
        rows: as many texts each.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Sheet:
    """A table of finished text.

    Attributes:
        budgets: which noise each budget comes to: what stands above the table.
        sections: those of the informed attacker, who rebuilds no image, have other columns than all others.
        notes: what holds for the whole sheet.
        details: likewise, where there is room.
    """

    budgets: tuple[str, ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...]
    details: tuple[str, ...]


def sheets(table: pd.DataFrame, columns: str | Sequence[str] = SHORT, *, paper: bool = False) -> list[Sheet]:
    """Lay out results, one sheet per accountant, so that no two budgets in a sheet were computed differently.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        columns: what is shown beside the names, as of `dpbench.report.fields.fields`.
        paper: no more columns than a page of paper has room for.
    """
    chosen = columns if isinstance(columns, str) else tuple(columns)
    return list(_sheets(schema.conform(table), chosen, paper))


@once
def _sheets(table: pd.DataFrame, columns: str | tuple[str, ...], paper: bool) -> tuple[Sheet, ...]:
    accountants = list(table["accountant"].dropna().unique()) or [None]
    if len(accountants) == 1:  # the table itself, whose summary others need, too
        return (_sheet(table, accountants[0], columns, paper),)
    return tuple(
        _sheet(
            table[table["accountant"].isna() | (table["accountant"] == accountant).fillna(False)],
            accountant,
            columns,
            paper,
        )
        for accountant in accountants
    )


def _sheet(table: pd.DataFrame, accountant: str | None, columns: str | Sequence[str], paper: bool) -> Sheet:
    naming = Naming(table)
    lines = summary(table)
    attacked = lines[~is_floor(lines)]
    lines["label_accuracy"] = lines["label_accuracy"].where(lines["labels"] != "known")  # no achievement
    parts = naming.sections(lines)
    kinds = [bool(is_informed(part).any()) for _, part in parts]
    found = {
        kind: _fields(
            [part for (_, part), each in zip(parts, kinds, strict=True) if each == kind], columns, paper
        )
        for kind in kinds
    }
    shown = {field.name for each in found.values() for field in each}
    return Sheet(
        budgets=tuple(budgets(attacked)),
        sections=tuple(
            _section(title, part, naming, found[kind])
            for (title, part), kind in zip(parts, kinds, strict=True)
        ),
        notes=tuple(notes(table, attacked, accountant, shown)),
        details=tuple(details(attacked)),
    )


def _fields(parts: Sequence[pd.DataFrame], columns: str | Sequence[str], paper: bool) -> list[Field]:
    found = fields(pd.concat(parts), columns)
    return for_papers(found) if paper else found


def _section(title: str, part: pd.DataFrame, naming: Naming, found: Sequence[Field]) -> Section:
    floors = is_floor(part)
    texts = [
        (naming.attack(row), naming.defence(row), *(field.text(row) for field in found))
        for row in part.to_dict("records")
    ]
    # the mean image, say, is measured again for each setting of an attack that it does not depend on
    again = pd.Series(texts, index=part.index, dtype=object).duplicated() & floors
    rows = tuple(text for text, known in zip(texts, again, strict=True) if not known)
    return Section(title, ("Attack", "Defence", *(field.title for field in found)), rows)
