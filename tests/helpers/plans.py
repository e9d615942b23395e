"""Plans of sweeps over made-up batches, so that nothing is loaded or drawn."""

from __future__ import annotations

from itertools import product

from dpbench.cell import registered
from dpbench.cell.spec import BatchSpec, Cell, Runtime
from dpbench.sweep.axes import options
from dpbench.sweep.plan import Plan, plan
from dpbench.victim import usual_norm


class MadeUp:
    """Inputs of a plan whose digests are words.

    Args:
        weights: (model, norm, victim) to the hash of the weights.
        images: (batch size, seed, label draw) to the hash of the batch.
        code: (cell) to the hash of its code.
    """

    def __init__(self, weights=lambda *_: "w", images="{}{}{}".format, code=lambda cell: "") -> None:
        self._weights, self._images, self.code = weights, images, code

    def batches(self, values, left_out):
        networks = [(m, n) for m in values["model"] for n in values["norm"] or (usual_norm(m),)]
        axes = ("victim", "batch_size", "batch_seed", "label_draw", "logit_scale", "trainable")
        for (model, norm), (victim, size, seed, draw, scale, trainable) in product(
            networks, product(*(values[name] for name in axes))
        ):
            try:
                weights, images = self._weights(model, norm, victim), self._images(size, seed, draw)
            except ValueError as error:
                left_out[str(error)] = None
                continue
            yield BatchSpec(
                data="samples",
                images_digest=images,
                batch_size=size,
                batch_seed=seed,
                label_draw=draw,
                model=model,
                norm=norm,
                victim=victim,
                weights_digest=weights,
                logit_scale=scale,
                trainable=trainable,
            )

    def has_batch_norm(self, batch):
        return "bn" in batch.norm

    def generator_digest(self, generator, batch):
        return f"weights of {generator}"


def values(**changed):
    """What a command line asks for; one convnet, one batch of one image and no defence unless changed."""
    registered.load()
    usual = {name: each.default for name, each in options().items() if each.several}
    return usual | {"victim": ("early",), "batch_size": (1,), "defense": ("none",)} | changed


def planned(inputs=None, **changed) -> Plan:
    return plan(values(**changed), inputs or MadeUp(), Runtime(device="cpu", version="0"))


def cells(**changed) -> list[Cell]:
    return list(planned(**changed).cells)


def attacked(**changed) -> list[Cell]:
    """Without the floors."""
    return [cell for cell in cells(**changed) if not cell.floor]
