"""What a defence makes of the gradient of one step: Opacus clips samples, all else is as it is registered."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from opacus import GradSampleModule, PrivacyEngine
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from defenses import Aggregator, Chain
from defenses.checks import check_handed_back
from defenses.copies import untouched
from defenses.per_sample.trained import check_trained
from dpbench.protocol import InputError, Loss

ENTRIES = 2**26
"""Of per-sample gradients that are held at a time: 256 MB."""
CLIPPED = ("clip", "dp")
"""First stages that Opacus trains under."""
Step = Callable[[Tensor, Tensor], None]
"""(images, labels) of one batch -> the optimiser has made its step."""


def steps(
    chain: Chain,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    sampler: UniformWithReplacementSampler,
    batch_size: int,
    generator: torch.Generator,
    loss: Loss = F.cross_entropy,
) -> Step:
    """One step of training under a defence, again and again.

    The released gradient is the sum over the batch, divided by the expected batch, whatever its actual size.
    A first stage sees each sample's gradient; the other stages see the released gradient, as in an attack.

    Args:
        chain: the defence, calibrated where it has a budget.
        model: in training mode, on its device.
        optimizer: of its trainable parameters.
        sampler: what draws the batches.
        batch_size: the expected batch.
        generator: of the defence's noise, on the model's device.
        loss: mean-reduced; of stages that see each sample's gradient, other than Opacus'.

    Raises:
        InputError: for a model that has no per-sample gradients, where the defence needs them. Its steps
            raise one for a later stage that fails, or hands back something else than gradients of the model.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    stages = list(chain.stages)
    first = stages.pop(0) if stages and isinstance(stages[0], Aggregator) else None
    streams = [partial(_handed_back, stage.name, stage.stream(generator), trained) for stage in stages]
    if first is not None and first.name in CLIPPED:
        private = Private(first, model, optimizer, sampler, batch_size, generator)
        gradients: Callable = private
    elif first is not None:
        gradients = partial(_aggregated, first, loss, model, trained, batch_size, generator)
    else:
        gradients = partial(_plain, model, trained, batch_size)

    def step(images: Tensor, labels: Tensor) -> None:
        released = gradients(images, labels)
        for stream in streams:
            released = stream(released)
        for p, gradient in zip(trained, released, strict=True):
            p.grad = gradient
        optimizer.step()

    return step


def _plain(
    model: nn.Module, trained: list[nn.Parameter], batch_size: int, images: Tensor, labels: Tensor
) -> tuple[Tensor, ...]:
    """The gradient with nothing done to it."""
    if not len(images):
        return tuple(torch.zeros_like(p) for p in trained)
    loss = F.cross_entropy(model(images), labels, reduction="sum") / batch_size
    return torch.autograd.grad(loss, trained, materialize_grads=True)


def _aggregated(
    stage: Aggregator,
    loss: Loss,
    model: nn.Module,
    trained: list[nn.Parameter],
    batch_size: int,
    generator: torch.Generator,
    images: Tensor,
    labels: Tensor,
) -> tuple[Tensor, ...]:
    """What a stage makes of the batch, which it divides by its actual size."""
    if not len(images):
        return tuple(torch.zeros_like(p) for p in trained)
    found = stage.aggregate(model, loss, images, labels, generator)
    check_handed_back(stage.name, found, [p.shape for p in trained])
    return tuple(g * (len(images) / batch_size) for g in found)


