"""The choice of the executor: workers where their start costs less than they save."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dpbench.cell import parts
from dpbench.cell.spec import Cell
from dpbench.sweep.executors.workers import cores

WORTH = 4_000
"""Iterations of all searches together from which workers pay.

Workers start after one process has imported what they need, which takes about 5 s. The cheapest search of
the networks here takes 3.5 ms an iteration: two workers save 7 s of 4,000 of them.
"""


def auto(cells: Sequence[Cell], device: str) -> str:
    """`workers` for several long searches on a CPU of several cores, else `local`.

    A graphics card is left to one process, and so are images that `local` gives all cores to: their numbers
    would differ in the last digits. Elsewhere they do not depend on the choice.

    Example:
        >>> auto([], "cpu")
        'local'
    """
    if device != "cpu" or cores() < 2 or torch.get_num_threads() > 1:
        return "local"
    searches, iterations, lengths = 0, 0, {}
    for cell in cells:
        if cell.attack is None:
            continue
        what = cell.attack, cell.threat
        if what not in lengths:
            lengths[what] = parts.attack_of(cell).evaluations()
        searches, iterations = searches + 1, iterations + lengths[what]
        if searches > 1 and iterations >= WORTH:
            return "workers"
    return "local"
