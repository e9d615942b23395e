"""Somebody's own model and images as what cells are about."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from dpbench.cell.public import PublicSource
from dpbench.cell.scene import OTHERS, Scene, with_statistics
from dpbench.cell.spec import BatchSpec, Cell
from dpbench.generators import load_generator
from dpbench.protocol import InputError, Loss, Release
from dpbench.sweep.inputs import code_of
from dpbench.sweep.own_code import code_behind, state
from dpbench.system import digest
from dpbench.victim import Victim
from dpbench.victim.batch_norm import has_batch_norm

OWN = "own"
"""What the columns say where only the user knows."""


@dataclass(frozen=True)
class Public:
    """What is publicly known of images like those attacked.

    Attributes:
        mean: per channel, in [0, 1].
        std: per channel.
        mean_image: of other images, of the shape of one.
        others: other images, float32 [G, C, H, W] in [0, 1], and their labels; None where there are none.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    mean_image: Tensor
    others: tuple[Tensor, Tensor] | None


class OwnInputs:
    """See `dpbench.sweep.plan.Inputs`; batches are told apart by what they hold.

    Args:
        model: the victim, in the mode its gradient is taken in; a copy is kept.
        loss: mean-reduced.
        num_classes: K.
        batches: (images float32 [B, C, H, W] in [0, 1], labels int64 [B], places in their data set); or
            volumes, signals or rows of a table in place of the images.
        public: what the attacker may know.
        victim: what to call the model's state.
        release: what was really sent for the only batch, as a mean over its images; None where dpbench makes
            the releases.
        expected: the expected batch, by which the training divided.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        num_classes: int,
        batches: list[tuple[Tensor, Tensor, tuple[int, ...]]],
        public: Public,
        victim: str,
        release: Release | None = None,
        expected: int | None = None,
    ) -> None:
        self._release, self._expected = release, expected
        self._model, self._loss, self._classes, self._public = model, loss, num_classes, public
        self._state, self._weights = victim, state(model, loss)
        # one that is given twice is one
        self._given = list({self._digest(*each[:2]): each for each in batches}.values())
        self._batches: dict[str, tuple[Tensor, Tensor, tuple[int, ...]]] = {}

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of pictures; None of inputs of another kind."""
        shape = tuple(self._public.mean_image.shape)
        return shape[1:] if len(shape) == 3 else None

    def batches(
        self, values: Mapping[str, tuple[Any, ...]], left_out: dict[str, None]
    ) -> Iterator[BatchSpec]:
        """Every batch, in the order given; the seed is its place."""
        for (seed, given), clients in product(enumerate(self._given), values["clients"]):
            try:
                images, labels, places = self._with_clients(seed, clients)
            except InputError as error:
                left_out[str(error)] = None
                continue
            key = self._digest(images, labels)
            self._batches[key] = images, labels, places
            yield BatchSpec(
                data=OWN,
                images_digest=key,
                batch_size=len(given[0]),
                clients=clients,
                batch_seed=seed,
                label_draw=OWN,
                model=type(self._model).__name__,
                norm=OWN,
                victim=self._state,
                weights_digest=self._weights,
                expected=self._expected,
            )

    def _with_clients(self, place: int, clients: int) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """The batch at `place` and the `clients` - 1 that follow it; after the last one comes the first."""
        found = (self._given[place:] + self._given[:place])[:clients]
        if len(found) < clients or len({len(images) for images, _, _ in found}) > 1:
            raise InputError(
                f"A sum over {clients} `clients` needs {clients} batches of one size: give {clients} or more "
                "as a list, or as many values of `batch_seed` with a data set."
            )
        images, labels, places = zip(*found, strict=True)
        return torch.cat(images), torch.cat(labels), sum(places, ())

    def has_batch_norm(self, batch: BatchSpec) -> bool:
        """Whether the model has batch-norm layers."""
        return has_batch_norm(self._model)

    def generator_digest(self, generator: str, batch: BatchSpec) -> str:
        """A hash of the generator's weights; empty where the cell that wants it will say why it has none."""
        size = self._public.mean_image.shape[-1]
        try:
            found = load_generator(generator, num_classes=self._classes, size=size)
        except InputError:
            return ""
        return digest.tensors(found.state_dict())

    def code(self, cell: Cell) -> str:
        """A hash of the code that decides the cell's outcome, that of the model and the loss included."""
        return code_of(cell, *code_behind(self._model, self._loss))

    def scene(self, batch: BatchSpec) -> Scene:
        """What is attacked in the cells of `batch`."""
        images, labels, places = self._batches[batch.images_digest]
        public = self._public
        others = public.others and tuple(x[:OTHERS] for x in public.others)
        scene = Scene(
            Victim(copy.deepcopy(self._model), self._loss, None),
            images,
            labels,
            places,
            self._classes,
            public.mean,
            public.std,
            public.mean_image,
            others,
            public.others,
            shared=True,
            public=None if public.others is None else PublicSource(lambda: public.others, decoys=True),
            release=self._release,
            clients=batch.clients,
        )
        return with_statistics(scene)

    def _digest(self, images: Tensor, labels: Tensor) -> str:
        public = self._public
        known = {"mean": torch.tensor(public.mean), "std": torch.tensor(public.std)}
        known["mean image"] = public.mean_image
        if public.others is not None:
            known |= {"others": public.others[0], "other labels": public.others[1]}
        if self._release is not None:
            sent = zip(self._release.names, self._release.gradients, strict=True)
            known |= {f"gradient {name}": gradient for name, gradient in sent}
        return digest.tensors({"images": images, "labels": labels} | known)
