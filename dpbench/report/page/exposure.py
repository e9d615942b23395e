"""Which images and which strengths of a defence are shown as pictures: chosen by a rule, never by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dpbench.privacy.rounding import up
from dpbench.report.evidence import originals, over_floor
from dpbench.report.naming import Naming
from dpbench.report.rows import is_defended, is_floor, is_informed, is_of_attack, only_labels, ordered
from dpbench.store.columns import conditions

MOST_LEVELS = 12
"""Strengths of one defence that are shown: of more, these are spread evenly from the weakest to the
strongest."""
UNDEFENDED = "no defence"


@dataclass(frozen=True)
class Case:
    """One image under every strength.

    Attributes:
        title: `Most exposed`, `Median`, `Least exposed` or `The only image`.
        image: the row of the image that names it, one of `rows`.
        rows: for each strength the row of its result; None where there is none.
        floors: rows of what can be had without the gradient: the mean image, and the attack fed pure noise.
    """

    title: str
    image: Mapping[str, Any]
    rows: tuple[Mapping[str, Any] | None, ...]
    floors: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Panel:
    """One attack against one defence on one kind of batch.

    Attributes:
        attack: its name with the settings that differ in the table.
        defence: the defence's name; empty where none was tried.
        place: the kind of batch in words.
        levels: names of the strengths, weakest first.
        left_out: strengths that are not shown.
        cases: the most exposed image first.
        images: photographs that the cases were chosen from: those with a result at as many strengths as any.
        others: photographs that lack one.
        exposure: of the most exposed image, dB.
        floors: whether it is above the floor of each image; else it is the PSNR itself.
    """

    attack: str
    defence: str
    place: str
    levels: tuple[str, ...]
    left_out: int
    cases: tuple[Case, ...]
    images: int
    others: int
    exposure: float
    floors: bool


def panels(table: pd.DataFrame) -> list[Panel]:
    """Every attack against every defence, by the sections of tables.

    Within a section the one that exposes an image most comes first. An image's exposure is its PSNR
    above the best floor of the same image, averaged over the defended strengths that are shown; without a
    defence, that of the undefended gradient. Of several attack seeds the lowest is shown, and a photograph
    that several batches hold counts once.

    Args:
        table: per-image results, columns of `dpbench.store.columns`, with an index of its own.
    """
    naming = Naming(table)
    well = table[is_of_attack(table)]
    floors = well[is_floor(well)]
    rows = well[~is_floor(well) & ~is_informed(well) & ~only_labels(well) & well["psnr"].notna()]
    found: list[Panel] = []
    for place, part in naming.sections(rows):
        inside = [_panel(own, floors, naming, place) for own in _attacks(part, naming)]
        found += sorted(inside, key=lambda panel: -panel.exposure)
    return found


def _attacks(rows: pd.DataFrame, naming: Naming) -> Iterator[pd.DataFrame]:
    """The rows of each attack with each defence, the undefended ones along with them."""
    names = _said(rows, naming.attack)
    settings = _said(rows, lambda row: frozenset(naming.attack_settings(row)))
    bare, defended = rows[~is_defended(rows)], rows[is_defended(rows)]
    used = pd.Series(False, bare.index)
    for _, own in defended.groupby([names[defended.index], defended["defense"]], sort=False):
        first = own.index[0]
        # an answer to the defence is a setting that the undefended rows lack
        fitting = settings[bare.index].map(lambda each, own=settings[first]: each <= own).astype(bool)
        along = (bare["attack"] == own.at[first, "attack"]) & fitting
        used |= along
        yield pd.concat([bare[along], own])
    rest = bare[~used]
    for _, own in rest.groupby(names[rest.index], sort=False):
        yield own


def _said(rows: pd.DataFrame, name: Callable[[Mapping[str, Any]], Any]) -> pd.Series:
    """`name` of each row, asked once for all rows that differ in no condition."""
    differing = [column for column in conditions() if rows[column].nunique(dropna=False) > 1]
    if not differing:
        return pd.Series([name(rows.iloc[0].to_dict())] * len(rows), rows.index, "object")
    group = rows.groupby(differing, dropna=False, sort=False).ngroup()
    first = rows[~group.duplicated()]
    names = dict(zip(group[first.index], map(name, first.to_dict("records")), strict=True))
    return group.map(names).astype("object")


def _panel(rows: pd.DataFrame, floors: pd.DataFrame, naming: Naming, place: str) -> Panel:
    seed = rows["attack_seed"]
    rows = rows[(seed.isna() | (seed == seed.min())).astype(bool)]
    rows = _weakest_first(rows)
    rows = rows.assign(_level=_said(rows, naming.defence))
    every = list(dict.fromkeys(rows["_level"]))
    shown = _spread(every)
    rows = rows[rows["_level"].isin(shown)].assign(_image=lambda found: originals(found))
    # the same photograph in several batches: the first one is shown at every strength
    first = rows.groupby("_image")["batch_seed"].transform("min")
    rows = rows[rows["batch_seed"] == first].drop_duplicates(["_image", "_level"])
    judged = rows[is_defended(rows)] if is_defended(rows).any() else rows
    floor = judged["psnr_floor"].fillna(0.0)  # without floors PSNR itself
    exposure = over_floor(judged["psnr"], floor).groupby(judged["_image"]).mean()
    whole = rows.groupby("_image")["_level"].nunique().reindex(exposure.index)
    others = int((whole < whole.max()).sum())
    exposure = exposure[whole == whole.max()].sort_values(ascending=False, kind="stable")
    last = rows.iloc[-1]
    return Panel(
        attack=naming.attack(last),
        defence=str(last["defense"]) if is_defended(rows).any() else "",
        place=place,
        levels=tuple(_named(rows[rows["_level"] == name].iloc[0], name) for name in shown),
        left_out=len(every) - len(shown),
        cases=tuple(
            _case(title, rows[rows["_image"] == image], shown, floors, naming)
            for title, image in _picked(list(exposure.index))
        ),
        images=len(exposure),
        others=others,
        exposure=float(exposure.iloc[0]),
        floors=bool(judged["psnr_floor"].notna().any()),
    )


def _weakest_first(rows: pd.DataFrame) -> pd.DataFrame:
    """Undefended rows, then a budget's from the largest epsilon down, other defences as tables order them."""
    rows = ordered(rows, batch_last=True)
    budget = rows["eps_release"].fillna(float("inf")).where(is_defended(rows), float("inf"))
    keys = pd.DataFrame({"defended": is_defended(rows), "stronger": -budget})
    return rows.iloc[keys.reset_index(drop=True).sort_values(["defended", "stronger"], kind="stable").index]


