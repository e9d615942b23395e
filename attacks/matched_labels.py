"""Labels from the last layer's gradient under noise, by what each label is expected to leave there.

The gradient of the last layer's row n is sum over samples of (p_n - [label = n]) (features, 1). Its inner
product with the mean features is the matched filter: no other linear statistic of a row has less noise.
What a sample of each label leaves in these K numbers, clipping included, is learnt from public images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks import public_gradients
from attacks.adaptation import clip_norm
from attacks.gaussian_prior import Whitening
from attacks.output_layer import Names
from attacks.reading import linear
from dpbench.protocol import Knowledge, Release

REFERENCES = 400
"""Images that the expectations are learnt from; one of each label, at least."""
LEAST = 1e-6
"""Least weight of an entry that is divided by it."""


@dataclass(frozen=True)
class _Expected:
    """What samples leave in the last layer's gradient.

    Attributes:
        filters: [K, features, or features + 1 with a bias], what each row is multiplied by.
        rows: [K, K], mean of the K products over samples of each label.
        variances: [K], of each product about that mean.
    """

    filters: Tensor
    rows: Tensor
    variances: Tensor


def references(knowledge: Knowledge) -> tuple[Tensor, Tensor] | None:
    """Images [n, C, H, W] in [0, 1] and labels to learn from; None where nothing is known of images.

    Public images where they are given; else draws of a Gaussian field with their statistics, which can stand
    for any label.
    """
    each, classes = max(1, REFERENCES // knowledge.num_classes), range(knowledge.num_classes)
    public, statistics = knowledge.public_images, knowledge.image_statistics
    if public is not None and len(public.images) and tuple(public.images.shape[1:]) == knowledge.image_shape:
        found = [public.of(label, each) for label in classes]
        # images of any label stand for a label that has none
        found = [images if len(images) else public.of(None, each) for images in found]
        labels = [torch.full((len(x),), y) for y, x in zip(classes, found, strict=True)]
        return torch.cat(found), torch.cat(labels)
    if statistics is not None and tuple(statistics.mean_image.shape) == knowledge.image_shape:
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(knowledge.num_classes).repeat_interleave(each)
        noise = torch.randn(len(labels), *knowledge.image_shape, generator=generator)
        return Whitening(statistics).inverse(noise.to(statistics.mean_image.device)).clamp(0, 1), labels
    return None


def matched(release: Release, knowledge: Knowledge, names: Names, given: tuple[Tensor, Tensor]) -> Tensor:
    """Labels with repeats, int64 [B], surest first.

    One label at a time is added to those found: the one that makes the K products most probable, given their
    expectation and variance under noise, and the number of orders in which the labels can stand.

    Args:
        release: what left the client; of several releases only the mean matters.
        knowledge: the victim and its loss.
        names: of the last layer's weight and bias, as `output_layer` has them.
        given: `references`.
    """
    images, labels = (x.to(release.gradients[0].device) for x in given)
    clip = clip_norm(release)
    seen = linear(release)
    rows, weights = (_rows(v, release, names) for v in (seen.values, seen.weights))
    known = public_gradients.fingerprint(knowledge, images, labels, weights)
    expected = public_gradients.remembered(
        (known, clip, names),
        lambda: _expected(release.names, names, knowledge, images, labels, clip, weights),
    )
    left = (rows * expected.filters).sum(1)
    # the filters hold the weights squared, and entries times weights have noise of one level
    spread = expected.filters if weights is None else expected.filters / weights.clamp_min(LEAST)
    noise = seen.noise**2 * spread.square().sum(1)
    variances = noise + release.batch_size * expected.variances + torch.finfo(left.dtype).tiny
    found, counts = [], torch.zeros_like(left)
    for _ in range(release.batch_size):
        misfits = ((left - expected.rows).square() / (2 * variances)).sum(1)
        found.append((misfits + torch.log1p(counts)).argmin())
        counts[found[-1]] += 1
        left = left - expected.rows[found[-1]]
    return torch.stack(found)


def _rows(flat: Tensor | None, release: Release, names: Names) -> Tensor | None:
    """The last layer's part of a vector [P] over all gradients, [K, features or features + 1]."""
    if flat is None:
        return None
    parts = flat.split([g.numel() for g in release.gradients])
    named = {n: part.view_as(g) for n, part, g in zip(release.names, parts, release.gradients, strict=True)}
    classes = len(named[names[0] or names[1]])
    return torch.cat([named[n].reshape(classes, -1) for n in names if n], 1).float()


def _expected(
    order: tuple[str, ...],
    head: Names,
    knowledge: Knowledge,
    images: Tensor,
    labels: Tensor,
    clip: float | None,
    weights: Tensor | None,
) -> _Expected:
    """From the gradients of `images`; `order` names all gradients, `head` those of the last layer."""
    sizes = {name: p.numel() for name, p in knowledge.model.named_parameters() if p.requires_grad}
    parts, classes, size = [], knowledge.num_classes, public_gradients.CHUNK
    for x, y in zip(images.split(size), labels.split(size), strict=True):
        each = public_gradients.gradients(knowledge, x, y)
        scale = 1 if clip is None else (clip / each.norm(dim=1, keepdim=True)).clamp(max=1)
        named = dict(zip(order, (each * scale).split([sizes[name] for name in order], 1), strict=True))
        parts.append(torch.cat([named[name].unflatten(1, (classes, -1)) for name in head if name], 2))
    rows = torch.cat(parts)
    everyone = torch.arange(len(rows), device=rows.device)
    own = -rows[everyone, labels].mean(0)
    direction = own / own.norm().clamp_min(torch.finfo(own.dtype).tiny)
    # of entries under more noise less is counted, which is the matched filter for such noise
    filters = direction.expand_as(rows[0]) if weights is None else direction * weights.square()
    products = (rows * filters).sum(2)
    sums = torch.zeros(classes, classes, device=rows.device, dtype=rows.dtype).index_add(0, labels, products)
    means = sums / torch.bincount(labels, minlength=classes)[:, None]
    variances = (products - means[labels]).square().mean(0)
    return _Expected(filters, means, variances if weights is not None else variances.mean().expand(classes))
