"""One image in closed form, layer by layer from a fully connected layer back to the pixels.

For one sample, the loss gradient at a layer's outputs (delta) gives that at its inputs, and the gradient of
the layer's weights is linear in its inputs (R-GAP, Zhu and Blaschko 2021). What is new here, and makes it
exact: the bias gradient tells which units were active, and both systems of `solve` are weighed by their
errors. Other networks are no chains: `residual` takes residual ones with global average pooling, and
`patches` vision transformers with a learned position embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from attacks import labels as label_rules
from attacks import parameters as shared
from attacks.adaptation import EXACT
from attacks.base import Attack, Task, attack, channel_statistics
from attacks.exact import embedding, patches, pooled, residual
from attacks.exact.activations import undone
from attacks.exact.certificate import CERTAIN, NEGLIGIBLE, unexplained
from attacks.exact.last_layer import last_layer
from attacks.exact.layers import Affine, Chain, read
from attacks.exact.priors import Images, Prior
from attacks.exact.solve import Estimate, TooLargeError, inputs
from attacks.inverting_gradients import InvertingGradients
from dpbench.protocol import InputError, Knowledge, Reconstruction, Release

UNDETERMINED = "The image explains the release, and so may others: expect an error of {:.1g} of the range."
UNCHECKED = "The last layer has no bias, so whether the image explains the release was not checked."
DETERMINED = 1e-3
"""Largest expected error (root mean square, images in [0, 1]) of an image that is certified."""
BELIEVED = 0.5
"""Directions that may follow from the prior in an image that is certified; see `Estimate.believed`."""
COST = 3
"""Iterations of the default search that take as long as one conjugate gradient."""
PUSH = 0.03
"""Standard deviation of the noise that is added to an image to see whether a search comes back to it."""
ROUNDED = 1e-3
"""The same share in a transformer: some of its gradients are zero, but for rounding (those of key biases)."""


class _Stopped(Exception):  # noqa: N818 (no error: the search takes over)
    """The closed form does not apply; the message says why, as a clause."""


@attack("peel")
class Peel(Attack):
    """Solves for the image of a batch of one; where that fails, the search `inverting-gradients` takes over.

    The search starts from the image that was found, if there is one. In a residual network, features are
    solved for, and the image is searched for from these. In a vision transformer, its patches are solved for.

    Attributes:
        iterations: of that search.
        engine: backend of that search.
    """

    iterations: int = shared.iterations(1500)
    engine: str = "auto"

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`; `note` says why where the search took over."""
        try:
            first, image, determined, expected = peeled(task.release, task.knowledge)
        except _Stopped as stop:
            knowledge, why = task.knowledge, f"The closed form did not apply, because {stop}"
            if _refused(task.release):
                return self.searched(task, why)
            if blocks := residual.read(knowledge.model, knowledge.image_shape):
                return self.through(task, blocks)
            if cut := embedding.read(knowledge.model, knowledge.image_shape):
                return self.unpatched(task, cut, why)
            return self.searched(task, why)
        return self.checked(task, image, first, "" if determined else UNDETERMINED.format(expected))

    def checked(
        self, task: Task, image: Tensor, first: str, note: str, negligible: float = NEGLIGIBLE
    ) -> Reconstruction:
        """The image if it explains the release; else that or what a search from there finds.

        Args:
            task: see `Attack.run`.
            image: float32 [1, C, H, W] in [0, 1], on the CPU.
            first: see `unexplained`.
            note: why the image may be wrong though it explains the release; empty for a certified one.
            negligible: see `unexplained`.
        """
        left = unexplained(task.release, task.knowledge, first, image, negligible)
        if left <= CERTAIN:
            return self.solved(task, image, left, note)
        why = f"The closed form's image leaves {left:.1g} of the release unexplained"
        found = self.searched(replace(task, guess=image.to(task.device)), why)
        other = unexplained(task.release, task.knowledge, first, found.images, negligible)
        if other <= left:
            return replace(found, residual=torch.tensor([other]))
        note = f"{why}; a search from there explained less, so this image was kept."
        return replace(found, images=image.to(task.device), residual=torch.tensor([left]), note=note)

    def wants(self) -> frozenset[str]:
        """See `Attack.wants`; the closed form and the search have a prior."""
        return super().wants() | {"image_statistics"}

    def through(self, task: Task, blocks: tuple[residual.Block, ...]) -> Reconstruction:
        """The image of a residual network: features in closed form, then a search for the image from them."""
        release, knowledge, history = task.release, task.knowledge, []
        statistics = knowledge.image_statistics
        mean, _ = channel_statistics(knowledge, torch.zeros(1, dtype=torch.float64))
        start = mean.expand(1, *knowledge.image_shape).contiguous()
        if statistics is not None and statistics.mean_image.shape == start.shape[1:]:
            start = statistics.mean_image[None].double().cpu()
        steps = max(1, self.iterations // COST)

        def progress(done: int, value: float) -> None:
            history.append(value)
            task.progress(COST * done, self.evaluations(), value)

        found, why = pooled.image(
            knowledge, blocks, _exactly(release), task.generator, start, steps, progress
        )
        if found is None:
            return self.searched(task, f"The closed form did not apply, because {why}")
        left = unexplained(release, knowledge, "fc", found.image)
        certified = False
        if left <= CERTAIN:
            near = found.image + PUSH * task.noise(*start.shape).double().cpu()
            certified = float((found.again(near) - found.image).square().mean().sqrt()) <= DETERMINED
        answer = self.solved(task, found.image.float(), left, "")
        note = (
            f"The features of `{found.block}` follow from the release; the image is searched for from them."
        )
        return replace(
            answer,
            start=start.float().to(task.device),
            iterations=steps,
            history=tuple(history),
            certified=torch.tensor([certified]),
            note=note,
        )

    def unpatched(self, task: Task, cut: embedding.Embedding, why: str) -> Reconstruction:
        """The image of a vision transformer, put together from its patches."""
        release, knowledge, gradients = task.release, task.knowledge, _exactly(task.release)
        if missing := [name for name in (cut.position, cut.weight) if name not in gradients]:
            return self.searched(task, f"{why}, and the gradient of `{missing[0]}` was not released")
        found = patches.solved(cut, gradients, patches.prior_of(knowledge), task.generator)
        if found is None:
            return self.searched(task, f"{why}, and the gradient of `{cut.position}` is zero")
        image = found.image[None].clamp(0, 1).float()
        determined = not found.open and found.expected <= DETERMINED
        try:
            head = last_layer(release, knowledge.num_classes)[1].removesuffix(".bias")
        except InputError:
            return self.solved(task, image, torch.nan, UNCHECKED)
        note = "" if determined else UNDETERMINED.format(found.expected)
        return self.checked(task, image, head, note, ROUNDED)

    def solved(self, task: Task, image: Tensor, left: float, note: str) -> Reconstruction:
        """An image that explains the release; with a note it is not certified, because others may do so."""
        labels, source = label_rules.given_or_inferred(task.release, task.knowledge)
        mean = torch.tensor(task.knowledge.mean, device=task.device)[:, None, None]
        return Reconstruction(
            images=image.to(task.device),
            labels=labels,
            label_source=source,
            gradient_distance=left,
            start=mean.expand_as(image).contiguous(),
            iterations=1,
            seconds=task.seconds(),
            engine="none",
            certified=torch.tensor([not note]),
            residual=torch.tensor([left]),
            note=note,
        )

    def searched(self, task: Task, why: str) -> Reconstruction:
        """The search's answer."""
        found = InvertingGradients(iterations=self.iterations, engine=self.engine).run(task)
        count = task.release.batch_size
        return replace(
            found,
            certified=torch.zeros(count, dtype=torch.bool),
            residual=torch.full((count,), torch.nan),
            note=f"{why}; the search took over. {found.note}".rstrip(),
        )


def peeled(release: Release, knowledge: Knowledge) -> tuple[str, Tensor, bool, float]:
    """The image, and how well the release determines it.

    Returns:
        The name of the layer that it was solved from; float32 [1, C, H, W] in [0, 1] on the CPU; whether the
        release alone determines it; its expected error, root mean square.

    Raises:
        _Stopped: where there is no closed form.
    """
    if why := _refused(release):
        raise _Stopped(why)
    chain = read(knowledge.model, knowledge.image_shape)
    gradients = _exactly(release)
    first = _first(chain, gradients)
    try:
        pixels = backwards(chain, first, gradients, prior_of(chain, knowledge))
    except TooLargeError:
        raise _Stopped("the image has too many pixels for it") from None
    except (ArithmeticError, torch.linalg.LinAlgError):
        raise _Stopped("its equations cannot be solved in float64") from None
    shape = (1, *knowledge.image_shape)
    expected = float(pixels.deviations.square().mean().sqrt())
    determined = expected <= DETERMINED and pixels.believed < BELIEVED
    image = pixels.values.view(shape).nan_to_num().clamp(0, 1).float()
    return chain.blocks[first].layer.name, image, determined, expected


def _refused(release: Release) -> str:
    """Why no closed form takes this release, as a clause; empty if that depends on the model."""
    if release.batch_size != 1:
        return f"it takes one image, and the batch has {release.batch_size}"
    inexact = [stage.name for stage in release.defense if stage.name not in EXACT]
    return f"it needs exact gradients, and {inexact[0]} changes them" if inexact else ""


def _exactly(release: Release) -> dict[str, Tensor]:
    """The gradients by name, float64 on the CPU."""
    found = zip(release.names, release.gradients, strict=True)
    return {name: gradient.detach().cpu().double() for name, gradient in found}


def _first(chain: Chain, gradients: Mapping[str, Tensor]) -> int:
    """Index of the layer whose bias gradient is the delta that all others follow from."""
    for i, block in enumerate(chain.blocks):
        layer = block.layer
        if f"{layer.name}.weight" not in gradients:
            raise _Stopped(f"the gradient of `{layer.name}` was not released")
        if layer.dense and f"{layer.name}.bias" in gradients:
            if not bool(gradients[f"{layer.name}.bias"].any()):
                raise _Stopped(f"the gradient of `{layer.name}` is zero")
            return i
    where = f", and this one ends at {chain.end}" if chain.end else ""
    raise _Stopped(
        "it needs a chain of convolutions and activations up to a fully connected layer with a bias" + where
    )


def prior_of(chain: Chain, knowledge: Knowledge) -> Images | None:
    """What public images say of the first layer's inputs; None where there are no statistics that fit."""
    statistics, shape = knowledge.image_statistics, torch.Size(knowledge.image_shape)
    if (
        statistics is None
        or statistics.mean_image.shape != shape
        or not all(isinstance(step, Affine) for step in chain.head)
    ):
        return None
    if chain.blocks[0].layer.input_shape != tuple(shape):
        return None
    gain, offset = torch.ones(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    for step in chain.head:
        gain, offset = gain * step.gain.view(shape), offset * step.gain.view(shape) + step.offset.view(shape)
    return Images(statistics, gain, offset)


def backwards(
    chain: Chain, first: int, gradients: Mapping[str, Tensor], prior: Prior | None = None
) -> Estimate:
    """The image [C * H * W] that layer number `first` and those before it were given; not clamped."""
    layer = chain.blocks[first].layer
    delta = gradients[f"{layer.name}.bias"]
    values = Estimate(torch.zeros_like(delta), torch.full_like(delta, torch.inf))
    for i in range(first, -1, -1):
        layer = chain.blocks[i].layer
        gradient = gradients[f"{layer.name}.weight"].view(layer.weight.shape)
        values = inputs(layer, delta, gradient, values, None if i else prior)
        delta = layer.transposed(delta.view(1, *layer.output_shape)).flatten()
        before = chain.blocks[i - 1] if i else None
        total = gradients.get(f"{before.layer.name}.bias") if before else None
        values, delta = undone(before.pointwise if before else chain.head, values, delta, total)
    return values
