"""The columns that are known of a cell before it has a result, and those that each image has by itself."""

from __future__ import annotations

import contextlib
import math
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from defenses import Chain, in_release_mode
from dpbench.cell import aggregation, columns, parts
from dpbench.cell.floors import OF_A_BATCH
from dpbench.cell.result import CellResult, no_images
from dpbench.cell.scene import Scene
from dpbench.cell.spec import BatchSpec, Cell, Part, Plain
from dpbench.privacy import Budget
from dpbench.protocol import Guarantee, InputError, Loss, Reconstruction, parameters
from dpbench.victim import accuracy
from dpbench.victim.networks import models

Row = dict[str, Any]


def conditions(cell: Cell) -> Row:
    """The columns that the cell alone decides; budgets and bounds are the guarantee's (`guaranteed`).

    Raises:
        InputError: for an unknown part.
    """
    return columns.shown(cell) | _of_cell(cell)


def _of_cell(cell: Cell) -> Row:
    """Those that are known even where a part is not."""
    batch, told, runtime = cell.batch, cell.told, cell.runtime
    guess = cell.floor in OF_A_BATCH
    attack = cell.attack.name if cell.attack else None
    return {
        "key": cell.key(),
        "attack": cell.floor.title if cell.floor else attack,
        "floor": cell.floor and str(cell.floor),
        "floor_of": attack if cell.floor else None,
        "defense": cell.defence.name,
        "threat_model": None if guess else cell.threat.name,
        "attack_seed": None if guess else cell.attack_seed,
        "labels": None if guess else told.labels,
        "bn_stats": told.bn_stats,
        "generator": told.generator,
        "model": batch.model,
        "norm": batch.norm,
        "victim": batch.victim,
        "weights": batch.weights_digest if batch.weights else None,
        "logit_scale": batch.logit_scale,
        "trainable": None if batch.trainable == "all" else batch.trainable,
        "label_draw": batch.label_draw,
        "data": batch.data,
        "batch_size": batch.batch_size,
        "clients": batch.clients,
        "batch_seed": batch.batch_seed,
        "device": device_name(runtime.device),
        "version": runtime.version,
        "eps": None,
        "delta": None,
    } | ({} if cell.tuned is None else {"tuned": cell.tuned.source})


def of_attack(rows: list[Row]) -> list[Row]:
    """Of the rows of one batch, those of images that the attack is after.

    A fishing server guesses the others. It fishes for the class `target`, or else for the first image's.
    """
    first = rows[0]
    if first.get("threat_model") != "fishing":
        return rows
    target = first.get("target")
    wanted = first["label"] if target is None else target
    return [row for row in rows if row["label"] == wanted]


def guaranteed(cell: Cell, guarantee: Guarantee | None) -> Row:
    """The columns of a guarantee; none where there is none, so that no row claims what was not given."""
    if guarantee is None:
        return {}
    unchecked = parts.is_calibrated_by_others(cell.defence.name)
    return asdict(guarantee) | ({"noise_unchecked": True} if unchecked else {})


def of_clients(cell: Cell, guarantee: Guarantee | None, note: str = "") -> Row:
    """What a sum over several clients adds: `eps_client`, and a note where the attacker added the noise."""
    if parts.hides_noise(cell):
        return {"note": " ".join(filter(None, (aggregation.NO_NOISE, note)))}
    alone = aggregation.eps_client(cell, guarantee)
    return {} if alone is None else {"eps_client": alone}


def of_noise(chain: Chain) -> Row:
    """Sigma of a calibrated defence: it is in the row even where nothing is guaranteed."""
    found = (stage.values().get("noise_multiplier") for stage in chain.stages)
    sigma = next((each for each in found if each is not None), None)
    return {} if sigma is None else {"noise_multiplier": sigma}


def of_victim(scene: Scene) -> Row:
    """The columns of the victim as it was attacked."""
    model = scene.victim.model
    row: Row = {"mode": "train" if model.training else "eval", "victim_accuracy": scene.victim.accuracy}
    trained, frozen = (
        sum(p.numel() for p in model.parameters() if p.requires_grad is kept) for kept in (True, False)
    )
    return row | ({"trained_parameters": trained, "frozen_parameters": frozen} if frozen else {})


def of_search(found: Reconstruction | None) -> Row:
    """What the attack reports of itself."""
    if found is None:
        return {}
    same = ("gradient_distance", "iterations", "seconds", "compile_seconds", "engine")
    return {name: getattr(found, name) for name in same} | {
        "labels": found.label_source,
        "note": found.note or None,
    }


def of_output(found: Reconstruction | None, order: Tensor) -> list[Row]:
    """What the attack says of each of its images.

    Args:
        found: what the attack handed back; None for a guess.
        order: int64 [B], which of its images was assigned to each original.
    """
    if found is None:
        return [{} for _ in order]
    own = {name: getattr(found, name) for name in ("certified", "residual")}
    return [
        {name: values[place].item() for name, values in own.items() if values is not None} for place in order
    ]


def of_images(scene: Scene) -> list[Row]:
    """The columns of every client's images: place, label, the victim's loss, the gradient's share."""
    return [
        {
            "image": i,
            "original_index": scene.indices[i],
            "copy_of": None if first == i else scene.indices[first],
            "label": int(scene.labels[i]),
            "image_loss": loss,
            "image_grad_share": share,
        }
        for i, ((loss, share), first) in enumerate(
            zip(image_shares(scene), _firsts(scene.images), strict=True)
        )
    ]