def _handed_back(
    name: str, stream: Callable, trained: list[nn.Parameter], gradients: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """What a later stage makes of a gradient; whatever breaks here is the stage's fault, not the model's."""
    try:
        found = stream(gradients)
        check_handed_back(name, found, [p.shape for p in trained])
    except InputError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise InputError(f"{name} fails in training ({reason}).") from error
    return found


class Private:
    """Gradients of clipped samples, and noise, by Opacus' `PrivacyEngine`.

    Attributes:
        engine: whose accountant notes every step, with the exact sample rate.
        optimizer: Opacus', which clips, adds the noise and divides.

    What Opacus clips is compared with each sample's own gradient before steps 1, 2, 4, 8, ...: a layer may
    mix samples only once its weights have moved.
    """

    def __init__(
        self,
        stage: Aggregator,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        sampler: UniformWithReplacementSampler,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        self.engine = PrivacyEngine(accountant="rdp")
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._ghost = _all_linear(model)
        self._trains, self._copy, self._batches = model, untouched(model), 0
        nothing = torch.empty(sampler.num_samples, 0)  # the images are drawn by the sampler's numbers
        try:
            made = self.engine.make_private(
                module=model,
                optimizer=optimizer,
                data_loader=DataLoader(torch.utils.data.TensorDataset(nothing), batch_sampler=sampler),
                noise_multiplier=stage.noise_multiplier,
                max_grad_norm=stage.max_grad_norm,
                # the sampler is Poisson's already: `make_private` would round the rate to one over a whole
                # number of batches, which is another rate than the guarantee's
                poisson_sampling=False,
                noise_generator=generator,
                grad_sample_mode="ghost" if self._ghost else "hooks",
                criterion=nn.CrossEntropyLoss(),
            )
        except (NotImplementedError, ValueError, TypeError) as error:  # what Opacus refuses
            raise InputError(_refusal(stage.name, error)) from error
        self._model, self.optimizer, *rest = made
        self._loss = rest[0] if self._ghost else F.cross_entropy
        self.optimizer.expected_batch_size = batch_size
        self.optimizer.attach_step_hook(
            self.engine.accountant.get_optimizer_hook_fn(sample_rate=sampler.sample_rate)
        )
        self._chunk = max(1, ENTRIES // max(1, sum(p.numel() for p in self._trained)))
        self._name = stage.name

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """The noisy mean of the clipped gradients of one batch, which may be empty."""
        self.optimizer.zero_grad()
        if not len(images):
            for p in self._trained:
                p.grad, p.grad_sample = torch.zeros_like(p), p.new_zeros(0, *p.shape)
            self.optimizer.pre_step()
            return tuple(p.grad for p in self._trained)
        self._batches += 1
        if self._batches.bit_count() == 1:  # a power of two
            self._copy.load_state_dict(self._trains.state_dict())  # a copy, as Opacus' hooks sit in the model
            check_trained(self._copy, F.cross_entropy, images, labels)
        chunk = len(images) if self._ghost else self._chunk
        parts = list(zip(images.split(chunk), labels.split(chunk), strict=True))
        for i, (some, their) in enumerate(parts):
            if i:
                self.optimizer.zero_grad()  # leaves the sum of the chunks before
            self.optimizer.signal_skip_step(i + 1 < len(parts))
            try:
                self._loss(self._model(some), their).backward()
                self.optimizer.pre_step()
            except (ValueError, AttributeError) as error:  # a parameter without per-sample gradients
                raise InputError(_refusal(self._name, error)) from error
        return tuple(p.grad for p in self._trained)


def check_private(chain: Chain, model: nn.Module | None) -> None:
    """InputError for a model that Opacus does not train under `chain`; None is one that it does."""
    if model is not None and chain.stages and chain.stages[0].name in CLIPPED:
        try:
            ModuleValidator.validate(model.train(), strict=True)
            GradSampleModule.validate(model, strict=True)
        except (NotImplementedError, ValueError) as error:
            raise InputError(_refusal(chain.stages[0].name, error)) from error


def _all_linear(model: nn.Module) -> bool:
    """Whether ghost clipping needs no per-sample gradient of any layer: all that train are linear."""
    owners = [m for m in model.modules() if any(p.requires_grad for p in m.parameters(recurse=False))]
    return all(type(owner) is nn.Linear for owner in owners)


def _refusal(name: str, error: Exception) -> str:
    given = error.args[0] if error.args else ""
    first = str(given[0] if isinstance(given, list) and given else given)  # Opacus gives one for each layer
    sentence = first.partition("\n")[0].partition(". ")[0][:160].rstrip(". ")
    reason = sentence or type(error).__name__
    return (
        f"This model cannot be trained under {name}, which needs each sample's gradient ({reason}): replace "
        "the layer, for instance batch norm by GroupNorm."
    )
