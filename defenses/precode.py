"""PRECODE: the client trains a network whose last layer sees features through a random code."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from defenses.base import Aggregator, Gradients, defense, mean_gradient, read_shares
from defenses.copies import untouched
from dpbench.protocol import (
    BottleneckHead,
    InputError,
    Loss,
    Reading,
    Release,
    WithDivergence,
    bottleneck_head,
    parameter,
)

ENCODER = "bottleneck.encoder.weight"
"""How the name of the bottleneck's first weight ends."""

ROUNDING = 1e-5
"""Relative error of a sum of samples' gradients in float32, more rather than less."""
LEAST = 1e-100
"""Keeps a release of zeros from being divided by."""


@defense("precode")
class Precode(Aggregator):
    """A variational bottleneck before the last layer, its noise drawn anew for each gradient (Scheliga 2022).

    It changes the network, not the gradient: the features become a random code of `precode_width` entries and
    are decoded from it again, and the loss gets `precode_beta` times the codes' divergence from N(0, I). The
    server knows this network and its weights; the client alone knows the noise. Nothing is clipped and the
    noise has a learnt level: no guarantee.

    Attributes:
        precode_width: entries of a code, 1 or more.
        precode_beta: weight of a nat of divergence in the loss, 0 or more.

    Raises:
        InputError: for a value outside its range.
    """

    repeatable = True
    precode_width: int = parameter(
        256, "width of the random code that precode puts before the last layer", symbol="width", at_least=1
    )
    precode_beta: float = parameter(
        1e-3,
        "weight of the divergence of precode's codes from N(0, I) in the loss",
        symbol="β",
        at_least=0,
    )

    def victim(self, model: nn.Module, loss: Loss) -> tuple[nn.Module, Loss]:
        """The network with a bottleneck of fresh weights; one that has a bottleneck is returned as it is.

        Raises:
            InputError: for a network without a fully connected layer, or with a bottleneck of another width.
        """
        if (found := bottleneck_head(model)) is not None:
            if found[1].bottleneck.width != self.precode_width:
                raise InputError(
                    f"The network has a bottleneck of width {found[1].bottleneck.width} already: use "
                    "precode with that `precode_width`."
                )
            return model, loss
        model = nn.Sequential(untouched(model)) if isinstance(model, nn.Linear) else untouched(model)
        names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
        if not names:
            raise InputError(
                "precode puts a bottleneck before a last fully connected layer, and this model has none: use "
                "another defence."
            )
        owner, _, place = names[-1].rpartition(".")
        linear = model.get_submodule(names[-1])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            head = BottleneckHead(linear, self.precode_width).train(linear.training)
        setattr(model.get_submodule(owner), place, head)
        return model, WithDivergence(loss, self.precode_beta)

    def aggregate(
        self, model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Gradients:
        """The gradient of one forward pass of `victim`'s network, with noise of its own.

        Raises:
            InputError: for a network that does something else with what its last layer returns.
        """
        _, head = bottleneck_head(model)
        check_last(model, head, images)
        like = head.bottleneck.decoder.weight
        shape = len(images), head.bottleneck.width
        head.bottleneck.noise = torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
        try:
            return mean_gradient(model, loss, images, labels)
        finally:
            head.bottleneck.noise = None

    def read(self, release: Release) -> Reading:
        """All tensors but those of the bottleneck and the last layer, which its noise reaches most.

        It is the answer to noise that cannot be read from the release (Scheliga et al. 2023).
        """
        (head,) = (name.removesuffix(ENCODER) for name in release.names if name.endswith(ENCODER))
        shares = [
            torch.full_like(g, float(not name.startswith(head)))
            for name, g in zip(release.names, release.gradients, strict=True)
        ]
        return read_shares(release, shares)

    def log_likelihood(self, release: Release, gradients: Gradients) -> Tensor:
        """Of a release where the gradient at the mean codes was `gradients`, but for what is common to all.

        The encoder's weight gradient is a sum of one multiple of each sample's features for each of its
        outputs. So whatever the noise, the features of the samples span its rows, and a sample that is not
        there to be seen is not in it. Where any features do, the distance to `gradients` decides.
        """
        (place,) = (i for i, name in enumerate(release.names) if name.endswith(ENCODER))
        sent, mean = release.gradients[place].double(), gradients[place].double()
        mixtures = torch.randn(
            len(mean), min(release.batch_size, *mean.shape), generator=torch.Generator().manual_seed(0)
        )
        basis, sizes, _ = torch.linalg.svd(mean.T @ mixtures.to(mean), full_matrices=False)
        basis = basis[:, sizes > ROUNDING * sizes[0]]
        outside = (sent - sent @ basis @ basis.T).norm() / sent.norm().clamp_min(LEAST)
        pairs = list(zip(release.gradients, gradients, strict=True))
        apart = sum((s.double() - g.double()).square().sum() for s, g in pairs)
        apart = apart / sum(s.double().square().sum() for s, _ in pairs).clamp_min(LEAST)
        # what is outside is rounding, and would be so along one direction fewer, too
        unlikely = basis.shape[1] * len(mean) * math.log(1 / ROUNDING)
        return -(outside / ROUNDING).square() / 2 - unlikely - apart / 2


def check_last(model: nn.Module, head: BottleneckHead, images: Tensor) -> None:
    """InputError unless the head takes features [B, F], runs once, and ends the network."""
    outputs: list[Tensor] = []
    hook = head.register_forward_hook(lambda _, given, output: outputs.append(output))
    try:
        with torch.no_grad():
            returned = model(images[:1])
    finally:
        hook.remove()
    if len(outputs) != 1 or outputs[0].ndim != 2 or not torch.equal(outputs[0], returned):
        raise InputError(
            "precode needs a network that returns what its last fully connected layer makes of features "
            "[B, F], used once: use another defence for this model."
        )
