"""Which module is to blame, in words."""

from __future__ import annotations

from textwrap import shorten

from torch import nn

ADVICE = "replace it, or use a defence that does not clip each sample"
TWINS = {
    nn.MultiheadAttention: "DPMultiheadAttention",
    nn.LSTM: "DPLSTM",
    nn.GRU: "DPGRU",
    nn.RNN: "DPRNN",
}
"""What Opacus has in place of layers that its hooks refuse by design."""


class UnfitError(Exception):
    """One way to per-sample gradients does not suit this model; another may."""


class RefusedError(UnfitError):
    """It says so itself, so that nobody takes what it gives for right."""


def named(model: nn.Module, module: nn.Module) -> str:
    """`module` by its name in `model` and its type."""
    names = {id(m): name for name, m in model.named_modules()}
    return f"{names.get(id(module)) or 'the model'} ({type(module).__name__})"


def owner(model: nn.Module, parameter: str) -> str:
    """The module of `model` that owns the parameter of that name."""
    return named(model, model.get_submodule(parameter.rpartition(".")[0]))


def culprit(error: BaseException, model: nn.Module) -> str:
    """The innermost module of `model` that was at work when `error` was raised."""
    known = {id(module) for module in model.modules()} - {id(model)}
    found, trace = "a module of this model", error.__traceback__
    while trace is not None:
        for variable in ("self", "module", "layer"):
            module = trace.tb_frame.f_locals.get(variable)
            if isinstance(module, nn.Module) and id(module) in known:
                found = named(model, module)
        trace = trace.tb_next
    return found


def in_brief(error: BaseException) -> str:
    """The first line of what `error` says, or its first words."""
    return shorten((str(error) or type(error).__name__).splitlines()[0], 120, placeholder=" ...")


def advice(model: nn.Module) -> str:
    """What to do about a model without per-sample gradients."""
    twins = sorted({twin for m in model.modules() for kind, twin in TWINS.items() if isinstance(m, kind)})
    return ADVICE + "".join(f", or use opacus.layers.{twin}" for twin in twins)
