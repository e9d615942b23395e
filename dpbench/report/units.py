"""What a guarantee and its epsilon are about, and who adds its noise, in words."""

from __future__ import annotations

import pandas as pd

ONE = {"record": "one image", "user": "one client"}
"""Values of the column `unit`; older results have none and are about images."""
_WHO = {
    "": "The client adds the noise, before anybody sees the gradient.",
    "distributed": "Each client adds its share of the noise, before anybody sees the sum.",
    "local": "Each client adds noise for itself, before anybody sees the sum.",
    "central": "The server adds the noise to the sum, which it has seen without.",
}


def units(rows: pd.DataFrame) -> list[str]:
    """Keys of `ONE` in rows that have a guarantee, in that order.

    Example:
        >>> units(pd.DataFrame({"eps_release": [None, 3.0, 1.0], "unit": ["record", "user", None]}))
        ['record', 'user']
    """
    there = set(_filled(rows, "unit", "record"))
    return [unit for unit in ONE if unit in there]


def protected(rows: pd.DataFrame) -> str:
    """What the budgets of `rows` are for.

    Example:
        >>> protected(pd.DataFrame({"eps_release": [3.0], "unit": ["user"]}))
        'one client with all its images'
    """
    return ", or ".join(ONE[unit] + " with all its images" * (unit == "user") for unit in units(rows))


def scopes(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows that have a guarantee, by what the epsilon of their names is for.

    Example:
        >>> list(scopes(pd.DataFrame({"eps_release": [3.9, 1.0], "eps": [1.0, None]})))
        ['the whole training', 'the attacked gradient']
    """
    of_training = rows["eps"].notna()
    released = rows["eps_release"].notna() & ~of_training
    found = {"the whole training": rows[of_training], "the attacked gradient": rows[released]}
    return {scope: part for scope, part in found.items() if len(part)}


def who_adds_noise(rows: pd.DataFrame) -> str:
    """A sentence for each of the ways in which rows that have a guarantee got their noise.

    Example:
        >>> who_adds_noise(pd.DataFrame({"eps_release": [3.0], "noise": ["central"]}))
        'The server adds the noise to the sum, which it has seen without.'
    """
    there = set(_filled(rows, "noise", ""))
    return " ".join(said for name, said in _WHO.items() if name in there)


def _filled(rows: pd.DataFrame, column: str, empty: str) -> pd.Series:
    private = rows[rows["eps_release"].notna()]
    if column not in private:
        return pd.Series([empty] * len(private), dtype=object)
    return private[column].astype(object).where(private[column].notna(), empty)
