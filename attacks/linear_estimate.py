"""The linear estimate of images from a noisy sum of their gradients, learnt from public images.

Image x and gradient g of a label's images have a joint mean and covariance, which public images tell. The
linear minimum-mean-square estimate of x from g + noise is E x + Cov(x, g) (Cov(g) + tau^2)^-1 (g + noise
- E g) (Kay 1993, "Fundamentals of Statistical Signal Processing", ch. 12). With n public images, Cov(g) has
rank n at most, so all is done in their inner products: one factorisation serves every noise level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks import labels as label_rules
from attacks import public_gradients
from attacks.adaptation import clip_norm
from attacks.reading import linear
from dpbench.protocol import InputError, Knowledge, Release

ROWS = 2400
"""Public images that one estimate takes at most, over all labels of the batch."""
FEWEST = 2
"""Public images of a label, at least: fewer have no covariance."""
CLASSES = 10
"""Labels that are weighed against each other where one image's label is unknown, at most."""
LEAST = 1e-100
"""Least noise variance: a release of zeros leaves the mean image."""
ROUNDING = 10.0
"""How much more variance rounding has than on average where gradients are large, which is where images show.
Chosen for `quantize` of one and four bits, on batches 100 to 103 of CIFAR-10."""
NOISY = 1e-4
"""Least share of a release's squared length that is not taken for rounding."""
RIDGE = 1e-3
"""Least noise variance, relative to the largest variance of the gradients: what is no linear function of the
image acts like noise. Chosen for single images without noise, on batches 100 to 115 of CIFAR-10."""


@dataclass(frozen=True)
class Estimate:
    """A linear estimate of a batch.

    Attributes:
        images: [B, C, H, W], not clamped.
        means: mean public image of each label, likewise.
        labels: int64 [B].
        source: `known` or `inferred`.
    """

    images: Tensor
    means: Tensor
    labels: Tensor
    source: str


def check_public_images(knowledge: Knowledge, attack: str) -> None:
    """InputError where there are no public images, or they are of another size than the victim takes."""
    public = knowledge.public_images
    if public is None:
        raise InputError(
            f"{attack} needs public images like those attacked: give `others`, or data with more images than "
            "the batch."
        )
    if tuple(public.images.shape[1:]) != knowledge.image_shape:
        raise InputError(
            f"{attack} needs public images of shape {knowledge.image_shape} as the victim takes, not "
            f"{tuple(public.images.shape[1:])}."
        )


def check_statistics(knowledge: Knowledge, attack: str) -> None:
    """As `check_public_images`, and InputError where there are no statistics of images of that size."""
    check_public_images(knowledge, attack)
    statistics = knowledge.image_statistics
    if statistics is None or tuple(statistics.mean_image.shape) != knowledge.image_shape:
        raise InputError(f"{attack} needs statistics of images of the attacked size: give `others`.")


def estimate(release: Release, knowledge: Knowledge, count: int, device: torch.device) -> Estimate:
    """The linear estimate of the images behind `release`, from at most `count` public images of a label.

    Where the label of a single image is unknown, estimates under each label are averaged with the labels'
    probabilities given the release. For larger batches labels are inferred first.

    Raises:
        InputError: where there are too few public images of a label.
    """
    if knowledge.labels is None and release.batch_size == 1 and release.noise_on_sum() > 0:
        return _over_classes(release, knowledge, count, device)
    labels, source = label_rules.given_or_inferred(release, knowledge)
    images, means, _, _ = _given_labels(release, knowledge, labels, count, device)
    return Estimate(images, means, labels, source)


def _over_classes(release: Release, knowledge: Knowledge, count: int, device: torch.device) -> Estimate:
    """One image of unknown label."""
    counts = torch.bincount(knowledge.public_images.labels.cpu(), minlength=knowledge.num_classes)
    known = (counts >= FEWEST).nonzero().flatten().to(device)
    if not len(known):
        raise InputError(f"There are no {FEWEST} public images of any label: give more of them.")
    if len(known) > CLASSES:
        weight, _ = label_rules.head(release, knowledge)
        known = known[weight[known].sum(1).argsort()[:CLASSES]]
    each = [_given_labels(release, knowledge, label[None], count, device) for label in known]
    variance = max(own for *_, own, _ in each)  # under one noise, or the probabilities do not compare
    weights = torch.tensor([evidence(variance) for *_, evidence in each], dtype=torch.float64, device=device)
    weights = weights.softmax(0)
    images, means = (
        torch.einsum("k,kchw->chw", weights.float(), torch.cat([found[i] for found in each]))[None]
        for i in (0, 1)
    )
    return Estimate(images, means, known[weights.argmax()][None], "inferred")


