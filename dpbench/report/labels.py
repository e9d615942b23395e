"""How attacks, defences, conditions and numbers are called in tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from attacks.gradinversion import TERMS
from dpbench.cell.grid import CONSTANT_IMAGE, LABELS_ONLY, MEAN_IMAGE
from dpbench.victim.batch_norm import ORACLES

FLOOR = "floor:"
EMPTY = "—"

SCENE = ("model", "norm", "mode", "victim", "weights", "bn_stats", "labels", "label_draw", "data")
SCENE += ("logit_scale", "threat_model", "prior", "candidates", "max_iterations", "restarts")
"""The conditions other than attack, defence and batch size: where they vary, headings and names give them."""

_USUAL = {"preset": "tuned", "terms": "registered", "matching": None, "label_rule": "minimum"}
_USUAL |= {"generator": "cifar10"}
_VARIANTS = {"gradient": "gradient only", "fidelity": "+ fidelity", "lazy": "lazy group", "sum": "sum rule"}
"""What an attack's name says where it is not the usual one."""
_IMAGE_ONLY = ("label_draw", "data")  # what of the scene the mean and the constant image depend on
_DEFENCE_SIGNS = {
    "max_grad_norm": "C",
    "delta": "δ",
    "train_size": "N",
    "epochs": "epochs",
    "eps_scope": "scope",
    "releases": "T",
    "inclusion": "q",
    "noise_std": "std",
    "prune_ratio": "ratio",
}


_UNSAID = (
    "max_grad_norm",
    "delta",
    "train_size",
    "epochs",
    "eps_scope",
    "releases",
)  # in labels only where they vary


def is_floor(table: pd.DataFrame) -> pd.Series:
    """Which rows are floors: what an attacker reaches without the gradient of these images."""
    return table["attack"].str.startswith(FLOOR).fillna(False).astype(bool)


def only_labels(table: pd.DataFrame) -> pd.Series:
    """Which rows are of an attack that rebuilds labels and no image, its floors among them."""
    return (table["attack"] == LABELS_ONLY).fillna(False) | (table["floor_of"] == LABELS_ONLY).fillna(False)


def is_defended(table: pd.DataFrame) -> pd.Series:
    """Which rows are attacks on a defended gradient."""
    return ~is_floor(table) & (table["defense"].fillna("none") != "none")


def ablation_order(table: pd.DataFrame) -> pd.Series:
    """Place of each row in GradInversion's ablation, which is no alphabetical one; empty for others."""
    return table["terms"].map({term: place for place, term in enumerate(TERMS)}).astype("Int64")


def attack_label(row: Mapping[str, Any]) -> str:
    """Name a row's attack; a floor says which attack was fed noise, a defended row if it was not adaptive.

    Example:
        >>> attack_label({"attack": "dlg", "adaptive": False, "defense": "dp"})
        'dlg (not adaptive)'
        >>> attack_label({"attack": "floor:noise-gradient", "floor_of": "dlg"})
        'floor:noise-gradient (dlg)'
        >>> attack_label({"attack": "gradinversion", "preset": "paper", "terms": "lazy"})
        'gradinversion (paper, lazy group)'
    """
    name, variant = str(row["attack"]), []
    if name.startswith(FLOOR) and _given(row, "floor_of"):
        variant = [str(row["floor_of"])]
    for column, usual in _USUAL.items():
        if _given(row, column) and row[column] != usual:
            variant.append(_VARIANTS.get(row[column], str(row[column])))
    defended = _given(row, "defense") and row["defense"] != "none"
    if defended and _given(row, "adaptive") and not row["adaptive"] and not name.startswith(FLOOR):
        variant.append("not adaptive")
    return f"{name} ({', '.join(variant)})" if variant else name


