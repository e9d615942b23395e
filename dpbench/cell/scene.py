"""What is attacked, before any defence or attack: the batch and the victim that a cell names."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from dpbench import generators, victim
from dpbench.cell.public import AT_MOST, PublicSource
from dpbench.cell.spec import BatchSpec, Cell
from dpbench.data import Batch, Dataset, draw_disjoint, image_statistics, load_data, with_clients
from dpbench.metrics import draw_others
from dpbench.protocol import ImageStatistics, InputError, Release
from dpbench.system import digest, seeds
from dpbench.victim import Victim
from dpbench.victim.fitting import outputs
from dpbench.victim.head import ALL, trained_in_part

OTHERS = 199
"""Images outside the batch that an attacker may know, at most."""
FEWEST = 4
"""Images that statistics are made from, at least: the spectrum of fewer says little of any other image."""


@dataclass(frozen=True)
class Scene:
    """What is attacked, before any defence or attack.

    Attributes:
        victim: model, loss and accuracy; the model is on the CPU.
        images: float32 [n B, C, H, W] in [0, 1], of n clients, the attacked one first; of volumes, signals
            and rows of a table [n B, C, ...].
        labels: int64 [n B].
        indices: place of each image in the data set.
        num_classes: K.
        mean: public per-channel mean of the data.
        std: public per-channel standard deviation.
        mean_image: public mean of other images, [3, H, W] in [0, 1].
        others: images of the same data outside the batch, [G, 3, H, W] in [0, 1], and their labels, which an
            attacker may know: candidates, and statistics where none are shipped.
        gallery: further such images, among which a reconstruction has to point out its original.
        shared: the data set is too small for both, so `others` and `gallery` have images in common.
        statistics: of public images; None where not to be had.
        fitted: the statistics were made from `others`.
        public: further images for attacks that need many; None where there are none.
        release: what somebody's training sent for this batch; None where dpbench makes the releases.
        clients: n.
        visibility: columns that say how visible a malicious server's change of the victim is; none where it
            made none.
    """

    victim: Victim
    images: Tensor
    labels: Tensor
    indices: tuple[int, ...]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mean_image: Tensor
    others: tuple[Tensor, Tensor] | None = None
    gallery: tuple[Tensor, Tensor] | None = None
    shared: bool = False
    statistics: ImageStatistics | None = None
    fitted: bool = False
    public: PublicSource | None = None
    release: Release | None = None
    clients: int = 1
    visibility: Mapping[str, float] = field(default_factory=dict)

    @property
    def of_each_client(self) -> int:
        """B, the images of one client."""
        return len(self.images) // self.clients


@lru_cache(maxsize=2)
def dataset(spec: str, size: int | None) -> Dataset:
    """`load_data`, kept for the next cell."""
    return load_data(spec, size=size)


def data_for(model: str, spec: str, size: int | None) -> Dataset:
    """`dataset` as the network `model` takes it, in colour or in grey.

    Raises:
        InputError: for a network that cannot be made, and for images in colour where it takes grey ones.
    """
    data = dataset(spec, size)
    return _in_grey(spec, size) if victim.takes_grey(model, data) else data


@lru_cache(maxsize=2)
def _in_grey(spec: str, size: int | None) -> Dataset:
    return dataset(spec, size).in_grey()


def prepare(spec: BatchSpec) -> Scene:
    """Draws the batch and builds the victim that `spec` names.

    Raises:
        InputError: for data, a batch or a victim that does not exist, or that has changed since the run was
            planned.
    """
    data = data_for(spec.model, spec.data, spec.image_size)
    batch = draw_disjoint(data, spec.batch_size, spec.batch_seed, spec.label_draw)
    batch = with_clients(data, batch, spec.clients, spec.batch_seed, spec.label_draw)
    if spec.images_digest and images_digest(batch, data) != spec.images_digest:
        raise digest.changed(f"The batch of {data.name}, or another image of that data,")
    height, width = batch.images.shape[2:]
    if height != width:
        raise InputError(
            f"The victims take square images; those of {data.name} are {height}x{width}: give `image_size`."
        )
    network = victim.load(
        spec.model, spec.norm, spec.victim, spec.weights, data, width, planned=spec.weights_digest
    )
    if spec.logit_scale != 1:
        network = scaled(network, spec.logit_scale)
    classes = outputs(network.model, batch.images[:1])
    if spec.trainable != ALL:
        network = replace(network, model=trained_in_part(network.model, classes, spec.trainable))
    decoys = draw_others(data.labels, batch.labels, batch.indices, seeds.seed("decoys", spec.batch_seed))
    rest = set(range(len(data.labels))) - set(batch.indices)
    unseen = rest - set(decoys.tolist())
    shared = len(unseen) < OTHERS
    known = sorted(rest if shared else unseen, key=_place)
    return Scene(
        network,
        batch.images,
        batch.labels,
        batch.indices,
        classes,
        data.mean,
        data.std,
        data.mean_image,
        _outside(data, batch, known[:OTHERS]),
        _outside(data, batch, decoys.tolist()),
        shared,
        data.statistics,
        public=_public(data, batch, known[:AT_MOST], shared),
        clients=spec.clients,
    )


def images_digest(batch: Batch, data: Dataset) -> str:
    """A hash of the images and labels of a batch, and of the data set that it was drawn from."""
    drawn = digest.tensors({"images": batch.images, "labels": batch.labels})
    return digest.described({"batch": drawn, "data": data.content}) if data.content else drawn


def scaled(network: Victim, logit_scale: float) -> Victim:
    """A copy with its last layer times `logit_scale`: as accurate, and less confident if that is below 1."""
    model = copy.deepcopy(network.model)
    if not isinstance(getattr(model, "fc", None), nn.Linear):
        raise InputError("`logit_scale` changes the last layer `fc`, which this model lacks: leave it out.")
    with torch.no_grad():
        for parameter in model.fc.parameters():
            parameter.mul_(logit_scale)
    return replace(network, model=model)


def generator_of(cell: Cell, scene: Scene) -> nn.Module | None:
    """The generator that a cell names; None where it names none.

    Raises:
        InputError: for one that cannot be had, or that makes other images or classes.
    """
    if cell.told.generator is None:
        return None
    size = scene.images.shape[-1]
    found = generators.load_generator(cell.told.generator, num_classes=scene.num_classes, size=size)
    planned = cell.told.generator_digest
    if planned and digest.tensors(found.state_dict()) != planned:
        raise digest.changed(f"The generator {cell.told.generator}")
    return found.to(scene.images.device)


def _outside(data: Dataset, batch: Batch, places: list[int]) -> tuple[Tensor, Tensor]:
    """The images at `places` and their labels; none is a copy of one in the batch."""
    images = data.images[torch.tensor(places, dtype=torch.int64)].float() / 255
    new = torch.tensor([not any(torch.equal(image, own) for own in batch.images) for image in images])
    return images[new.bool()], data.labels[places][new.bool()]


def _public(data: Dataset, batch: Batch, places: list[int], decoys: bool) -> PublicSource:
    """The data set's training images; where it has none, its own images at `places`."""
    if data.public is not None:
        return PublicSource(data.public)
    return PublicSource(partial(_outside, data, batch, places), decoys)


