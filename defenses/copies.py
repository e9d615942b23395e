"""The copy of a victim that every defence works on, in one mode and one precision for all of them."""

from __future__ import annotations

import copy
from collections import OrderedDict

from torch import Tensor, nn

from dpbench.protocol import InputError

_CONTAINERS = (dict, OrderedDict, set, list)


def untouched(model: nn.Module) -> nn.Module:
    """A copy to work on, in the same modes: forward passes in training mode would change the victim.

    Raises:
        InputError: for a model that cannot be copied.
    """
    # a module has a dozen empty containers, on which deepcopy spends most of its time
    held = [value for module in model.modules() for value in vars(module).values()]
    known = {id(c): type(c)() for c in held if type(c) in _CONTAINERS and not c}
    # what a forward pass left behind, as weights that pruning or weight norm computes in each of them
    known |= {id(t): t.detach().clone() for t in held if isinstance(t, Tensor) and t.grad_fn is not None}
    try:
        return copy.deepcopy(model, known)
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(
            f"The model cannot be copied, as it has to be to leave it unchanged: remove what copy.deepcopy "
            f"refuses ({reason})."
        ) from error


def in_release_mode(model: nn.Module) -> nn.Module:
    """A copy of `model` in the mode that every defence, `none` included, takes gradients in.

    Dropout is off: a gradient under a random mask could be compared neither with another defence's nor by an
    attacker who does not know the mask. Only modules with buffers of their own, as batch norm with its
    statistics, keep the mode they are in.

    Raises:
        InputError: for a model that cannot be copied.
    """
    model = untouched(model)
    modes = [(m, m.training) for m in model.modules() if any(True for _ in m.buffers(recurse=False))]
    model.eval()
    for module, training in modes:
        module.training = training
    return model
