"""What would change the verdict: what was not tried, and whom the budget does not speak of."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from dpbench.report.evidence import originals
from dpbench.report.page.beside import from_json
from dpbench.report.rows import is_defended, is_floor, is_of_attack
from dpbench.report.units import protected, units
from dpbench.store import Store
from dpbench.store.columns import columns
from dpbench.system.words import counted, joined


@dataclass(frozen=True)
class Change:
    """One of them: what, and why it matters here."""

    what: str
    why: str


def changes(table: pd.DataFrame, store: Store) -> list[Change]:
    """All that apply to these results.

    Args:
        table: per-image results with all columns; some ended well.
        store: the run's folder.
    """
    tried = table[~is_floor(table)]  # with what failed: the section on what is missing tells of that
    rows = tried[is_of_attack(tried)]
    attacks, private = list(rows["attack"].dropna().unique()), rows[rows["eps_release"].notna()]
    found = [
        Change(
            "A stronger attack",
            f"Tried: {joined(attacks)}. Nothing is known of others"
            + (", and only the bound holds for all of them." if len(private) else "."),
        )
    ]
    if unaware := _unaware(tried):
        found.append(
            Change(
                "An attack that knows the defence", f"Not tried against {joined(unaware)} (--adaptive yes)."
            )
        )
    known = set(tried["threat_model"].fillna("honest"))
    if untried := [name for name in columns()["threat_model"].choices if name not in known]:
        found.append(Change("Another attacker", f"Not tried: {joined(untried)} (--threat-model)."))
    found += [
        Change("Another victim or other images", f"These results are for {_scene(rows)}."),
        Change("More images", f"{_images(rows)}. Intervals say how much that leaves open."),
    ]
    if len(private):
        found += [
            Change("Another unit", f"The budget is for {protected(private)}. {_person(store)}".rstrip())
            if "record" in units(private)
            else Change("Another unit", f"The budget is for {protected(private)}, and not for one of these."),
            Change(
                "Somebody else who adds the noise",
                "Where it is added after the gradients were gathered, whoever gathers them sees them without "
                "noise, clipped at most (--defense clip).",
            ),
        ]
    return found


def _unaware(rows: pd.DataFrame) -> list[str]:
    """Defences that no attack which knows them was tried against."""
    tried = rows.loc[is_defended(rows), "adaptive"].fillna(True).astype(bool)
    known = tried.groupby(rows.loc[tried.index, "defense"], sort=False).any()
    return [str(defence) for defence in known.index[~known]]


def _scene(rows: pd.DataFrame) -> str:
    victims = rows[["victim", "model"]].drop_duplicates().fillna("").itertuples(index=False, name=None)
    words = [" ".join(filter(None, (f"the {victim}" if victim else "", model))) for victim, model in victims]
    sizes = joined([str(size) for size in sorted(rows["batch_size"].dropna().unique())])
    data = joined(list(rows["data"].dropna().unique()))
    return f"{joined(words)}, images of the data set {data}, and attacked batches of {sizes}"


def _images(rows: pd.DataFrame) -> str:
    images = originals(rows).nunique()
    verb = "is" if len(rows) == 1 else "are"
    return f"There {verb} {counted(len(rows), 'result')} for {counted(images, 'image')}"


def _person(store: Store) -> str:
    """What a person with several images spends, where it was computed beside these results."""
    read = from_json(store.path / "decide.json")
    choices = read.get("choices") if isinstance(read, dict) else None
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    images = first.get("images_per_user")
    if isinstance(images, int) and images > 1:
        return f"A person with {images} of them spends more: the table of epsilons says how much."
    return "A person with several of them spends more (dpbench decide --images-per-user)."
