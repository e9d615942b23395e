"""One call for people with a model of their own."""

from __future__ import annotations

import copy
import importlib.metadata
from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpbench import metrics
from dpbench.cell.grid import THREAT_MODELS, Axes, Cell, plan
from dpbench.cell.informed import check_count
from dpbench.cell.trial import GALLERY, Scene, attach_floors, code_of, measure, released, with_planted_layer
from dpbench.data import image_statistics as image_prior
from dpbench.data.channels import IMAGENET_MEAN, IMAGENET_STD
from dpbench.protocol import InputError, Loss
from dpbench.store import schema
from dpbench.sweep import engines
from dpbench.system import digest
from dpbench.victim import Victim

Progress = Callable[[Cell, int, int, float], None]
"""(cell, iterations done, iterations in all, objective value) -> None."""


def benchmark(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    defense: str | Sequence[str] = "none",
    attacks: str | Sequence[str] = ("inverting-gradients",),
    eps: float | Sequence[float] | None = None,
    noise_multiplier: float | Sequence[float] | None = None,
    eps_scope: str = "training",
    delta: float = 1e-5,
    train_size: int = 50_000,
    epochs: float = 10,
    max_grad_norm: float = 1.0,
    prune_ratio: float | Sequence[float] = 0.9,
    prune_scope: str = "layer",
    noise_std: float | Sequence[float] = 0.01,
    accountant: str = "pld",
    threat_model: str | Sequence[str] | None = None,
    releases: int | Sequence[int] = 1,
    candidates: int | Sequence[int] = 10,
    trials: int = 100,
    inclusion: float | Sequence[float] = 1.0,
    prior: str | Sequence[str] = "wiener",
    others: tuple[Tensor, Tensor] | None = None,
    labels_known: bool = True,
    adaptive: bool = True,
    iterations: int | None = None,
    restarts: int | None = None,
    engine: str = "auto",
    attack_seed: int | Sequence[int] = 0,
    loss: Loss = F.cross_entropy,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    mean_image: Tensor | None = None,
    victim: str = "trained",
    device: str | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Attack one gradient of `model` on `images`, undefended and under each defence.

    Args:
        model: takes images in [0, 1] (normalise inside), returns logits [B, K]; used in the mode it is in,
            and left as it is.
        images: float [B, 3, H, W] in [0, 1], the batch whose gradient is released.
        labels: int64 [B] in [0, K).
        defense: one or several of `defenses.names()`, chained by `+`.
        attacks: one or several of `attacks.names()`.
        eps: budgets of `dp`; 1 where neither this nor `noise_multiplier` is given.
        noise_multiplier: sigma of `dp`, in place of `eps`.
        eps_scope: `training` (eps is the budget of the whole training) or `release` (of this gradient).
        delta: of the budget, in (0, 1).
        train_size: samples in the training set that the budget is for.
        epochs: passes over it.
        max_grad_norm: clip norm C of `dp` and `clip`.
        prune_ratio: share of gradient entries `prune` sets to zero, in [0, 1).
        prune_scope: `layer` or `global`.
        noise_std: standard deviation `noise` adds to every entry.
        accountant: `pld`, `prv` or `rdp`.
        threat_model: `honest`, `malicious-linear` or `informed`, one or several; None is each attack's own.
            One that none of `attacks` is made for brings its own.
        releases: noisy gradients of the same batch that the attacker gets, under `dp` and `noise`.
        candidates: how many candidates for the batch's first sample the informed attacker has, 2 or more.
        trials: how often the informed attacker is tried.
        inclusion: chance of that sample to be in each release (Poisson), in (0, 1].
        prior: what `analytic` believes of images under noise: `wiener` or `none`.
        others: public images like those attacked, float [G, 3, H, W] in [0, 1], and their labels int64 [G]:
            statistics for `malicious-linear`, candidates for `informed`, and the gallery for `identified`
            (candidates and gallery are taken from the first 199). Needed for these two threat models.
        labels_known: whether the attacker is told the labels.
        adaptive: whether the attack uses what it knows of the defence.
        iterations: per restart; None is each attack's own default.
        restarts: independent starts; None likewise.
        engine: what runs iterations: `eager`, `graph`, `compiled`, or `auto` for what pays.
        attack_seed: seeds of the attack's start and of the defence's noise.
        loss: (logits [B, K], labels [B]) -> mean over the batch.
        mean: public per-channel mean of the data in [0, 1], which attacks start from.
        std: public per-channel standard deviation.
        mean_image: [3, H, W], the mean of OTHER images, for the floor; None is the mean of `others`, or
            without them the constant colour `mean`.
        victim: what to call the model's state in the table.
        device: `cpu` or `cuda`; None takes the graphics card if there is one.
        progress: told how far the search in each cell is.

    Returns:
        One row per image, attack and defence, floors and undefended rows included; the columns of
        `dpbench.store.columns`, `psnr_floor` and `lpips_floor` filled in.

    Raises:
        InputError: for images, labels, a model or a defence that cannot be used, and where `others` are
            missing or too few, in one sentence.

    Example:
        >>> from dpbench.victim.networks import build
        >>> images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> model = build("lenet", num_classes=5, size=16)
        >>> table = benchmark(model, images, torch.tensor([3]), defense="clip", iterations=2, device="cpu")
        >>> table[["attack", "defense"]].drop_duplicates().values.tolist()
        [['inverting-gradients', 'none'], ['floor:start', 'none'], ['inverting-gradients', 'clip'], \
['floor:mean-image', 'none'], ['floor:constant-image', 'none'], ['floor:noise-gradient', 'none']]
    """
    num_classes = _checked(model, images, labels, loss)
    if others is not None:
        _check_others(others, images, num_classes)
        others = others[0].detach().cpu().float(), others[1].detach().cpu()
    if mean_image is None and others is not None:
        mean_image = others[0].mean(0)
    if mean_image is None:
        mean_image = torch.tensor(mean)[:, None, None].expand(images.shape[1:]).clone()
    kept = copy.deepcopy(model).cpu()
    scene = Scene(
        Victim(kept, loss, None),
        images.detach().cpu().float(),
        labels.detach().cpu(),
        tuple(range(len(images))),
        num_classes,
        tuple(mean),
        tuple(std),
        mean_image.cpu().float(),
        others and (others[0][: GALLERY - 1], others[1][: GALLERY - 1]),
        others and image_prior.fit((others[0] * 255).round().byte(), mean_image.cpu().float()),
    )
    if eps is not None and noise_multiplier is not None:
        raise InputError("Give eps or noise_multiplier, not both: one follows from the other.")
    if eps is None and noise_multiplier is None:
        eps = 1.0
    axes = Axes(
        data="own",
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        version=importlib.metadata.version("dpbench"),
        accountant=accountant,
        engine=engine,
        lpips_net=None if metrics.why_no_lpips(*images.shape[2:]) else "alex",
        model=(type(model).__name__,),
        norm=("own",),
        victim=(victim,),
        batch_size=(len(images),),
        threat_model=_several(threat_model),
        releases=_several(releases),
        candidates=_several(candidates),
        trials=trials,
        inclusion=_several(inclusion),
        prior=_several(prior),
        label_draw=("own",),
        labels=("known" if labels_known else "inferred",),
        defense=_several(defense),
        eps=_several(eps),
        noise_multiplier=_several(noise_multiplier),
        max_grad_norm=(max_grad_norm,),
        eps_scope=(eps_scope,),
        delta=(delta,),
        train_size=(train_size,),
        epochs=(epochs,),
        noise_std=_several(noise_std),
        prune_ratio=_several(prune_ratio),
        prune_scope=(prune_scope,),
        attack=_several(attacks),
        adaptive=(adaptive,),
        attack_seed=_several(attack_seed),
        iterations=(iterations,),
        restarts=(restarts,),
    )
    weights = digest.tensors(kept.state_dict())
    public = {} if others is None else {"others": others[0], "other labels": others[1]}
    batch = digest.tensors({"images": scene.images, "labels": scene.labels} | public)
    cells = engines.choose(plan(axes, lambda *_: weights, lambda *_: batch, code_of).cells)
    scenes = dict.fromkeys(THREAT_MODELS, scene)
    if others is not None:
        scenes["malicious-linear"] = with_planted_layer(scene)
    for cell in cells:  # what is wrong comes out before minutes are spent
        if others is None and cell.threat_model != "honest":
            raise InputError(
                f"Threat model {cell.threat_model} needs public images like those attacked: give "
                "others=(images, labels), or threat_model='honest'."
            )
        if not cell.attack.startswith("floor:"):
            released(cell, scenes[cell.threat_model])
        if cell.threat_model == "informed":
            check_count(cell.candidates, len(scene.others[0]))
    rows = []
    for cell in cells:

        def inner(done: int, total: int, value: float, cell: Cell = cell) -> None:
            if progress is not None:
                progress(cell, done, total, value)

        rows += measure(cell, scenes[cell.threat_model], inner).rows
    return attach_floors(schema.frame(schema.checked(row) for row in rows))


def _checked(model: nn.Module, images: Tensor, labels: Tensor, loss: Loss) -> int:
    """K, the number of the model's outputs, once everything fits."""
    if images.ndim != 4 or images.shape[1] != 3 or not len(images) or not images.is_floating_point():
        raise InputError(
            f"images must be a float tensor [B, 3, H, W] with values in [0, 1], not {images.dtype} of shape "
            f"{tuple(images.shape)}; divide bytes by 255 and repeat a grey channel three times."
        )
    if not bool(((images >= 0) & (images <= 1)).all()):  # NaN is neither
        raise InputError(
            f"images must lie in [0, 1] and theirs reach from {float(images.min()):.3g} to "
            f"{float(images.max()):.3g}; hand over plain images and normalise inside the model."
        )
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise InputError(
            f"labels must be int64, one for each of the {len(images)} images, not {labels.dtype} of shape "
            f"{tuple(labels.shape)}."
        )
    place = next((p.device for p in model.parameters() if p.requires_grad), None)
    if place is None:
        raise InputError("The model has no trainable parameter, so there is no gradient to attack.")
    try:
        with torch.no_grad():
            logits = copy.deepcopy(model)(images.to(place).float())
    except RuntimeError as error:
        raise InputError(
            f"The model does not take images of shape {tuple(images.shape)}: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        raise InputError("The model must return logits [B, K], one row for each image.")
    classes = logits.shape[1]
    if not bool(((labels >= 0) & (labels < classes)).all()):
        raise InputError(
            f"labels must lie in 0 ... {classes - 1}, the model's outputs; theirs reach from "
            f"{int(labels.min())} to {int(labels.max())}."
        )
    labels = labels.to(logits.device)
    once, twice = loss(logits, labels), loss(torch.cat([logits, logits]), torch.cat([labels, labels]))
    if once.ndim or not torch.isclose(once, twice, rtol=1e-3):
        raise InputError('The loss must be the mean over the batch; use reduction="mean".')
    return classes


def _check_others(others: tuple[Tensor, Tensor], images: Tensor, num_classes: int) -> None:
    """InputError unless `others` are images like `images`, none of them among these, with labels in range."""
    public, labels = others
    if public.shape[1:] != images.shape[1:] or not len(public) or not public.is_floating_point():
        raise InputError(
            f"The images of others must be a float tensor [G, {', '.join(map(str, images.shape[1:]))}], not "
            f"{public.dtype} of shape {tuple(public.shape)}."
        )
    if not bool(((public >= 0) & (public <= 1)).all()):
        raise InputError("The images of others must lie in [0, 1]; divide bytes by 255.")
    if labels.dtype != torch.int64 or labels.shape != public.shape[:1]:
        raise InputError("The labels of others must be int64, one for each image.")
    if not bool(((labels >= 0) & (labels < num_classes)).all()):
        raise InputError(f"The labels of others must lie in 0 ... {num_classes - 1}, the model's outputs.")
    if any(torch.equal(image.cpu().float(), own.cpu().float()) for image in public for own in images):
        raise InputError(
            "others hold an attacked image: take it out, or the attacker knows what it is after."
        )


def _several(value: object) -> tuple:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
