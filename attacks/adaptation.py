"""How an objective answers a defence that the attacker knows."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from attacks.masked import Masked
from attacks.objectives import (
    Clipped,
    FittedScale,
    LayerL2,
    MatchedNorm,
    Objective,
    Simulated,
    SoftClamp,
    SquaredL2,
    dot,
)
from attacks.reading import reading_of
from dpbench.protocol import InputError, Release, defenses_registry

CLIPS = frozenset({"clip", "dp", "dp-ftrl"})
"""Stages that scale each sample's gradient."""
SCALED = CLIPS | {"local-dp"}
"""Stages that leave a release of unknown scale; `local-dp` clips that of the whole batch."""
EXACT = frozenset({"clip"})
"""Stages after which a single sample's gradient is right but for its scale."""
SPARSE = frozenset({"prune", "topk", "percentile", "soteria", "sparse-vector", "precode", "outpost"})
"""Stages that put in zeros which say little about the images."""
NOISY = frozenset({"dp", "dp-ftrl", "noise", "local-dp"})
"""Stages that add Gaussian noise of a known level."""
CLAMPS = {"percentile": "percentile_gamma", "sparse-vector": "svt_gamma", "sign": None}
"""Stages that forget how large large entries are, and which parameter says what they clamp to."""
ANSWERED = SPARSE | CLAMPS.keys()
"""Stages with an answer of ours where they are the last."""


def clip_norm(release: Release) -> float | None:
    """The least bound that was put on each sample's gradient norm; None without one.

    `local-dp` clips the mean of the batch, which bounds a sample's gradient where it is alone.

    Raises:
        InputError: where the sum over several samples was clipped (`unit` user), whose shares nobody knows.
    """
    if of_whole_clients(release):
        raise InputError(
            "This attack models clipping image by image, and `unit` user clips a client's whole sum: use "
            "`unit` record, `batch_size` 1, an `attack` such as inverting-gradients, or `label_rule` counts."
        )
    bounds = [float(s.parameters["max_grad_norm"]) for s in release.defense if s.name in CLIPS]
    if release.batch_size == 1:
        bounds += [float(s.parameters["clipping_norm"]) for s in release.defense if s.name == "local-dp"]
    return min(bounds, default=None)


def of_whole_clients(release: Release) -> bool:
    """Whether the sum over several samples was clipped, not each one's gradient."""
    by_user = any(stage.parameters.get("unit") == "user" for stage in release.defense)
    return by_user and release.batch_size > release.clients


def scaled(release: Release) -> bool:
    """Whether gradients were multiplied by factors that are not released."""
    return any(stage.name in SCALED for stage in release.defense)


def weighs(release: Release) -> bool:
    """Whether each of several samples' gradients was scaled by a factor of its own, which nobody tells."""
    clipped = any(stage.name in CLIPS for stage in release.defense)
    return clipped and release.batch_size > 1 and not of_whole_clients(release)


def mean_bound(release: Release) -> float | None:
    """The most that the norm of the released mean can be without its noise; None where nothing bounds it."""
    if not of_whole_clients(release):
        return clip_norm(release)
    bounds = [float(s.parameters["max_grad_norm"]) for s in release.defense if s.name in CLIPS]
    return min(bounds) * release.clients / release.batch_size


def answered(stage: str) -> bool:
    """Whether `adapt` has an answer to a last stage of that name."""
    if stage in ANSWERED or stage not in defenses_registry:
        return stage in ANSWERED
    kind = defenses_registry[stage]
    return hasattr(kind, "adapt") or hasattr(kind, "differentiable")


def adapts(stages: Sequence[str], kind: type[Objective]) -> bool:
    """Whether `adapt` has an answer for objectives of this kind to a defence of these stages.

    It depends on names alone, so that it can be said before anything is released.
    """
    return answered(stages[-1]) or (issubclass(kind, SquaredL2 | LayerL2) and not SCALED.isdisjoint(stages))


def adapt(objective: Objective, release: Release) -> Objective:
    """The objective adapted to the defence, as far as `adapts` says.

    Scale-free after clipping, where the objective sees a scale. If the last stage sparsifies, on the support,
    and what was left out for its size is held to that size; if it clamps or sends signs, after the same is
    done to the trial, smoothly, and a clip before it too. A
    defence from elsewhere is answered by its own `adapt(objective, release)`, or by its
    `differentiable(gradients)` on the trial. Noise changes no objective: the squared distance is its negative
    log-likelihood already, but for a factor. How large the noise is decides the weight of the prior beside
    it, which is not set here.
    """
    if not release.defense:
        return objective
    stages, last = {stage.name: stage for stage in release.defense}, release.defense[-1]
    clip = next((stage for stage in release.defense if stage.name in SCALED), None)
    if clip and isinstance(objective, SquaredL2 | LayerL2):
        norm = dot(release.gradients, release.gradients).sqrt()
        # One sample's release of a norm below C was not clipped: its norm is the gradient's own.
        untouched = clip.name == "clip" and release.batch_size == 1 and len(stages) == 1
        if not (untouched and norm < (1 - 1e-4) * clip.parameters["max_grad_norm"]):
            objective = FittedScale() if isinstance(objective, SquaredL2) else MatchedNorm(objective)
    if last.name in SPARSE:
        seen = reading_of(release)
        masks = [m.to(release.gradients[0].dtype) for m in support(release)]
        objective = Masked(objective, masks, None if seen is None else seen.bounds)
    if last.name in CLAMPS:
        clamp = CLAMPS[last.name]
        objective = SoftClamp(objective, None if clamp is None else last.parameters[clamp])
        if clamp is not None and clip is not None:  # what was clamped had been clipped before
            bound = "clipping_norm" if clip.name == "local-dp" else "max_grad_norm"
            objective = Clipped(objective, float(clip.parameters[bound]))
    if last.name not in ANSWERED and answered(last.name):
        stage = defenses_registry[last.name](**last.parameters)
        if hasattr(stage, "adapt"):
            return stage.adapt(objective, release)
        return Simulated(objective, stage)
    return objective


def support(release: Release) -> list[Tensor]:
    """What share of each gradient entry is in the release, 0 to 1, as its last stage says."""
    seen = reading_of(release)
    return [g != 0 for g in release.gradients] if seen is None else list(seen.shares)
