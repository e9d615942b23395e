"""The attack `peel`: one image in closed form.

A chain of layers is solved from a fully connected layer back to the pixels (`backwards`), a residual network
with global average pooling in part (`residual`, `pooled`), and a vision transformer with a learned position
embedding by its patches (`patches`).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from attacks import labels as label_rules
from attacks import parameters as shared
from attacks.base import Attack, Task, attack, channel_statistics
from attacks.exact import embedding, patches, pooled, residual
from attacks.exact.backwards import DETERMINED, Stopped, exactly, peeled, refused
from attacks.exact.explained import CERTAIN, NEGLIGIBLE, unexplained
from attacks.exact.last_layer import last_layer
from attacks.inverting_gradients import InvertingGradients
from attacks.reading import as_it_was
from dpbench.protocol import InputError, Reconstruction

UNDETERMINED = "The image explains the release, and so may others: expect an error of {:.1g} of the range."
UNCHECKED = "No bias of the last layer was sent, so whether the image explains the release was not checked."
COST = 3
"""Iterations of the default search that take as long as one conjugate gradient."""
PUSH = 0.03
"""Standard deviation of the noise that is added to an image to see whether a search comes back to it."""
ROUNDED = 1e-3
"""`negligible` of `unexplained` in a transformer, whose key biases have gradients of mere rounding."""


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
        task = replace(task, release=as_it_was(task.release))
        try:
            first, image, determined, expected = peeled(task.release, task.knowledge)
        except Stopped as stop:
            knowledge, why = task.knowledge, f"The closed form did not apply, because {stop}"
            if refused(task.release):
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

        found, why = pooled.image(knowledge, blocks, exactly(release), task.generator, start, steps, progress)
        if found is None:
            return self.searched(task, f"The closed form did not apply, because {why}")
        left = unexplained(release, knowledge, residual.head(knowledge.model)[0], found.image)
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
        release, knowledge, gradients = task.release, task.knowledge, exactly(task.release)
        if missing := [name for name in (cut.position, cut.weight) if name not in gradients]:
            return self.searched(task, f"{why}, and the gradient of `{missing[0]}` was not released")
        prior = patches.prior_of(knowledge)
        found = patches.solved(cut, gradients, prior, task.generator, task.progress)
        if found is None:
            return self.searched(task, f"{why}, and the gradient of `{cut.position}` is zero or no number")
        image = found.image[None].clamp(0, 1).float()
        determined = found.determined and found.expected <= DETERMINED
        try:
            head = last_layer(release, knowledge)[1].removesuffix(".bias")
        except InputError:
            return self.solved(task, image, torch.nan, UNCHECKED)
        note = "" if determined else UNDETERMINED.format(found.expected)
        return self.checked(task, image, head, note, ROUNDED)

    def solved(self, task: Task, image: Tensor, left: float, note: str) -> Reconstruction:
        """An image that explains the release; with a note it is not certified, because others may do so."""
        labels, source = label_rules.given_or_inferred(task.release, task.knowledge, tell=task.tell)
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
