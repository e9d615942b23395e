"""Images of a label as a Gaussian field: public statistics, and what its public images add to them."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from attacks.gaussian_prior import Whitening
from attacks.public_gradients import remembered
from dpbench.protocol import Knowledge

ENTRIES = 4096
"""Pixels times colours up to which their covariance is estimated; larger images are a stationary field."""
IMAGES = 5000
"""Public images of a label that it is estimated from, at most."""
LEAST = 1e-6
"""Least variance of an entry whose variance over all public images is 1."""
STATIONARY = "Images are too large for a covariance of each label, so all share that of all public images."


class PublicPrior:
    """Images [B, C, H, W] as a linear function of entries of the same shape, standard normal a priori.

    A label's images are whitened by the statistics of all public images; their mean and covariance are then
    those of its own public images, the covariance shrunk to the identity as Ledoit and Wolf (2004) say.
    For images with more than `ENTRIES` entries only the mean is the label's own, and `note` says so.

    Args:
        knowledge: with `image_statistics` and `public_images`.
        labels: int64 [B], of the images.
    """

    def __init__(self, knowledge: Knowledge, labels: Tensor) -> None:
        self.whitening = Whitening(knowledge.image_statistics).to(labels.device)
        known = {int(label): self._moments(knowledge, int(label)) for label in labels.unique()}
        means, roots = zip(*(known[int(label)] for label in labels), strict=True)
        self.means = torch.stack(means)
        self.roots = None if roots[0] is None else torch.stack(roots)
        self.note = "" if self.roots is not None else STATIONARY

    def images(self, entries: Tensor) -> Tensor:
        """The images of such entries, not clamped."""
        flat = entries.flatten(1)
        if self.roots is not None:
            flat = torch.einsum("bij,bj->bi", self.roots, flat)
        return self.whitening.inverse((self.means + flat).view_as(entries))

    def entries(self, images: Tensor) -> Tensor:
        """The entries of such images."""
        flat = self.whitening(images).flatten(1) - self.means
        if self.roots is not None:
            flat = torch.linalg.solve_triangular(self.roots, flat[..., None], upper=False)[..., 0]
        return flat.view_as(images)

    def _moments(self, knowledge: Knowledge, label: int) -> tuple[Tensor, Tensor | None]:
        """Mean [entries] and a root [entries, entries] of the covariance of a label's whitened images."""
        device = self.whitening.mean_image.device
        images = knowledge.public_images.of(label, IMAGES).to(device)
        known = (images, *self.whitening.buffers())
        name = hashlib.sha256(b"".join(tensor.cpu().numpy().tobytes() for tensor in known)).hexdigest()

        def compute() -> tuple[Tensor, Tensor | None]:
            flat = self.whitening(images).flatten(1)
            mean = flat.mean(0) if len(flat) else flat.new_zeros(flat.shape[1])
            if flat.shape[1] > ENTRIES or not len(flat):
                return mean, None
            covariance = shrunk_covariance(flat - mean)
            covariance.diagonal().add_(LEAST)  # or images that are all alike would have no root
            return mean, torch.linalg.cholesky(covariance)

        return remembered(("prior", name, device.type), compute)


class Centred:
    """A `PublicPrior` moved to other images, and narrowed.

    Args:
        prior: whose covariance it has, but for the factor.
        centre: images [B, C, H, W] that it is moved to.
        deviation: what all standard deviations are multiplied by, above 0.
    """

    def __init__(self, prior: PublicPrior, centre: Tensor, deviation: float) -> None:
        self.prior, self.deviation, self.note = prior, deviation, prior.note
        self.middle = prior.entries(centre)

    def images(self, entries: Tensor) -> Tensor:
        """The images of such entries, not clamped."""
        return self.prior.images(self.middle + self.deviation * entries)

    def entries(self, images: Tensor) -> Tensor:
        """The entries of such images."""
        return (self.prior.entries(images) - self.middle) / self.deviation


def shrunk_covariance(rows: Tensor) -> Tensor:
    """Covariance [d, d] of centred rows [n, d], shrunk to a multiple of the identity.

    The identity has the weight of least expected squared error, as estimated from the rows themselves (Ledoit
    and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices", section 3.3).

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> shrunk_covariance(rows)
        tensor([[1., 0.],
                [0., 0.]])
    """
    n, d = rows.shape
    sample = rows.T @ rows / n
    size = sample.diagonal().mean()
    distance = (sample.square().sum() - d * size**2).clamp_min(torch.finfo(rows.dtype).tiny)
    error = (rows.square().sum(1).square().sum() / n - sample.square().sum()) / n
    weight = (error / distance).clamp(0, 1)
    return (1 - weight) * sample + weight * size * torch.eye(d, dtype=rows.dtype, device=rows.device)
