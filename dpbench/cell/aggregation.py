"""The sum over several clients: what each of them sends, and what the attacker sees of it.

Secure aggregation (Bonawitz et al. 2017) lets the server see the sum and no single term. A release is then
the mean over n clients of B images each, which is the gradient of the mean loss over all n B of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

import defenses
from dpbench import privacy
from dpbench.cell import parts
from dpbench.cell.scene import Scene
from dpbench.cell.spec import Cell
from dpbench.protocol import ORACLES, Guarantee, InputError, Release
from dpbench.victim.batch_norm import has_batch_norm

NO_NOISE = "The server adds the noise, so it has seen this sum without any."
"""The note of rows whose attacker is the server that adds the noise."""


def clients_of(cell: Cell) -> list[defenses.Chain]:
    """What each client does to its own batch, the attacked client first.

    Noise that the server adds before the attacker sees the sum counts with the first client.

    Raises:
        InputError: as `parts.defence_of`.
    """
    count, chain = cell.batch.clients, parts.of_one_client(cell)
    if count == 1 or not parts.is_calibrated(cell.defence.name):
        return [chain] * count
    if parts.hides_noise(cell):
        return [_without_noise(chain)] * count
    shares = parts.aggregation_of(cell).of_each(chain.stages[0].noise_multiplier, count)
    return [_with_noise(chain, sigma) for sigma in shares]


def seen(cell: Cell) -> defenses.Chain:
    """The defence whose release of all clients' images the attacker sees.

    Raises:
        InputError: as `parts.defence_of`.
    """
    chain = parts.defence_of(cell)
    return _without_noise(chain) if parts.hides_noise(cell) else chain


def check(cell: Cell, scene: Scene) -> None:
    """InputError where what is asked for is not known of a sum over clients."""
    if cell.batch.clients == 1:
        return
    if parts.threat_of(cell).local(scene.of_each_client) is not None:
        raise InputError(
            "A sum over `clients` is attacked as one gradient, and local steps are each client's own: leave "
            "out `clients` or `local_epochs`."
        )
    if cell.told.bn_stats in ORACLES:
        raise InputError(
            "Exact and recovered `bn_stats` are those of one client's batch: with several `clients`, use "
            "running ones."
        )
    if scene.victim.model.training and has_batch_norm(scene.victim.model):
        raise InputError(
            "Batch norm in training mode ties each client's images together, which no attack on their sum "
            "knows of: call .eval() on the model, or leave out `clients`."
        )


def mean(releases: Sequence[Release], cell: Cell) -> Release:
    """One release of each client as the one that the attacker sees; a single one is left as it is."""
    first, *others = releases
    if not others:
        return first
    gradients = tuple(
        torch.stack(same).mean(0) for same in zip(*(each.gradients for each in releases), strict=True)
    )
    return replace(
        first,
        gradients=gradients,
        batch_size=sum(each.batch_size for each in releases),
        defense=tuple(stage.stage() for stage in seen(cell).stages),
        clients=len(releases),
    )


def eps_client(cell: Cell, guarantee: Guarantee | None) -> float | None:
    """Epsilon of what one client sends, which holds if the aggregation fails and the server sees each one.

    None where there is one client, no guarantee, or noise that the client does not add itself.
    """
    count = cell.batch.clients
    central = parts.is_calibrated(cell.defence.name) and parts.aggregation_of(cell).noise == "central"
    if count == 1 or guarantee is None or central:
        return None
    threat = parts.threat_of(cell).values()
    releases, inclusion = threat["releases"], threat.get("inclusion", 1.0)
    sigma = guarantee.noise_multiplier / math.sqrt(count)
    if inclusion == 1:  # all releases are one, whose noise may be correlated
        first = parts.of_one_client(cell).stages[0]
        sigma, releases = sigma / first.sensitivity(releases), 1
    return privacy.epsilon(sigma, guarantee.delta, inclusion, releases)


def _with_noise(chain: defenses.Chain, sigma: float) -> defenses.Chain:
    if not sigma:
        return _without_noise(chain)
    first, *others = chain.stages
    return defenses.Chain((replace(first, noise_multiplier=sigma, guarantee=None), *others))


def _without_noise(chain: defenses.Chain) -> defenses.Chain:
    first, *others = chain.stages
    clip = defenses.create("clip", max_grad_norm=first.max_grad_norm, unit=first.unit)
    return defenses.Chain((*clip.stages, *others))