def defense_label(row: Mapping[str, Any], *, eps: bool = True) -> str:
    """Name the defence of a row with the parameters it has; a floor has no defence to name.

    Args:
        row: of the results or the summary.
        eps: whether epsilon is part of the name; the training budget, or else the release's.

    Example:
        >>> defense_label({"defense": "dp+prune", "eps": 1.0, "max_grad_norm": 1.0, "prune_ratio": 0.9})
        'dp+prune ε=1 C=1 ratio=0.9'
        >>> defense_label({"attack": "dlg", "defense": "none"}), defense_label({"attack": "floor:start"})
        ('no defence', '—')
    """
    if str(row.get("attack", "")).startswith(FLOOR):
        return EMPTY
    if not _given(row, "defense") or row["defense"] == "none":
        return "no defence"
    words = [str(row["defense"])]
    budget = "eps" if _given(row, "eps") else "eps_release"
    if eps and _given(row, budget):
        words.append(f"ε={number(row[budget], 'g')}")
    elif eps and _given(row, "noise_multiplier"):
        words.append(f"σ={number(row['noise_multiplier'], '.3g')}")
    for column, sign in _DEFENCE_SIGNS.items():
        if _given(row, column):
            words.append(f"{sign}={_value(row[column])}")
    if _given(row, "prune_scope") and row["prune_scope"] != "layer":
        words.append(str(row["prune_scope"]))
    if "dp" in str(row["defense"]).split("+") and _given(row, "bn_stats") and row["bn_stats"] in ORACLES:
        words.append(f"with {row['bn_stats']} BN: oracle, no guarantee")
    return " ".join(words)


def varying_conditions(table: pd.DataFrame) -> list[str]:
    """Conditions of `SCENE` that differ for one attack; what an attack always brings along does not count.

    Threat models are kept apart whatever their attacks.
    """
    attacked = table[~is_floor(table)]
    attacks = attacked.groupby("attack")
    apart = ["threat_model"] if attacked["threat_model"].nunique() > 1 else []
    return [name for name in SCENE if name in apart or (attacks[name].nunique() > 1).any()]


def conditions(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Name those of the conditions `names` that a row depends on; the mean image knows no victim.

    Example:
        >>> conditions({"attack": "dlg", "model": "lenet", "labels": None}, ["model", "labels"])
        ['model lenet']
        >>> conditions({"attack": "floor:mean-image", "model": "lenet"}, ["model"])
        []
    """
    if row["attack"] in (MEAN_IMAGE, CONSTANT_IMAGE):
        names = [name for name in names if name in _IMAGE_ONLY]
    return [f"{name.replace('_', ' ')} {_value(row[name])}" for name in names if _given(row, name)]


def sections(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Split results or a summary by batch size and varying conditions; floors stand in each they apply to.

    Returns:
        (heading, rows), by batch size and conditions; nothing where there is no attack.
    """
    names = varying_conditions(table)
    heads = table[~is_floor(table)].drop_duplicates(["batch_size", *names])
    found = []
    for head in heads.sort_values(["batch_size", *names]).to_dict("records"):
        inside = _same(table["batch_size"], head["batch_size"])
        for name in names:
            inside &= _same(table[name], head[name]) | (is_floor(table) & table[name].isna())
        if str(head["threat_model"]) == "informed":  # it picks a candidate: no picture to set a floor beside
            inside &= ~is_floor(table)
        title = ", ".join([f"Batch of {head['batch_size']}", *conditions(head, names)])
        found.append((title, table[inside]))
    return found


def distinguishing(table: pd.DataFrame) -> pd.DataFrame:
    """Empty what labels need not say in each row because it is the same in all: the one attack, the one C."""
    attacked = table[~is_floor(table)]
    same = [name for name in _UNSAID if attacked[name].nunique() < 2]
    if attacked["attack"].nunique() < 2:
        same.append("floor_of")
    return table.assign(
        **{name: pd.Series(None, index=table.index, dtype=table[name].dtype) for name in same}
    )


def number(value: Any, spec: str) -> str:
    """Format a number; a missing one is a dash.

    Example:
        >>> number(None, ".1f"), number(3.14, ".1f"), number(float("-inf"), "+.1f")
        ('—', '3.1', '-∞')
    """
    if value is None or pd.isna(value):
        return EMPTY
    return format(value, spec).replace("inf", "∞")


def _same(column: pd.Series, value: Any) -> pd.Series:
    return column.isna() if pd.isna(value) else (column == value).fillna(False).astype(bool)


def _given(row: Mapping[str, Any], column: str) -> bool:
    return column in row and row[column] is not None and not pd.isna(row[column])


def _value(value: Any) -> str:
    return value if isinstance(value, str) else number(value, "g")
