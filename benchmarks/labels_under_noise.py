"""Labels restored from the release of `dp`, rule by rule, on batches of CIFAR-10's test images.

    python -m benchmarks.labels_under_noise
    python -m benchmarks.labels_under_noise --batches 40 --batch-size 8

Batches are drawn with labels as they come, so that labels may repeat. The score is the share of a batch's
labels, with repeats, that a rule finds. Every rule reads the same releases: each batch is clipped once, and
the noise of a level is drawn from the batch's seed. `matched` learns from CIFAR-10's training images, or from
draws of a Gaussian field with their statistics. `blind` names one label after the other without a look at the
release.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from torch import Tensor

import defenses
from attacks import labels as rules
from attacks import matched_labels
from benchmarks.measure import show
from dpbench import victim
from dpbench.data import cifar10, draw_disjoint, load_data
from dpbench.protocol import Knowledge, PublicImages, Release, Stage

Way = Callable[[Release, Tensor, Tensor | None], Tensor]
"""(release, last layer's weight and bias gradients) -> labels."""


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        batches: how many.
        first_seed: of the batches.
        batch_size: numbers of images.
        noise_multiplier: sigmas.
        max_grad_norm: C.
        model: the victim's network.
        victim: how far it was trained.
        device: where it runs.
        out: where the table goes.
    """

    batches: int = 400
    first_seed: int = 1000
    batch_size: tuple[int, ...] = (1, 4)
    noise_multiplier: tuple[float, ...] = (0.001, 0.0246, 0.0947, 0.205, 0.5)
    max_grad_norm: float = 1.0
    model: str = "convnet"
    victim: str = "early"
    device: str = "cpu"
    out: Path = Path("labels-under-noise.csv")


def main(options: Options) -> None:
    """Prints a row for each batch size and rule."""
    data = load_data("cifar10")
    norm = victim.usual_norm(options.model)
    network = victim.load(options.model, norm, options.victim, None, data, data.images.shape[-1])
    told = Knowledge(
        model=defenses.in_release_mode(network.model).to(options.device),
        loss=network.loss,
        image_shape=tuple(data.images.shape[1:]),
        num_classes=data.num_classes,
        mean=data.mean,
        std=data.std,
    )
    ways = {
        "matched, public images": _matched(replace(told, public_images=PublicImages(*cifar10("train")))),
        "matched, statistics": _matched(replace(told, image_statistics=data.statistics)),
        "sum": lambda release, weight, bias: rules.by_sum(weight, release.batch_size),
        "counts": lambda release, weight, bias: rules.counts(weight, bias, release.batch_size),
        "blind": lambda release, weight, bias: torch.arange(release.batch_size) % data.num_classes,
    }
    rows = []
    for size in options.batch_size:
        right = {name: [0] * len(options.noise_multiplier) for name in ways}
        for seed in range(options.first_seed, options.first_seed + options.batches):
            batch = draw_disjoint(data, size, seed, "random")
            clip = defenses.create("clip", max_grad_norm=options.max_grad_norm)
            images, labels = batch.images.to(options.device), batch.labels.to(options.device)
            clipped = clip.release(told.model, told.loss, images, labels, seed=0)
            for i, sigma in enumerate(options.noise_multiplier):
                release = noised(clipped, sigma, options.max_grad_norm, seed)
                head = rules.head(release, data.num_classes)
                for name, way in ways.items():
                    right[name][i] += overlap(way(release, *head).cpu(), batch.labels)
        for name, sums in right.items():
            levels = zip(options.noise_multiplier, sums, strict=True)
            shares = {f"sigma {sigma:g}": f"{n / options.batches / size:.3f}" for sigma, n in levels}
            rows.append({"batch": size, "rule": name} | shares)
    show(f"share of labels restored, {options.batches} batches", rows, options.out)


def noised(clipped: Release, sigma: float, max_grad_norm: float, seed: int) -> Release:
    """The release of `dp` that has this one's clipped sum."""
    like = clipped.gradients[0]
    generator = torch.Generator(like.device).manual_seed(seed)
    deviation = sigma * max_grad_norm / clipped.batch_size
    noisy = tuple(
        g + deviation * torch.randn(g.shape, generator=generator, device=g.device) for g in clipped.gradients
    )
    stage = Stage("dp", {"noise_multiplier": sigma, "max_grad_norm": max_grad_norm})
    return replace(clipped, gradients=noisy, defense=(stage,))


def overlap(found: Tensor, truth: Tensor) -> int:
    """How many of the labels `truth` are among `found`, each as often as it is there.

    Example:
        >>> overlap(torch.tensor([1, 1, 2]), torch.tensor([1, 2, 2]))
        2
    """
    most = int(torch.cat([found, truth]).max()) + 1
    return int(torch.minimum(found.bincount(minlength=most), truth.bincount(minlength=most)).sum())


def _matched(knowledge: Knowledge) -> Way:
    given = matched_labels.references(knowledge)
    return lambda release, *head: matched_labels.matched(release, knowledge, *head, given)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(tyro.cli(Options, description=__doc__))