@lru_cache(maxsize=100_000)
def _place(index: int) -> bytes:
    """Orders images by the sha256 of `dpbench other INDEX`: no image stands out by its place in the data."""
    return hashlib.sha256(f"dpbench other {index}".encode()).digest()


def with_statistics(scene: Scene) -> Scene:
    """`scene` with statistics of images: those it has, or else those of `others` if there are enough."""
    pictures = scene.mean_image.ndim == 3
    if scene.statistics is not None or scene.others is None or len(scene.others[0]) < FEWEST or not pictures:
        return scene
    pixels = (scene.others[0] * 255).round().byte()
    return replace(scene, statistics=image_statistics.fit(pixels, scene.mean_image), fitted=True)


def moved(scene: Scene, device: torch.device) -> Scene:
    """A copy of `scene` on `device`; the caller's model stays where and as it is."""
    model = copy.deepcopy(scene.victim.model).to(device)
    images, labels, mean_image = (x.to(device) for x in (scene.images, scene.labels, scene.mean_image))
    others, gallery = (pair and tuple(x.to(device) for x in pair) for pair in (scene.others, scene.gallery))
    sent = scene.release
    if sent is not None:
        sent = replace(sent, gradients=tuple(gradient.to(device) for gradient in sent.gradients))
    return replace(
        scene,
        victim=replace(scene.victim, model=model),
        images=images,
        labels=labels,
        mean_image=mean_image,
        others=others,
        gallery=gallery,
        release=sent,
    )
