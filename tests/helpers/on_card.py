"""What runs on the card that does not exist: `python -m tests.helpers.on_card` prints how each part fared.

One JSON object: names, and `same` where the result is the CPU's to the last bit, otherwise what is wrong.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attacks
import defenses
from dpbench.cell.run import run_cell
from dpbench.testing import scenes
from dpbench.testing.chains import SIZES, batch, created, victim
from tests.helpers import card, cells


def moved(given: Any, device: torch.device) -> Any:
    """`given` with all that it holds on the device."""
    if isinstance(given, Tensor):
        return given.to(device)
    if isinstance(given, nn.Module):
        return copy.deepcopy(given).to(device)
    if is_dataclass(given) and not isinstance(given, type):
        return replace(
            given, **{f.name: moved(getattr(given, f.name), device) for f in fields(given) if f.init}
        )
    if isinstance(given, dict):
        return {key: moved(value, device) for key, value in given.items()}
    return tuple(moved(value, device) for value in given) if isinstance(given, tuple) else given


def attacked(name: str, device: torch.device) -> list[Tensor]:
    """Reconstructions of one and two images, with known and unknown labels."""
    kind, found = attacks.kind(name), []
    asked = {"iterations": 2, "restarts": 2, "engine": "eager"}
    made = kind(**{key: asked[key] for key in asked.keys() & {field.name for field in fields(kind)}})
    for count, known in ((1, True), (kind.most_images or 2, False)):
        given = scenes.scene(kind, count, known)
        release, knowledge = moved(given.release, device), moved(given.knowledge, device)
        answer = made(release, knowledge, seed=0, device=device)
        found += [answer.images, answer.labels]
    return found


def defended(name: str, device: torch.device) -> list[Tensor]:
    """Two releases of a batch small enough to be taken image by image, and of one that is not."""
    found = []
    for size in SIZES:
        model, images, labels = moved((victim(), *batch(size)), device)
        made = created(name).releases(model, F.cross_entropy, images, labels, seed=0, count=2)
        found += [gradient for release in made for gradient in release.gradients]
    return found


CELLS = {
    "honest": cells.cell(cells.part("dlg", iterations=2), batch_size=1),
    "honest under dp": cells.cell(
        cells.part("inverting-gradients", iterations=3), cells.dp(), batch_size=1, engine="eager"
    ),
    "honest with Gauss-Newton steps": cells.cell(
        cells.part("inverting-gradients", iterations=60, finish=0.6), batch_size=1, engine="eager"
    ),
    "honest with a random code read": cells.cell(
        cells.part("inverting-gradients", iterations=2), "precode", batch_size=1, engine="eager"
    ),
    "informed": cells.cell("prior-aware", cells.dp(), "informed", batch_size=1),
    "malicious": cells.cell("analytic", "none", "malicious-linear", batch_size=1),
}


def measured(name: str, device: torch.device) -> list[dict[str, Any]]:
    """The rows of a whole cell, metrics included."""
    asked = CELLS[name]
    here = replace(asked, runtime=replace(asked.runtime, device=str(device)))
    result = run_cell(here, scenes=lambda _: cells.small_scene())
    if result.status != "ok":
        raise RuntimeError(result.log)
    differ = {"key", "device"}
    return [{k: v for k, v in row.items() if k not in differ} for row in cells.without_times(result.rows)]


def same(first: list[Any], second: list[Any]) -> bool:
    """Whether both hold the same values; NaN is the same as NaN."""
    if isinstance(first[0], Tensor):
        return all(torch.equal(a, b.cpu()) for a, b in zip(first, second, strict=True))
    return [repr(row) for row in first] == [repr(row) for row in second]


def results(there: torch.device) -> Iterator[tuple[str, str]]:
    """Each part's name, and how it fared."""
    cpu = torch.device("cpu")
    parts: list[tuple[Callable[[str, torch.device], list[Any]], list[str]]] = [
        (attacked, list(attacks.names())),
        (defended, list(defenses.names())),
        (measured, list(CELLS)),
    ]
    for work, names in parts:
        for name in names:
            try:
                yield name, "same" if same(work(name, cpu), work(name, there)) else "other values"
            except Exception:
                yield name, traceback.format_exc()


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    json.dump(dict(results(card.plug_in())), sys.stdout)
    sys.stdout.flush()
    os._exit(
        0
    )  # what PyTorch tears down at the end of a process is not asked about, least of all of a pretence
