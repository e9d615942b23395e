"""Attacks that rebuild images from a released gradient.

>>> import attacks
>>> attacks.create("analytic", prior="none")
Analytic(prior='none', adaptive=True)
"""

from __future__ import annotations

from typing import Any

from attacks import (  # noqa: F401 (each registers its attack)
    analytic,
    deepinversion,
    dlg,
    feature_inversion,
    gradinversion,
    idlg,
    inverting_gradients,
    label_restoration,
    latent_projection,
    learned,
    lmmse,
    maximum_a_posteriori,
    posterior_mean,
    prior_aware,
)
from attacks.base import Attack, attacks
from attacks.exact import peel, spear  # noqa: F401


def create(name: str, **hyperparameters: Any) -> Attack:
    """The attack registered under `name`.

    Raises:
        InputError: for an unknown name (the message lists the known ones) or a value out of its range.
        TypeError: for a hyper-parameter that the attack does not have.
    """
    return kind(name)(**hyperparameters)


def kind(name: str) -> type[Attack]:
    """The class registered under `name`.

    Raises:
        InputError: for an unknown name; the message lists the known ones.
    """
    return attacks[name]


def names() -> tuple[str, ...]:
    """All registered attacks, third-party ones (entry points `dpbench.attacks`) included."""
    return tuple(attacks)


def threat_models(name: str) -> tuple[str, ...]:
    """The threat models of that attack, the usual one first; InputError for an unknown name."""
    return attacks[name].threat_models


__all__ = ["Attack", "create", "kind", "names", "threat_models"]
