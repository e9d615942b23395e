"""From what an attack hands back to rows: matched once, measured by every metric."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dpbench import metrics
from dpbench.cell import parts, rows
from dpbench.cell.floors import Floor
from dpbench.cell.result import CellResult, picture
from dpbench.cell.scene import Scene
from dpbench.cell.spec import Cell
from dpbench.protocol import Guarantee, Reconstruction


def scored(
    cell: Cell,
    scene: Scene,
    outputs: Tensor,
    found: Reconstruction | None = None,
    guarantee: Guarantee | None = None,
    extra: list[dict[str, Any]] | None = None,
) -> CellResult:
    """One row per original of the attacked client.

    Nobody can tell whose image is whose in a sum over clients: all images are assigned to all originals.
    Where the attacker can (`ThreatModel.tells_clients`), those that it takes for the first client's are
    assigned to that client's originals.

    Args:
        cell: what was run.
        scene: what was attacked.
        outputs: the attack's images of all clients, of the shape of the scene's, in [0, 1], in an order of
            its own.
        found: what else the attack reports; None for a guess.
        guarantee: the privacy of the release.
        extra: more columns of each original's row.
    """
    gallery = scene.gallery and (_scorable(scene.gallery[0]), scene.gallery[1])
    told = cell.attack is not None and parts.threat_of(cell).tells_clients
    among = scene.of_each_client if told else len(scene.images)
    found_images = metrics.matched(
        _scorable(outputs[:among]),
        _scorable(scene.images[:among]),
        scene.labels[:among],
        _scorable(scene.mean_image[None])[0],
        found_labels=None if found is None else found.labels[:among],
        others=gallery,
        lpips_net=cell.runtime.lpips_net,
        rebuilds_images=cell.attack is None or parts.attack_class(cell).rebuilds_images,
    )
    measured = metrics.measure(found_images)
    own = rows.of_output(found, found_images.order)
    common = rows.conditions(cell) | rows.of_victim(scene) | rows.of_search(found)
    common |= rows.of_noise(parts.defence_of(cell)) | rows.guaranteed(cell, guarantee) | {"status": "ok"}
    common |= rows.of_clients(cell, guarantee, found.note if found else "")
    if cell.attack and scene.gallery:
        seen = parts.wants(cell, "public_images") and scene.public is not None and scene.public.decoys
        common["decoys_known"] = seen or (scene.shared and scene.fitted)
    common |= scene.visibility if cell.attack else {}
    count = scene.of_each_client
    images = zip(rows.of_images(scene)[:count], rows.of_tuning(cell, scene)[:count], strict=True)
    each = zip(images, measured[:count], own[:count], (extra or [{}] * count)[:count], strict=True)
    made = [common | image | tuned | values | said | more for (image, tuned), values, said, more in each]
    history = () if found is None else tuple(float(value) for value in found.history)
    steps = () if found is None else tuple(int(step) for step in found.history_steps)
    pictures = (picture(images[:count]) for images in (outputs[found_images.order].clamp(0, 1), scene.images))
    return CellResult(made, *pictures, history=history, history_steps=steps)


def _scorable(images: Tensor) -> Tensor:
    """`images`; signals [B, C, L] as volumes of one line, as metrics refuse a picture that is no batch."""
    return images[:, :, None, None] if images.ndim == 3 else images


def start_rows(cell: Cell, scene: Scene, found: Reconstruction) -> CellResult:
    """The floor of what the attack set out from; it lies in the file of the attack's own cell."""
    result = scored(replace(cell, floor=Floor.START), scene, found.start)
    for row in result.rows:
        row |= {"key": cell.key(), "labels": found.label_source}
    return result


def joined(first: CellResult, second: CellResult) -> CellResult:
    """Both, one after the other; the search is the first one's."""
    return CellResult(
        first.rows + second.rows,
        torch.cat([first.images, second.images]),
        torch.cat([first.originals, second.originals]),
        history=first.history,
        history_steps=first.history_steps,
    )
