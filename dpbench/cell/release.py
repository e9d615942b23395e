"""What leaves the client in a cell, and what the attacker makes of it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

import defenses
from dpbench.cell import aggregation, parts, views
from dpbench.cell.public import public_images
from dpbench.cell.scene import Scene, generator_of
from dpbench.cell.spec import Cell
from dpbench.cell.threat_model import Progress
from dpbench.generators import load_denoiser
from dpbench.protocol import Candidates, InputError, Knowledge, Reconstruction, Release, combined
from dpbench.system import seeds
from dpbench.victim import batch_norm


def released(cell: Cell, scene: Scene) -> Release:
    """All that leaves the client of `cell`, with its guarantee.

    Where a training really sent something under this defence, it is that; see `Scene.release`.

    Raises:
        InputError: for a defence that cannot work on this model or batch.
    """
    stages = [stage.name for stage in defenses.stages(cell.defence.name)]
    if scene.release is not None and stages == [stage.name for stage in scene.release.defense]:
        found = replace(scene.release, guarantee=parts.guarantee_of(cell, parts.defence_of(cell)))
    else:
        count = parts.threat_of(cell).releases
        found = combined(each_release(cell, scene, scene.images, scene.labels, count=count))
    if _is_zero(found):
        model = parts.threat_of(cell).sent(scene.victim.model, 0)
        if _is_zero(defenses.Chain().release(model, scene.victim.loss, scene.images, scene.labels, seed=0)):
            raise InputError(
                "The gradient of this batch is zero, so there is nothing to attack: the victim's loss does "
                "not depend on the images, as with a single class."
            )
        raise InputError(f"{cell.defence.name} releases only zeros, so there is nothing to attack.")
    return found


def _is_zero(release: Release) -> bool:
    return not any(bool(gradient.any()) for gradient in release.gradients)


def each_release(
    cell: Cell, scene: Scene, images: Tensor, labels: Tensor, *, count: int, trial: int = 0
) -> list[Release]:
    """`count` releases of a batch that need not be the scene's, each with the guarantee of all of them.

    Where there are several clients, each is the mean over them of what each sends.

    Args:
        cell: says how the batch is defended.
        scene: the victim, and the expected size of the batch.
        images: [b, C, H, W], client after client; images of the first client may be missing, down to all.
        labels: int64 [b].
        count: how many.
        trial: which of several independent trials this is.

    Raises:
        InputError: for a defence that cannot work on this model or batch.
    """
    aggregation.check(cell, scene)
    chains, each, seed = aggregation.clients_of(cell), scene.of_each_client, cell.release_seed(trial)
    sizes = [len(images) - (len(chains) - 1) * each, *[each] * (len(chains) - 1)]
    threat = parts.threat_of(cell)
    sent, local = [], threat.local(each)
    for i, (chain, x, y) in enumerate(zip(chains, images.split(sizes), labels.split(sizes), strict=True)):
        loss = scene.victim.loss
        if not len(x):  # nobody is in the batch: a public image without a loss stands for nobody
            x, y, loss = scene.mean_image[None], torch.zeros_like(scene.labels[:1]), _nothing
        own = seeds.seed("client", seed, i) if i else seed
        more = {"seed": own, "count": count, "expected_batch_size": each, "local": local}
        sent.append(chain.releases(threat.sent(scene.victim.model, i), loss, x, y, **more))
    guarantee = parts.guarantee_of(cell, parts.defence_of(cell))
    made = (aggregation.mean(same, cell) for same in zip(*sent, strict=True))
    return [replace(release, guarantee=guarantee) for release in made]


def _nothing(logits: Tensor, labels: Tensor) -> Tensor:
    """A loss whose gradient is zero."""
    return 0 * logits.sum()


def attacked(
    cell: Cell,
    scene: Scene,
    release: Release,
    progress: Progress | None = None,
    candidates: Candidates | None = None,
) -> Reconstruction:
    """What the attack of `cell` makes of `release`; of the scene it is shown only what is public."""
    network = scene.victim
    wanted = parts.wants(cell, "public_images")
    public = public_images(scene.public, scene.images, scene.gallery) if wanted else None
    knowledge = Knowledge(
        model=defenses.in_release_mode(network.model),
        loss=network.loss,
        image_shape=tuple(scene.images.shape[1:]),
        num_classes=scene.num_classes,
        mean=scene.mean,
        std=scene.std,
        labels=scene.labels.clone() if cell.told.labels == "known" else None,
        bn_stats=cell.told.bn_stats,
        statistics=batch_norm.statistics(network.model, scene.images, cell.told.bn_stats),
        candidates=candidates,
        image_statistics=scene.statistics,
        image_generator=generator_of(cell, scene),
        image_denoiser=_denoiser(cell, scene),
        public_images=public,
    )
    attack, device, answers = parts.attack_of(cell), scene.images.device, []
    for view in parts.threat_of(cell).views(release, knowledge):
        seed = cell.search_seed()
        found = attack(view.release, view.knowledge, seed=seed, device=device, progress=progress)
        if knowledge.labels is None and found.label_source == "known":  # the server told the attack
            found = replace(found, label_source="inferred")
        answers.append(replace(found, note=f"{view.note} {found.note}".strip()))
    return views.joined(answers, len(scene.images), scene.mean_image)


def _denoiser(cell: Cell, scene: Scene) -> nn.Module | None:
    """The shipped denoiser, where the attack wants one and the images are of its size."""
    if not parts.wants(cell, "image_denoiser"):
        return None
    found = load_denoiser(tuple(scene.images.shape[1:]), scene.statistics)
    return None if found is None else found.to(scene.images.device)
