"""Cells, their parts, and a small scene for tests of everything that runs them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dpbench.cell.scene import Scene
from dpbench.cell.spec import BatchSpec, Cell, Part, Runtime, Told
from dpbench.victim import Victim

TIMES = ("seconds", "compile_seconds")
_BATCH = {
    "data": "samples",
    "images_digest": "",
    "batch_size": 2,
    "batch_seed": 0,
    "label_draw": "distinct",
    "model": "convnet",
    "norm": "none",
    "victim": "untrained",
    "weights_digest": "",
}
_RUNTIME = {"device": "cpu", "version": "0"}
_WHERE = {each.name: kind for kind in (BatchSpec, Told, Runtime) for each in fields(kind)}


def part(name: str, **given: Any) -> Part:
    """A part by its name and what differs from its defaults."""
    return Part(name=name, parameters=tuple(sorted(given.items())))


def dp(eps: float | None = 1.0, **given: Any) -> Part:
    """DP-SGD whose budget is that of the release; `dp(None, noise_multiplier=...)` gives the noise itself."""
    budget = {"eps_scope": "release"} if eps is None else {"eps": eps, "eps_scope": "release"}
    return part("dp", **(budget | given))


def cell(
    attack: Part | str | None = "dlg",
    defence: Part | str = "none",
    threat: Part | str = "honest",
    *,
    floor: Any = None,
    attack_seed: int = 0,
    **changes: Any,
) -> Cell:
    """Two sample images in an untrained ConvNet; `changes` are fields of its batch, `Told` or runtime."""
    given: dict[type, dict[str, Any]] = {BatchSpec: dict(_BATCH), Told: {}, Runtime: dict(_RUNTIME)}
    for name, value in changes.items():
        given[_WHERE[name]][name] = value
    return Cell(
        batch=BatchSpec(**given[BatchSpec]),
        told=Told(**given[Told]),
        runtime=Runtime(**given[Runtime]),
        attack=_part(attack) if attack else None,
        defence=_part(defence),
        threat=_part(threat),
        floor=floor,
        attack_seed=attack_seed,
    )


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what no two runs have in common."""
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def small_scene(batch_size: int = 1) -> Scene:
    """Noise of 8 pixels and a linear victim of 5 classes: a release takes milliseconds."""
    generator = torch.Generator().manual_seed(4)
    images, labels = torch.rand(30, 3, 8, 8, generator=generator), torch.arange(30) % 5
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).eval()
    rest = (images[batch_size:], labels[batch_size:])
    return Scene(
        Victim(model, F.cross_entropy, None),
        images[:batch_size],
        labels[:batch_size],
        tuple(range(batch_size)),
        5,
        (0.5,) * 3,
        (0.3,) * 3,
        torch.full((3, 8, 8), 0.5),
        rest,
        rest,
        shared=True,
    )


def _part(given: Part | str) -> Part:
    return part(given) if isinstance(given, str) else given