def _given_labels(
    release: Release, knowledge: Knowledge, labels: Tensor, count: int, device: torch.device
) -> tuple[Tensor, Tensor, float, Callable[[float], float]]:
    """Estimates and mean images [B, C, H, W], the variance of the noise that they assume, and an evidence.

    The evidence is the log-probability of the release under noise of a given variance, less what depends on
    the release and that variance alone.

    Let s be the released sum less its expectation, X_y a label's n public images less their mean, and A the
    gradients of all of them less their label's mean, each times w_y, the root of (attacked images of the
    label) / n. Then x = mean_y + X_y^T [(A A^T + tau^2)^-1 A s]_y / (n w_y).
    """
    classes, sizes = labels.unique(return_counts=True)
    most = max(FEWEST, min(count, ROWS // len(classes)))
    each = [knowledge.public_images.of(int(label), most).to(device) for label in classes]
    for label, found in zip(classes.tolist(), each, strict=True):
        if len(found) < FEWEST:
            raise InputError(f"There are no {FEWEST} public images of label {label}: give more of them.")
    lengths = [len(found) for found in each]
    images, owners = torch.cat(each), classes.repeat_interleave(torch.tensor(lengths, device=device))
    factors, seen, noise = _inner_products(release, knowledge, images, owners, lengths, sizes.tolist())
    along = factors.vectors.T @ (factors.weights * _centred(seen, lengths) - factors.offset)
    variance = max(noise**2, RIDGE * float(factors.values[-1]), LEAST)
    shares = (factors.vectors @ (along / (factors.values + variance))).float() / factors.weights.float()
    means = {int(label): x.mean(0) for label, x in zip(classes, each, strict=True)}
    estimates = {
        label: means[label] + torch.einsum("n,nchw->chw", share, x - means[label]) / len(x)
        for label, x, share in zip(means, each, shares.split(lengths), strict=True)
    }
    expected = 2 * float(factors.weights.square() @ seen) - factors.length

    def evidence(variance: float) -> float:
        # what A and the expected sum explain of the squared norm of the release
        explained = float((along.square() / (factors.values + variance)).sum()) + expected
        spread = float(torch.log1p(factors.values.clamp(min=0) / variance).sum())
        return explained / variance / 2 - spread / 2

    stacked = (torch.stack([found[int(label)] for label in labels]) for found in (estimates, means))
    return *stacked, variance, evidence


@dataclass(frozen=True)
class _Factors:
    """What is computed once for the labels of a batch, whatever the noise.

    Attributes:
        weights: [N], w of each public image's label.
        values: [N], eigenvalues of A A^T.
        vectors: [N, N], its eigenvectors.
        offset: [N], A times the expected sum.
        length: squared norm of the expected sum.
    """

    weights: Tensor
    values: Tensor
    vectors: Tensor
    offset: Tensor
    length: float


def _inner_products(
    release: Release,
    knowledge: Knowledge,
    images: Tensor,
    owners: Tensor,
    lengths: list[int],
    sizes: list[int],
) -> tuple[_Factors, Tensor, float]:
    """What is known before the release, and the public gradients' inner products [N] with the released sum.

    Of entries that the defence spoilt by more noise than others, less is counted; the third result is the
    standard deviation of the noise that is left on all of them.

    Args:
        release: what left the client.
        knowledge: the victim and its loss.
        images: public ones, [N, C, H, W].
        owners: their labels.
        lengths: how many there are of each label.
        sizes: how many attacked images have that label.
    """
    clip = clip_norm(release)
    single = release.noise_on_sum() == 0 and release.batch_size == 1
    # chosen on ConvNet: where the largest entries of one gradient were sent, zeros are better than nothing
    known = linear(release, as_sent=single and len(release.each) == 1)
    weights = None if known.weights is None else known.weights.float()
    name = public_gradients.fingerprint(knowledge, images, owners, weights)
    products, norms = public_gradients.remembered(
        name, lambda: public_gradients.inner_products(knowledge, images, owners, weights)
    )
    flat, noise = known.weighted(known.values), known.noise
    if single:
        # the direction alone, as the length varies a lot from image to image
        clip, norms = 0.0, products.diagonal().sqrt()
        rounding = noise**2 * (flat.numel() if known.kept is None else int(known.kept.sum()))
        squared = flat.square().sum()
        length = torch.maximum(squared - rounding, NOISY * squared).sqrt()
        length = length.clamp_min(torch.finfo(flat.dtype).tiny)
        flat, noise = flat / length, ROUNDING**0.5 * noise / float(length)
    scale = _scale(norms, clip)
    factors = public_gradients.remembered(
        (name, clip, *sizes), lambda: _factorised(scale[:, None] * products * scale, lengths, sizes)
    )
    seen = public_gradients.products_with(knowledge, images, owners, known.weighted(flat).float())
    return factors, seen * scale, noise


def _scale(norms: Tensor, clip: float | None) -> Tensor:
    """What gradients of these norms are multiplied by: clipped to `clip`, or brought to norm 1 for 0."""
    if clip is None:
        return torch.ones_like(norms)
    norms = norms.clamp_min(torch.finfo(norms.dtype).tiny)
    return (clip / norms).clamp(max=1) if clip else 1 / norms


def _factorised(products: Tensor, lengths: list[int], sizes: list[int]) -> _Factors:
    """From the inner products of the gradients as they enter the released sum."""
    shares = torch.cat([products.new_full((n,), m / n) for n, m in zip(lengths, sizes, strict=True)])
    weights, expected = shares.sqrt(), products @ shares
    centred = _centred(_centred(products, lengths).T, lengths)
    values, vectors = torch.linalg.eigh(weights[:, None] * centred * weights)
    offset = weights * _centred(expected, lengths)
    return _Factors(weights, values, vectors, offset, float(shares @ expected))


def _centred(rows: Tensor, lengths: list[int]) -> Tensor:
    """Each block of rows less its mean."""
    return torch.cat([block - block.mean(0) for block in rows.split(lengths)])
