"""One training under a defence, and the accuracy that comes of it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import Tensor, nn
from torch.nn import functional as F

from defenses import Chain
from dpbench.accuracy.data import Split, scaled
from dpbench.accuracy.update import steps
from dpbench.protocol import InputError, bottleneck_head
from dpbench.system import seeds

CHUNK = 500
"""Test images that are looked at together."""


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Attributes:
        accuracy: share of the test set that is classified right.
        seconds: of the training, without what was computed once for all trainings.
    """

    accuracy: float
    seconds: float


def train(
    build: Callable[[], nn.Module],
    chain: Chain,
    data: tuple[Split, Split],
    *,
    sampling: tuple[float, int],
    batch_size: int,
    learning_rate: float,
    seed: int,
    device: str,
    tell: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Trains a fresh model by Adam, with Poisson sampling, every step's gradient under the defence.

    Weights and batches of a seed are the same under every defence, so that accuracies compare in pairs.

    Args:
        build: makes the model, which takes what `data` holds and returns logits.
        chain: the defence, calibrated.
        data: training and test set.
        sampling: q, the chance of each sample to be in a batch, and the number of steps T.
        batch_size: the expected batch, which the sum of gradients is divided by.
        learning_rate: of Adam, constant.
        seed: decides weights, batches and noise.
        device: `cpu` or `cuda`.
        tell: is given the number of steps that are done.

    Raises:
        InputError: for a model that does not fit the data or the defence, and for weights that overflow.
    """
    (images, labels), test = data
    with (
        torch.random.fork_rng(devices=[torch.device(device)] if device == "cuda" else []),
        warnings.catch_warnings(),
    ):
        for message in ("Secure RNG turned off", "Full backward hook is firing"):  # as expected
            warnings.filterwarnings("ignore", message=message)
        model, loss = chain.victim(fresh(build, seed), F.cross_entropy)
        model = model.to(device).train()
        sampler = UniformWithReplacementSampler(
            num_samples=len(labels),
            sample_rate=sampling[0],
            generator=torch.Generator().manual_seed(seeds.seed("sampling", seed)),
            steps=sampling[1],
        )
        noise = torch.Generator(device).manual_seed(_noise_seed(chain, seed))
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], learning_rate)
        step = steps(chain, model, optimizer, sampler, batch_size, noise, loss)
        seconds, began = 0.0, time.monotonic()
        for done, drawn in enumerate(sampler, 1):
            chosen = torch.tensor(drawn, dtype=torch.long)
            step(scaled(images[chosen]).to(device), labels[chosen].to(device))
            seconds += time.monotonic() - began
            tell(done)
            began = time.monotonic()
        if not all(bool(p.isfinite().all()) for p in model.parameters()):
            raise InputError("The weights are no longer finite: give a smaller `learning_rate`.")
        return Outcome(accuracy(model, test, device), seconds)


def fresh(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The model as a training with that seed starts; sets PyTorch's random state."""
    torch.manual_seed(seeds.seed("weights", seed))
    return build()


def _noise_seed(chain: Chain, seed: int) -> int:
    """Independent for every defence and strength."""
    values = str([(stage.name, stage.values()) for stage in chain.stages])
    return seeds.seed("training noise", values, seed)


@torch.no_grad()
def accuracy(model: nn.Module, test: tuple[Tensor, Tensor], device: str = "cpu") -> float:
    """Share of the images that a model in evaluation mode classifies right, in [0, 1].

    Args:
        model: left in evaluation mode.
        test: images [N, ...] and labels [N].
        device: where the model is.
    """
    images, labels = test
    logits = slice(None) if bottleneck_head(model) is None else slice(-1)  # then comes the divergence
    model.eval()
    right = [
        (model(scaled(some).to(device))[:, logits].argmax(1).cpu() == their).sum()
        for some, their in zip(images.split(CHUNK), labels.split(CHUNK), strict=True)
    ]
    return int(sum(right)) / len(labels)
