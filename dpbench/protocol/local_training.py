"""What a client of federated averaging does before it sends its update: several steps of plain SGD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from operator import index

import torch
from torch import Tensor, nn

from dpbench.protocol.errors import InputError
from dpbench.protocol.sent import bare

Weights = Mapping[str, Tensor]
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class LocalTraining:
    """The local training of FedAvg (McMahan et al. 2017), as the server that asked for it knows it.

    Every epoch goes through the images in the same order: step k of an epoch takes the k-th `batch_size` of
    them, and the last step whatever is left.

    Attributes:
        epochs: E, passes over the client's images.
        batch_size: images in each local step.
        lr: learning rate of plain SGD, without momentum or weight decay.

    Example:
        >>> LocalTraining(epochs=2, batch_size=2, lr=0.1).batches(3)
        (slice(0, 2, None), slice(2, 3, None), slice(0, 2, None), slice(2, 3, None))
    """

    epochs: int
    batch_size: int
    lr: float

    def batches(self, images: int) -> tuple[slice, ...]:
        """The places of each step's images among all `images` of the client, step by step."""
        size = self.batch_size
        one = tuple(slice(i, min(i + size, images)) for i in range(0, images, size))
        return one * self.epochs

    def steps(self, images: int) -> int:
        """K, how many steps that makes."""
        return len(self.batches(images))

    def length(self, images: int) -> float:
        """The product lr K: by it a weight difference is divided to give the mean gradient of the steps."""
        return self.lr * self.steps(images)

    @classmethod
    def of_steps(cls, steps: int, batch_size: int, lr: float, images: int) -> LocalTraining:
        """The local training of so many steps.

        Raises:
            InputError: for numbers that make no training, or steps that end in the middle of an epoch.
        """
        steps, batch_size = counted("local_steps", steps), counted("batch_size", batch_size)
        images = counted("images", images)
        if isinstance(lr, bool) or not isinstance(lr, Real) or not lr > 0 or lr == float("inf"):
            raise InputError(f"`lr` must be a number above 0, not {lr!r}.")
        batch_size = min(batch_size, images)
        epoch = -(-images // batch_size)
        if steps % epoch:
            raise InputError(
                f"An epoch over {images} images has {epoch} steps of {batch_size}, and `local_steps` is "
                f"{steps}: give the number of `images` that the client went through, or whole epochs."
            )
        return cls(steps // epoch, batch_size, lr)


def counted(name: str, value: int) -> int:
    """`value` as a plain integer.

    Raises:
        InputError: for one below 1, or something that is no whole number, such as text from a file.
    """
    try:
        count = 0 if isinstance(value, bool) else index(value)
    except TypeError:
        count = 0
    if count < 1:
        raise InputError(f"`{name}` must be 1 or more, a whole number, not {value!r}.")
    return count


def update_of(before: nn.Module | Weights, after: nn.Module | Weights) -> dict[str, Tensor]:
    """Weights before minus weights after, in single precision, of every parameter that trains.

    Args:
        before: the model that the server sent out, or its state dict.
        after: the model that came back, or its state dict.

    Raises:
        InputError: for other names or shapes, weights that are not finite or did not change, and for buffers
            or frozen parameters that changed.
    """
    first, second = _state(before), _state(after)
    if first.keys() != second.keys():
        name = sorted(first.keys() ^ second.keys())[0]
        raise InputError(f"`before` and `after` do not hold the same weights: only one of them has {name}.")
    constant = _constant(before, first) | _constant(after, second)
    update = {}
    for name, old in first.items():
        new = second[name].to(old.device)
        if old.shape != new.shape:
            raise InputError(
                f"{name} is {list(old.shape)} in `before` and {list(new.shape)} in `after`: give the same "
                "network twice."
            )
        if name in constant:
            if not torch.equal(old, new):
                raise _changed(name, constant[name])
            continue
        update[name] = old.double() - new.double()
        if not bool(update[name].isfinite().all()):
            raise InputError(f"{name} is not finite: the local training diverged, use a smaller `lr`.")
    if not any(bool(each.any()) for each in update.values()):
        raise InputError("No weight differs between `before` and `after`: nothing was trained.")
    return update


def _state(given: nn.Module | Weights) -> dict[str, Tensor]:
    """Detached weights and buffers by name, without what wrappers put around the model."""
    weights = bare(given).state_dict() if isinstance(given, nn.Module) else given
    try:
        return {name: torch.as_tensor(values).detach() for name, values in weights.items()}
    except (AttributeError, TypeError, ValueError, RuntimeError):
        raise InputError(
            "Weights are given as a model or as its state dict, a tensor or an array for each name: load a "
            "file first, and name a list of arrays by dict(zip(model.state_dict(), arrays))."
        ) from None


def _constant(given: nn.Module | Weights, state: Weights) -> dict[str, str]:
    """What is not trained, and what it is; of a state dict only batch norm's statistics are known by name."""
    if isinstance(given, nn.Module):
        model = bare(given)
        frozen = {name: "parameter" for name, p in model.named_parameters() if not p.requires_grad}
        return frozen | {name: "buffer" for name, _ in model.named_buffers()}
    return {
        name: "buffer"
        for name, tensor in state.items()
        if name.rpartition(".")[2] in _STATISTICS or not tensor.is_floating_point()
    }


def _changed(name: str, kind: str) -> InputError:
    if kind == "parameter":
        return InputError(f"The parameter {name} is frozen and changed all the same: set its requires_grad.")
    return InputError(
        f"The buffer {name} changed in the local training, and a release holds weights only. Batch-norm "
        "statistics give away more of the images than weights do: train with batch norm in evaluation mode."
    )