def _firsts(images: Tensor) -> list[int]:
    """For each image the place of the first one in the batch with the same pixels: its own, unless a copy."""
    seen: dict[bytes, int] = {}
    return [seen.setdefault(each.numpy().tobytes(), i) for i, each in enumerate(images.detach().cpu())]


def of_tuning(cell: Cell, scene: Scene) -> list[Row]:
    """Whether each image is one of those that the attack's parameters were tuned on."""
    if cell.tuned is None:
        return [{} for _ in scene.indices]
    places = set(cell.tuned.places) if cell.tuned.data == cell.batch.data else set()
    return [{"tuned_on": place in places} for place in scene.indices]


def image_shares(scene: Scene) -> list[tuple[float, float]]:
    """Per image: the victim's loss (nat), and its gradient norm's share of the sum over all clients' images.

    In training mode each client's images are seen together, as in its step. The share is NaN where one of
    them changes another one's loss, as through batch norm: no gradient is an image's own then.
    """
    together = scene.victim.model.training
    model = in_release_mode(scene.victim.model) if together else scene.victim.model
    size = scene.of_each_client if together else 1
    found = []
    for images, labels in zip(scene.images.split(size), scene.labels.split(size), strict=True):
        found += _of_batch(model, scene.victim.loss, images, labels)
    total = sum(norm for _, norm in found)
    return [(loss, norm / total if total else math.nan) for loss, norm in found]


def _of_batch(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> list[tuple[float, float]]:
    """Each image's loss and the norm of its gradient; NaN where another image changes its loss."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    # of one image nothing is mixed; a model may change what it gets, which a leaf would not allow
    seen = [images.clone().requires_grad_()] if len(images) > 1 else []
    logits, found = model(seen[0].clone() if seen else images), []
    inputs = [*trainable, *seen]
    for i in range(len(images)):
        value = loss(logits[i : i + 1], labels[i : i + 1])
        gradients = torch.autograd.grad(value, inputs, allow_unused=True, retain_graph=bool(seen))
        own, of_images = gradients[: len(trainable)], gradients[len(trainable) :]
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in own if g is not None))
        mixed = any(bool(g[torch.arange(len(g)) != i].any()) for g in of_images if g is not None)
        found.append((value.item(), math.nan if mixed else norm))
    return found


def without_result(cell: Cell, status: str, reason: str) -> CellResult:
    """Rows that say why `cell` has none: `status` is `skipped` or `failed`, `reason` one line."""
    # whatever is known without the result, so that the rows stand beside those of the other seeds
    batch = cell.batch
    common: Row = {"mode": _usual_mode(batch)} | _of_cell(cell)
    common["victim_accuracy"] = accuracy(batch.model, batch.norm, batch.victim, batch.weights)
    with contextlib.suppress(InputError):
        common |= conditions(cell)
        chain = parts.defence_of(cell)
        guarantee = parts.guarantee_of(cell, chain)
        common |= of_noise(chain) | guaranteed(cell, guarantee) | of_clients(cell, guarantee)
    rows = [common | {"image": i, "status": status, "error": reason} for i in range(batch.batch_size)]
    return CellResult(rows, no_images(), no_images(), f"{describe(cell)}: {status}. {reason}\n")


def _usual_mode(batch: BatchSpec) -> str | None:
    """Networks of dpbench are attacked in evaluation mode; of somebody's own it is not known here."""
    return "eval" if batch.model in list(models) else None


def describe(cell: Cell) -> str:
    """One line for messages: which gradient, and what is done with it."""
    batch = cell.batch
    seeds = f"batch {batch.batch_seed}" + (f", attack seed {cell.attack_seed}" if cell.attack_seed else "")
    scaled = f" logits x{batch.logit_scale:g}" if batch.logit_scale != 1 else ""
    trained = "" if batch.trainable == "all" else f" {batch.trainable}"
    network = f"{batch.model}/{batch.norm}/{batch.victim}{scaled}{trained}"
    size = f"{batch.batch_size}" + (f" x {batch.clients} clients" if batch.clients > 1 else "")
    return f"{network} B={size} ({seeds}): {attack_and_defence(cell)}"


def attack_and_defence(cell: Cell) -> str:
    """Attack and defence in a few words, with whatever differs from the defaults."""
    attack = cell.attack.name if cell.attack else ""
    if cell.floor:
        return cell.floor.title + (f" ({attack})" if attack else "")
    words = [attack, *_given(cell.attack), "on", cell.defence.name, *_budget(cell), *_given(cell.defence)]
    if cell.threat.name != "honest" or cell.threat.given:
        words += [cell.threat.name, *_given(cell.threat)]
    return " ".join(words)


def _budget(cell: Cell) -> list[str]:
    """Epsilon, where it is the default one: it is named even so."""
    given = cell.defence.given
    try:
        calibrated = parts.is_calibrated(cell.defence.name)
    except InputError:  # no such defence: that is what the message is about
        return []
    if not calibrated or "eps" in given or "noise_multiplier" in given:
        return []
    return [f"{parts.symbols()['eps']}={parameters(Budget)['eps'].default:g}"]


def _given(part: Part) -> list[str]:
    symbols = parts.symbols()
    return [f"{symbols.get(name, name)}={_word(v)}" for name, v in part.parameters if v is not None]


def _word(value: Plain) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def device_name(kind: str) -> str:
    """`cpu`, or the graphics card's own name."""
    return torch.cuda.get_device_name() if kind == "cuda" else kind
