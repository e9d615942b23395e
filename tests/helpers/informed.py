"""Cells of the informed attacker, and the bounds that it stays below."""

from __future__ import annotations

from dpbench.cell import parts
from dpbench.cell.rows import describe
from dpbench.cell.run import measure
from dpbench.cell.spec import Cell
from dpbench.privacy.intervals import clopper_pearson
from tests.helpers.cells import cell, part, small_scene
from tests.helpers.cells import dp as budget


def informed(defence="none", batch_size=1, victim="early", **threat) -> Cell:
    return cell("prior-aware", defence, part("informed", **threat), batch_size=batch_size, victim=victim)


def dp(eps: float | None, *, batch_size=1, victim="early", noise=None, max_grad_norm=None, **threat) -> Cell:
    given = {"noise_multiplier": noise, "max_grad_norm": max_grad_norm}
    defence = budget(eps, **{name: value for name, value in given.items() if value is not None})
    return informed(defence, batch_size, victim, **threat)


def row_of(given: Cell):
    return measure(given, small_scene(given.batch.batch_size)).rows[0]


def threat(given: Cell):
    return parts.threat_of(given)


def below_the_bound(row: dict, given: Cell) -> None:
    """One-sided at a level of 0.0005: these tests draw anew whenever the keys of cells change."""
    for name, asked in (("success", threat(given).trials), ("membership", 2 * threat(given).trials)):
        low, _ = clopper_pearson(round(row[name] * asked), asked, 1 - 2 * 0.0005)
        assert low <= row[f"{name}_bound"], (describe(given), name)
