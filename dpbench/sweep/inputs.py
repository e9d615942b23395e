"""What the cells of a command line are about: data sets, weights, and the code behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import product
from typing import Any

import attacks
import defenses
from dpbench import metrics, victim
from dpbench.cell import parts
from dpbench.cell.scene import data_for, dataset, images_digest
from dpbench.cell.spec import BatchSpec, Cell
from dpbench.cell.threats import threat_models
from dpbench.data import draw_disjoint, with_clients
from dpbench.generators import load_generator
from dpbench.privacy import Aggregation, Budget
from dpbench.protocol import InputError
from dpbench.system import digest, source
from dpbench.victim.batch_norm import has_batch_norm
from dpbench.victim.given import Factory
from dpbench.victim.networks import build, models


class Inputs:
    """Batches of one data set for the networks of dpbench; see `dpbench.sweep.plan.Inputs`.

    Args:
        data: the data set, as it was asked for.
        image_size: pixels; None leaves images as they are.
        weights: the user's file or an asset's name; None takes the shipped victims.
    """

    def __init__(self, data: str, image_size: int | None, weights: str | None) -> None:
        self._data, self._image_size, self._weights = data, image_size, weights
        self._images = cache(self._images)
        self._victims = cache(self._victims)
        self.generator_digest = cache(self.generator_digest)

    def batches(
        self, values: Mapping[str, tuple[Any, ...]], left_out: dict[str, None]
    ) -> Iterator[BatchSpec]:
        """Every batch of every victim; reasons for those that cannot be had go into `left_out`."""
        networks = [(m, n) for m in values["model"] for n in values["norm"] or (victim.usual_norm(m),)]
        axes = ("batch_size", "clients", "batch_seed", "label_draw", "logit_scale", "trainable")
        for (model, norm), state in product(networks, values["victim"]):
            for size, clients, seed, draw, scale, trainable in product(*(values[name] for name in axes)):
                try:
                    weights = self._victims(model, norm, state)
                    images = self._images(model, size, clients, seed, draw)
                except InputError as error:
                    left_out[str(error)] = None
                    continue
                yield BatchSpec(
                    data=self._data,
                    images_digest=images,
                    image_size=self._image_size,
                    batch_size=size,
                    clients=clients,
                    batch_seed=seed,
                    label_draw=draw,
                    model=model,
                    norm=norm,
                    victim=state,
                    weights=self._weights,
                    weights_digest=weights,
                    logit_scale=scale,
                    trainable=trainable,
                )

    def has_batch_norm(self, batch: BatchSpec) -> bool:
        """Whether the victim has batch-norm layers, so that their statistics say something."""
        return _normed(batch.model, batch.norm, self._size())

    def generator_digest(self, generator: str, batch: BatchSpec) -> str:
        """A hash of the generator's weights; empty where the cell that wants it will say why it has none."""
        data = dataset(self._data, self._image_size)
        try:
            found = load_generator(generator, num_classes=data.num_classes, size=data.images.shape[-1])
        except InputError:
            return ""
        return digest.tensors(found.state_dict())

    def code(self, cell: Cell) -> str:
        """A hash of the code that decides the cell's outcome."""
        return code_of(cell, *_makers(cell.batch.model, self._size()))

    def _size(self) -> int:
        return dataset(self._data, self._image_size).images.shape[-1]

    def _images(self, model: str, size: int, clients: int, seed: int, draw: str) -> str:
        data = data_for(model, self._data, self._image_size)
        drawn = with_clients(data, draw_disjoint(data, size, seed, draw), clients, seed, draw)
        return images_digest(drawn, data)

    def _victims(self, model: str, norm: str, state: str) -> str:
        data = data_for(model, self._data, self._image_size)
        return victim.weights_digest(model, norm, state, self._weights, data, data.images.shape[-1])


def code_of(cell: Cell, *networks: type | Callable[..., Any]) -> str:
    """A hash of the source of the cell's attack, defence, threat model, victim and of all metrics.

    Args:
        cell: names the parts.
        *networks: the classes or functions that make the victim.
    """
    name = cell.defence.name
    found = [threat_models[cell.threat.name], *networks, *metrics.METRICS.values(), *defenses.stages(name)]
    found += [attacks.kind(cell.attack.name)] if cell.attack else []
    found += [Budget, Aggregation] if parts.has_budget(name) else []
    return _code(frozenset(found))


@cache
def _code(found: frozenset[Any]) -> str:
    """Kept by the parts and not by their names, which a notebook gives to others that it defines anew."""
    return source.digest(*found)


@cache
def _makers(model: str, size: int) -> tuple[type | Callable[..., Any], ...]:
    """What makes a network: of one that the user gave, the factory and the classes of its modules."""
    made = models[model]
    if not isinstance(made, Factory):
        return (made,)
    return (Factory, made.function, *{type(module) for module in build(model, size=size).modules()})


@cache
def _normed(model: str, norm: str, size: int) -> bool:
    return has_batch_norm(build(model, norm=norm, size=size))