def _spread(names: list[str]) -> list[str]:
    """At most `MOST_LEVELS` of the names, the first and the last among them."""
    if len(names) <= MOST_LEVELS:
        return names
    step = (len(names) - 1) / (MOST_LEVELS - 1)
    return [names[round(i * step)] for i in range(MOST_LEVELS)]


def _named(row: pd.Series, name: str) -> str:
    sigma = row["noise_multiplier"]
    return name if pd.isna(sigma) or "σ" in name else f"{name} (σ={up(sigma)})"


def _picked(images: list[int]) -> list[tuple[str, int]]:
    """The cases of images that are in order of their exposure, most exposed first."""
    if len(images) == 1:
        return [("The only image", images[0])]
    ends = ("Most exposed", images[0]), ("Least exposed", images[-1])
    if len(images) == 2:
        return list(ends)
    return [ends[0], ("Median", images[len(images) // 2]), ends[1]]


def _case(title: str, rows: pd.DataFrame, levels: list[str], floors: pd.DataFrame, naming: Naming) -> Case:
    by_level = {row["_level"]: row for row in rows.to_dict("records")}
    image = next(iter(by_level.values()))
    return Case(title, image, tuple(map(by_level.get, levels)), tuple(_floors(image, floors, naming)))


def _floors(image: Mapping[str, Any], floors: pd.DataFrame, naming: Naming) -> Iterator[Mapping[str, Any]]:
    place = ["data", "label_draw", "batch_size", "batch_seed", "image"]
    here = floors[(floors[place] == pd.Series({name: image[name] for name in place})).all(axis=1)]
    settings = set(naming.attack_settings(image))
    for name in ("mean-image", "noise-gradient"):
        for row in here[here["floor"] == name].sort_values("attack_seed").to_dict("records"):
            own = pd.isna(row["floor_of"]) or row["floor_of"] == image["attack"]
            if own and _same_victim(row, image) and settings.issuperset(naming.attack_settings(row)):
                yield row
                break


def _same_victim(floor: Mapping[str, Any], image: Mapping[str, Any]) -> bool:
    """Floors of a batch know no victim; those of an attack do."""
    names = ("model", "norm", "victim", "weights", "logit_scale", "trainable")
    return pd.isna(floor["floor_of"]) or all(
        floor[name] == image[name] or (pd.isna(floor[name]) and pd.isna(image[name])) for name in names
    )
