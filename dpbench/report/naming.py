"""What attacks, defences, settings and numbers are called in tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dpbench.privacy.rounding import up
from dpbench.report.rows import is_defended, is_floor, only
from dpbench.store.columns import columns, conditions
from dpbench.system.once import once

EMPTY = "—"
ROUNDED_UP = (
    *("eps", "eps_release", "eps_replace", "eps_client", "noise_multiplier", "delta"),
    *("rero_release", "success_bound", "membership_bound"),
)
"""Columns of what a guarantee promises at most, and of the noise that it takes at least."""
_BUDGETS = ("eps", "eps_release", "noise_multiplier")
"""What `Naming.defence` says always, one of them."""
_BATCH_ALONE = ("label_draw", "data")
"""The settings of a batch that a floor without an attack depends on: the mean image knows no victim."""

ACCOUNTANTS = {
    "pld": "by PLD accounting",
    "prv": "by PRV accounting",
    "rdp": "by Rényi accounting",
    "analytic": "by the exact formula",
}
"""How an epsilon was computed, in words."""
_PARTS = ("attack", "floor", "threat_model", "defense", "eps", "eps_release", "accountant")
"""What parts the rows among which settings may differ."""
_PRESET = "preset"
"""The setting of an attack that decides others of its settings."""


class Naming:
    """The names in one table, in which nothing is said that is the same in all rows concerned.

    A setting of an attack is named where it differs among the rows of that attack, a setting of a defence
    where it differs among the rows of that defence. Which columns those are follows from their roles.

    Args:
        table: results or their summary, columns of `dpbench.store.columns`.

    Attributes:
        headings: the columns that split the table into sections, beside the batch size.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        found = _differing(table)
        self._attack, self._defence, self._several = found.attack, found.defence, found.several
        self.headings = [*found.headings]

    def attack(self, row: Mapping[str, Any], *, with_settings: bool = True) -> str:
        """Name a row's attack; a floor says whose it is, a defended row if the attack was not adaptive.

        Args:
            row: of the results or the summary.
            with_settings: whether the settings that differ are part of the name.
        """
        name, said = str(row["attack"]), []
        floor = _given(row, "floor")
        if floor and _given(row, "floor_of") and self._several:
            said = [str(row["floor_of"])]
        said += self.attack_settings(row) if with_settings else []
        defended = _given(row, "defense") and row["defense"] != "none"
        if defended and not floor and _given(row, "adaptive") and not row["adaptive"]:
            said.append("not adaptive")
        return f"{name} ({', '.join(said)})" if said else name

    def attack_settings(self, row: Mapping[str, Any]) -> list[str]:
        """The settings of a row's attack that differ in the table; a floor of no attack has none."""
        if _given(row, "floor") and not _given(row, "floor_of"):
            return []
        attack = row["floor_of"] if _given(row, "floor_of") else row["attack"]
        return settings(row, self.of_attack(attack))

    def of_attack(self, attack: str) -> list[str]:
        """The settings in which the rows of this attack differ."""
        return self._attack.get(attack, [])

    def defence(self, row: Mapping[str, Any], *, eps: bool = True, leave_out: Collection[str] = ()) -> str:
        """Name a row's defence; a floor has none to name.

        Args:
            row: of the results or the summary.
            eps: whether the budget is part of the name: the training's, or else the release's, or sigma.
            leave_out: settings that are said elsewhere.
        """
        if _given(row, "floor"):
            return EMPTY
        if not _given(row, "defense") or row["defense"] == "none":
            return "no defence"
        words = [str(row["defense"])]
        budget = next((name for name in _BUDGETS if _given(row, name)), None)
        if eps and budget is not None:
            symbol = columns()["eps" if budget == "eps_release" else budget].symbol
            words.append(f"{symbol}={up(row[budget], 3 if budget == 'noise_multiplier' else 4)}")
        words += settings(row, [n for n in self._defence.get(row["defense"], ()) if n not in leave_out])
        if budget == "noise_multiplier":  # there would be an epsilon, had nothing else left the client
            words.append("without a guarantee")
        return " ".join(words)

    def defences(self, rows: pd.DataFrame) -> list[str]:
        """`defence` of each row."""
        asked = ("floor", "defense", *_BUDGETS, *(name for each in self._defence.values() for name in each))
        told = rows[list(dict.fromkeys(asked))]  # a summary has ten times as many columns
        return [self.defence(row) for row in told.to_dict("records")]

    def heading(self, row: Mapping[str, Any], leave_out: Iterable[str] = ()) -> list[str]:
        """The settings that name the section of a row, without its batch size."""
        alone = _given(row, "floor") and not _given(row, "floor_of")
        names = [name for name in self.headings if name not in leave_out]
        return settings(row, [name for name in names if not alone or name in _BATCH_ALONE])

    def told_by_sections(self, *more: str) -> list[str]:
        """The columns that `sections` reads, and `more`: a table of few columns is split much faster."""
        read = ("batch_size", *self.headings, "floor", "floor_of", "threat_model")
        return list(dict.fromkeys((*read, *more)))

    def sections(self, table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
        """Split by batch size and `headings`; floors stand in each section that they apply to.

        Args:
            table: rows of the table that this was made from, at least the columns `told_by_sections`.

        Returns:
            (heading, rows), by batch size and settings; nothing where there is no attack.
        """
        names = self.headings
        floors = is_floor(table)
        heads = table.loc[~floors, self.told_by_sections()].drop_duplicates(["batch_size", *names])
        found = []
        for head in heads.sort_values(["batch_size", *names]).to_dict("records"):
            inside = same(table["batch_size"], head["batch_size"])
            for name in names:
                inside &= same(table[name], head[name]) | (floors & table[name].isna())
            if str(head["threat_model"]) == "informed":  # it picks a candidate: floors are of pictures
                inside &= ~floors
            title = ", ".join([f"Batch of {head['batch_size']}", *self.heading(head)])
            found.append((title, only(table, inside)))
        return found


def settings(row: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Name settings with their values; those that are empty in `row` are left out.

    Example:
        >>> settings({"max_grad_norm": 0.5, "labels": "known"}, ["max_grad_norm", "labels", "delta"])
        ['C=0.5', 'labels known']
    """
    return [_setting(name, row[name]) for name in names if _given(row, name)]


def _setting(name: str, value: Any) -> str:
    if name == "accountant":
        return ACCOUNTANTS.get(value, f"by {value} accounting")
    column = columns()[name]
    symbol = (column.symbol or name).replace("_", " ")
    if column.dtype == "boolean":
        return symbol if value else f"no {symbol}"
    if column.dtype == "string":
        return f"{symbol} {value}"
    text = up(value, 6) if name in ROUNDED_UP else number(value, "g")
    return f"{symbol}={text}{column.unit and ' '}{column.unit}"


def number(value: Any, spec: str) -> str:
    """Format a number; a missing one is a dash.

    Example:
        >>> number(None, ".1f"), number(3.14, ".1f"), number(float("-inf"), "+.1f")
        ('—', '3.1', '-∞')
    """
    if value is None or pd.isna(value):
        return EMPTY
    if not math.isinf(value):
        return format(value, spec)
    return ("-" if value < 0 else "+" if spec.startswith("+") else "") + "∞"


def same(column: pd.Series, value: Any) -> pd.Series:
    """Which entries equal `value`, empty ones being equal to each other."""
    return column.isna() if pd.isna(value) else (column == value).fillna(False).astype(bool)


def settings_of(role: str, *, leave_out: tuple[str, ...]) -> tuple[str, ...]:
    """The columns of a role that names may say."""
    known = columns()
    return tuple(name for name in conditions(role) if known[name].symbol and name not in leave_out)


@dataclass(frozen=True)
class _Differing:
    """What differs in a table: by attack and by defence their settings, and several attacks or not."""

    attack: dict[str, list[str]]
    defence: dict[str, list[str]]
    several: bool
    headings: tuple[str, ...]


@once
def _differing(table: pd.DataFrame) -> _Differing:
    own = settings_of("attack", leave_out=("threat_model", "adaptive"))  # both are said in other ways
    protection = settings_of("defence", leave_out=_BUDGETS)
    scene = settings_of("batch", leave_out=("batch_size",))
    # what is the same in all rows differs in none of their parts
    names = {name for name in (*own, *protection, *scene) if table[name].nunique(dropna=False) > 1}
    own, protection, scene = (tuple(n for n in each if n in names) for each in (own, protection, scene))
    table = table[list(dict.fromkeys((*_PARTS, *own, *protection, *scene)))]
    attacked = table[~is_floor(table)]
    attack = _beside_presets(
        attacked, _varying(attacked, own, attacked["attack"], attacked["defense"].fillna("none"))
    )
    defended = table[is_defended(table)]
    # without a guarantee delta is empty, too: that is no other delta
    defence = _varying(defended, protection, defended["defense"], defended["eps_release"].isna())
    if not _several_accountants(defended):
        defence = {name: [n for n in names if n != "accountant"] for name, names in defence.items()}
    headings = [name for name in scene if attacked[name].nunique(dropna=False) > 1]
    if attacked["threat_model"].nunique() > 1:
        headings.append("threat_model")
    return _Differing(attack, defence, attacked["attack"].nunique() > 1, tuple(headings))


def _varying(
    table: pd.DataFrame, names: tuple[str, ...], part: pd.Series, beside: pd.Series
) -> dict[str, list[str]]:
    """Which of the columns `names` differ within each group of `part`.

    An empty value differs from others only between rows that agree in `beside`: a setting that plays no role
    without a defence does not vary because of that.
    """
    names = tuple(name for name in names if table[name].nunique(dropna=False) > 1)
    if not names:
        return {}
    keys = [part.rename("part"), beside.rename("beside")]
    within = table[list(names)].groupby(keys[0]).nunique() > 1
    exact = (table[list(names)].groupby(keys).nunique(dropna=False) > 1).groupby(level=0).any()
    varies = within | exact
    return {group: [name for name in names if varies.at[group, name]] for group in varies.index}


def _several_accountants(defended: pd.DataFrame) -> bool:
    """Whether one budget was computed in several ways; else a budget tells how by itself."""
    budgets = ["defense", "eps" if defended["eps"].notna().any() else "eps_release"]
    return bool((defended.groupby(budgets)["accountant"].nunique() > 1).any())


def _beside_presets(attacked: pd.DataFrame, varying: dict[str, list[str]]) -> dict[str, list[str]]:
    """`varying` without what a preset decides: where presets are told apart, that is said already."""
    found = {}
    for attack, names in varying.items():
        rows = attacked[attacked["attack"] == attack]
        if _PRESET in names:
            within = _varying(
                rows, tuple(names), rows[_PRESET].fillna(""), rows["defense"].fillna("none")
            ).values()
            names = [name for name in names if name == _PRESET or any(name in each for each in within)]
        found[attack] = names
    return found


def _given(row: Mapping[str, Any], column: str) -> bool:
    return column in row and row[column] is not None and not pd.isna(row[column])
