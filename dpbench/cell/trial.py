"""Runs one cell: the batch, the defence, the attack, the scores. Nothing here depends on what ran before."""

from __future__ import annotations

import contextlib
import copy
import gc
import math
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

import attacks
import defenses
from attacks import engine
from dpbench import generators, metrics, privacy
from dpbench.cell import informed
from dpbench.cell.grid import CONSTANT_IMAGE, LABELS_ONLY, MEAN_IMAGE, NOISE_GRADIENT, START, Cell
from dpbench.data import Batch, Dataset, draw_batch, load_data
from dpbench.data import image_statistics as image_prior
from dpbench.privacy.expected_success import psnr_unbiased_probe
from dpbench.privacy.intervals import clopper_pearson
from dpbench.protocol import (
    Candidates,
    Guarantee,
    ImagePrior,
    InputError,
    Knowledge,
    Reconstruction,
    Release,
    combined,
)
from dpbench.system import digest
from dpbench.victim import Victim, accuracy, load
from dpbench.victim import batch_norm as bn_statistics
from dpbench.victim import imprint as planted

GALLERY = 200
"""Images among which a reconstruction has to point out its original, at most."""
_COINS = 1 << 62
"""Sets the seed of who is in which release apart from that of the noise."""
Progress = Callable[[int, int, float], None]
"""(iterations done, iterations in all, objective value) -> None."""


@dataclass(frozen=True)
class Scene:
    """What is attacked, before any defence or attack.

    Attributes:
        victim: model, loss and accuracy; the model is on the CPU.
        images: float32 [B, 3, H, W] in [0, 1].
        labels: int64 [B].
        indices: place of each image in the data set.
        num_classes: K.
        mean: public per-channel mean of the data.
        std: public per-channel standard deviation.
        mean_image: public mean of other images, [3, H, W] in [0, 1].
        others: images of the same data outside the batch, [G, 3, H, W] in [0, 1], and their labels: the
            gallery, and the informed attacker's candidates.
        prior: statistics of public images; None where not to be had.
        generator: trained on other images; None where the attack needs none.
    """

    victim: Victim
    images: Tensor
    labels: Tensor
    indices: tuple[int, ...]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mean_image: Tensor
    others: tuple[Tensor, Tensor] | None = None
    prior: ImagePrior | None = None
    generator: nn.Module | None = None


@dataclass(frozen=True)
class CellResult:
    """One row per image, then one per image of the start; `images[i]` and `originals[i]` are `rows[i]`'s.

    Attributes:
        rows: by the names of `dpbench.store.columns`.
        images: float32 [rows, 3, H, W] in [0, 1], on the CPU; empty [0, 3, 1, 1] where the cell failed.
        originals: likewise.
        log: when and where it was run, how it ended, and the traceback if it broke.
        out_of_memory: whether it failed because a graphics card's memory ran out.
    """

    rows: list[dict[str, Any]]
    images: Tensor
    originals: Tensor
    log: str = ""
    out_of_memory: bool = False

    @property
    def status(self) -> str:
        """`ok`, `failed` or `skipped`."""
        return self.rows[0]["status"]


@lru_cache(maxsize=2)
def dataset(spec: str, size: int | None) -> Dataset:
    """`load_data`, kept for the next cell."""
    return load_data(spec, size=size)


def run_cell(cell: Cell, progress: Progress | None = None, card: int | None = None) -> CellResult:
    """The result of `cell`, the same wherever and whenever it runs on the same kind of device.

    A cell that cannot be run (InputError) has status `skipped`, one that broke `failed`; `error` says why.

    Args:
        cell: what to run.
        progress: told how far it is.
        card: number of the graphics card that this process is to use from now on; None leaves it as it is.
    """

    def work() -> CellResult:
        if card is not None:
            torch.cuda.set_device(card)  # here, as there may be no memory left even for that
        return measure(cell, prepare(cell), progress)

    kept = engine.kept()
    result = guarded(cell, work)
    if result.out_of_memory and kept:  # the programs of earlier cells, dropped by now, took some of it
        result = guarded(cell, work)
    return result


def guarded(cell: Cell, work: Callable[[], CellResult]) -> CellResult:
    """`work()`, or rows that say why there is no result; either with its log."""
    began, clock, trace, spoilt = datetime.now(UTC), time.perf_counter(), "", False
    try:
        result = work()
    except InputError as error:
        result = without_result(cell, "skipped", str(error))
    except Exception as error:  # whatever a third-party attack raises, the other cells go on
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        starved = engine.out_of_memory(error)
        spoilt = starved or engine.of_the_card(error)
        if starved:
            reason = f"Out of memory: use a smaller --batch-size or fewer --restarts. {reason}"
        result = replace(without_result(cell, "failed", reason), out_of_memory=starved)
        trace = traceback.format_exc()
    if result.status == "failed":  # only now that the traceback no longer holds the search's tensors
        gc.collect()
    if spoilt:  # whatever else breaks leaves compiled programs as they are, for the next cell
        engine.forget()
    seconds = time.perf_counter() - clock
    log = (
        f"{began:%Y-%m-%d %H:%M:%S} UTC, {platform.node()}, process {os.getpid()}: {cell.describe()}\n{trace}"
    )
    return replace(result, log=f"{log}{result.status} after {seconds:.1f} s\n")


def prepare(cell: Cell) -> Scene:
    """Draws the batch and builds the victim that `cell` names.

    Raises:
        InputError: for data, a batch or a victim that does not exist.
    """
    data = dataset(cell.data, cell.image_size)
    batch = draw_batch(data, cell.batch_size, cell.batch_seed, cell.label_draw)
    height, width = batch.images.shape[2:]
    if height != width:
        raise InputError(
            f"The victims take square images; those of {data.name} are {height}x{width}: give --image-size."
        )
    victim = load(cell.model, cell.norm, cell.victim, cell.weights, data, width)
    if cell.logit_scale != 1:
        victim = scaled(victim, cell.logit_scale)
    num_classes = victim.model.fc.out_features
    scene = Scene(
        victim,
        batch.images,
        batch.labels,
        batch.indices,
        victim.model.fc.out_features,
        data.mean,
        data.std,
        data.mean_image,
        other_images(data, batch),
        data.prior,
        generator_of(cell, num_classes, width),
    )
    return with_planted_layer(scene) if cell.threat_model == "malicious-linear" else scene


def with_planted_layer(scene: Scene) -> Scene:
    """The scene a malicious server sets; statistics of public images are made from `others` if need be."""
    others, _ = scene.others
    prior = scene.prior or image_prior.fit((others * 255).round().byte(), scene.mean_image)
    edges = planted.edges_for(len(scene.images), prior)
    model = planted.ImprintModel(scene.victim.model, edges, prior, scene.num_classes)
    return replace(scene, victim=replace(scene.victim, model=model), prior=prior)


def scaled(victim: Victim, logit_scale: float) -> Victim:
    """A copy with its last layer times `logit_scale`: as accurate, and less confident if that is below 1."""
    model = copy.deepcopy(victim.model)
    with torch.no_grad():
        for parameter in model.fc.parameters():
            parameter.mul_(logit_scale)
    return replace(victim, model=model)


def generator_of(cell: Cell, num_classes: int, size: int) -> nn.Module | None:
    """The generator that `cell` names; None where it names none.

    Raises:
        InputError: for one that cannot be had, or that makes other images or classes.
    """
    if cell.generator is None:
        return None
    return generators.load_generator(cell.generator, num_classes=num_classes, size=size)


def other_images(data: Dataset, batch: Batch) -> tuple[Tensor, Tensor]:
    """Up to `GALLERY - 1` images outside `batch`, in the data set's order, and their labels; no copies."""
    indices = [i for i in range(len(data.labels)) if i not in batch.indices][: GALLERY - 1]
    images = data.images[torch.tensor(indices, dtype=torch.int64)].float() / 255
    new = torch.tensor([not any(torch.equal(image, own) for own in batch.images) for image in images])
    return images[new.bool()], data.labels[indices][new.bool()]


def measure(cell: Cell, scene: Scene, progress: Progress | None = None) -> CellResult:
    """Defends, attacks and scores.

    Raises:
        InputError: for a defence or an attack that cannot work on this model or batch.
    """
    scene = _moved(scene, torch.device(cell.device))
    if cell.attack == MEAN_IMAGE:
        return _result(cell, scene, metrics.floors.mean_image(len(scene.images), scene.mean_image))
    if cell.attack == CONSTANT_IMAGE:
        return _result(cell, scene, metrics.floors.constant_image(scene.images))
    if cell.threat_model == "informed":
        return _informed(cell, scene, progress)
    release = released(cell, scene)
    if cell.attack == NOISE_GRADIENT:
        release = metrics.floors.noise_release(release, cell.search_seed())
    found = attacked(cell, scene, release, progress)
    result = _result(cell, scene, found.images, found, release.guarantee)
    if cell.bn_stats in bn_statistics.ORACLES:
        result = without_guarantee(result)
    if cell.defense != "none" or cell.attack in (NOISE_GRADIENT, LABELS_ONLY):
        return result
    start = _result(replace(cell, attack=START, floor_of=cell.attack), scene, found.start)
    for row in start.rows:
        row |= {"key": cell.key(), "labels": found.label_source}
    return CellResult(
        result.rows + start.rows,
        torch.cat([result.images, start.images]),
        torch.cat([result.originals, start.originals]),
    )


def without_guarantee(result: CellResult) -> CellResult:
    """`result` with every epsilon and bound empty: un-noised statistics of the batch left the client, too."""
    empty = dict.fromkeys(("eps", "eps_release", "eps_replace", "delta", "rero_release", "success_bound"))
    return replace(result, rows=[row | empty for row in result.rows])


def defence_of(cell: Cell) -> defenses.Chain:
    """The defence of `cell`, ready to use; `dp` is calibrated here.

    Raises:
        InputError: for an unknown defence, a parameter outside its range or a budget out of reach.
    """
    parameters: dict[str, Any] = dict(cell.stage_parameters())
    if "dp" in cell.defense.split("+"):
        guarantee = privacy.calibrate(
            eps=cell.eps,
            noise_multiplier=cell.noise_multiplier,
            eps_scope=cell.eps_scope,
            delta=cell.delta,
            train_size=cell.train_size or cell.batch_size,
            epochs=cell.epochs or 1,
            batch_size=cell.batch_size,
            max_grad_norm=cell.max_grad_norm,
            accountant=cell.accountant,
            releases=cell.releases,
            inclusion=cell.inclusion or 1.0,
        )
        parameters |= {"noise_multiplier": guarantee.noise_multiplier, "guarantee": guarantee}
    return defenses.create(cell.defense, **parameters)


def attack_of(cell: Cell) -> attacks.Attack:
    """The attack of `cell`, or the one whose floor it is.

    Raises:
        InputError: for an unknown attack or engine, or a hyper-parameter outside its range.
    """
    name = cell.floor_of or cell.attack
    axes = (
        "adaptive",
        "engine",
        "iterations",
        "restarts",
        "prior",
        "inclusion",
        "preset",
        "terms",
        "matching",
        "label_rule",
    )
    asked = {axis: getattr(cell, axis) for axis in axes if axis in attacks.takes(name)}
    chosen = {axis: value for axis, value in asked.items() if value is not None}
    return attacks.create(name, **chosen)


def code_of(attack: str) -> str:
    """A hash of the source of the attack of that name.

    Raises:
        InputError: for an unknown attack.
    """
    return digest.source(attacks.kind(attack))


def released(cell: Cell, scene: Scene) -> Release:
    """All that leaves the client of `cell`, with its guarantee."""
    return _released(cell, defence_of(cell), scene.victim, scene.images, scene.labels, cell.release_seed())


def attacked(
    cell: Cell,
    scene: Scene,
    release: Release,
    progress: Progress | None = None,
    candidates: Candidates | None = None,
) -> Reconstruction:
    """What the attack of `cell` makes of `release`; of the scene it is shown only what is public."""
    victim = scene.victim
    knowledge = Knowledge(
        model=copy.deepcopy(victim.model),
        loss=victim.loss,
        image_shape=tuple(scene.images.shape[1:]),
        num_classes=scene.num_classes,
        mean=scene.mean,
        std=scene.std,
        labels=scene.labels.clone() if cell.labels == "known" else None,
        bn_stats=cell.bn_stats,
        statistics=bn_statistics.statistics(victim.model, scene.images, cell.bn_stats),
        candidates=candidates,
        prior=scene.prior,
        generator=scene.generator,
    )
    seed, device = cell.search_seed(), scene.images.device
    return attack_of(cell)(release, knowledge, seed=seed, device=device, progress=progress)


def attach_floors(table: pd.DataFrame) -> pd.DataFrame:
    """Fill `psnr_floor` and `lpips_floor`: the highest PSNR and lowest LPIPS without the image's gradient.

    The floors of an attack's row are the mean and the constant image of the same original, and the noise and
    the start of the same attack with the same seed, iterations and restarts: never those of another attack,
    so that a row's floor does not depend on what else the sweep held. Floor rows keep both columns empty.

    Returns:
        A copy of `table`, columns of `dpbench.store.columns`, with the two columns filled.
    """
    is_floor = table["attack"].str.startswith("floor:")
    usable = table[is_floor & (table["status"] == "ok")]
    extremes = {"psnr": "max", "lpips": "min"}
    public = usable[usable["floor_of"].isna()]
    public = public.groupby(_SAME_IMAGE, dropna=False)[[*extremes]].agg(extremes)
    own = usable[usable["floor_of"].notna()].assign(attack=lambda found: found["floor_of"])
    own = own.groupby(_SAME_SEARCH, dropna=False)[[*extremes]].agg(extremes)
    rows = table.loc[~is_floor, _SAME_SEARCH]
    table = table.copy()
    for metric, extreme in extremes.items():
        found = pd.concat(
            [
                rows.join(floors[metric].rename(name), on=floors.index.names)[name]
                for name, floors in (("public", public), ("own", own))
            ],
            axis=1,
        )
        table.loc[~is_floor, f"{metric}_floor"] = found.agg(extreme, axis=1)
    return table


def image_shares(scene: Scene) -> list[tuple[float, float]]:
    """Per image: the victim's loss (nat), and its gradient norm's share of the sum over the batch.

    NaN in training mode, where an image's gradient depends on the rest of its batch.
    """
    model, found = scene.victim.model, []
    if model.training:
        return [(math.nan, math.nan)] * len(scene.images)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for i in range(len(scene.images)):
        loss = scene.victim.loss(model(scene.images[i : i + 1]), scene.labels[i : i + 1])
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients if g is not None))
        found.append((loss.item(), norm))
    total = sum(norm for _, norm in found)
    return [(loss, norm / total if total else math.nan) for loss, norm in found]


def _result(
    cell: Cell,
    scene: Scene,
    guess: Tensor,
    found: Reconstruction | None = None,
    guarantee: Guarantee | None = None,
) -> CellResult:
    labels_alone = cell.attack == LABELS_ONLY  # its images are a flat colour: there is nothing to score
    scores: dict[str, Tensor] = {"match": torch.arange(len(guess))}
    if not labels_alone:
        scores = metrics.score(guess, scene.images, net=cell.lpips_net or "alex")
    order = scores.pop("match")
    common = _conditions(cell) | _measured(scene) | _search(found) | _guaranteed(guarantee)
    identified = [None] * len(guess)
    if not labels_alone and scene.others is not None and len(scene.others[0]):
        identified = metrics.identified(guess[order], scene.images, scene.others[0], scene.mean_image)
    features = {} if labels_alone else _identified_by_features(cell, scene, guess[order])
    rows, probes = [], _probes(cell, scene, guarantee)
    if found is not None and labels_alone:  # no image says whose label it is
        right = metrics.labels_restored(found.labels, scene.labels)
    elif found is not None:
        right = found.labels[order] == scene.labels
    for i, (loss, share) in enumerate(image_shares(scene)):
        row = common | {
            "image": i,
            "original_index": scene.indices[i],
            "label": int(scene.labels[i]),
            "image_loss": loss,
            "image_grad_share": share,
            "status": "ok",
            "psnr_unbiased_probe": probes[i],
            "identified": identified[i],
            "gallery_size": None if identified[i] is None else len(scene.others[0]) + 1,
            **{name: values[i] for name, values in features.items()},
        }
        row |= {name: float(values[i]) for name, values in scores.items()}
        row["lpips_net"] = None if math.isnan(row.get("lpips", math.nan)) else cell.lpips_net or "alex"
        if found is not None:
            row["label_correct"] = bool(right[i])
        rows.append(row)
    return CellResult(rows, guess[order].float().cpu(), scene.images.cpu())


def _identified_by_features(cell: Cell, scene: Scene, guess: Tensor) -> dict[str, Sequence[Any]]:
    """The columns of IIP, each as long as `guess`; none where there is no gallery or no trunk."""
    net = cell.lpips_net or "alex"
    if scene.others is None or not len(scene.others[0]) or metrics.why_no_lpips(*guess.shape[2:], net):
        return {}
    gallery = torch.cat([scene.images, scene.others[0]])
    found, count = metrics.iip(guess, scene.images, gallery, net), len(guess)
    return {"iip": found, "iip_net": [net] * count, "iip_chance": [1 / len(gallery)] * count}


def _probes(cell: Cell, scene: Scene, guarantee: Guarantee | None) -> list[float | None]:
    """PSNR of the unbiased estimate of each image from its planted row; None where it has none of its own."""
    if guarantee is None or cell.defense != "dp" or not isinstance(scene.victim.model, planted.ImprintModel):
        return [None] * len(scene.images)
    found = planted.exposures(scene.victim.model, scene.victim.loss, scene.images, scene.labels)
    noise = guarantee.noise_multiplier / math.sqrt(cell.releases)
    # a gradient shorter than C is not clipped, and one of norm C would not be either
    return [
        exposed and psnr_unbiased_probe(noise, max(exposed[0], guarantee.max_grad_norm), exposed[1])
        for exposed in found
    ]


def _released(
    cell: Cell, chain: defenses.Chain, victim: Victim, images: Tensor, labels: Tensor, seed: int
) -> Release:
    return combined(chain.releases(victim.model, victim.loss, images, labels, seed=seed, count=cell.releases))


def _informed(cell: Cell, scene: Scene, progress: Progress | None) -> CellResult:
    """One row: the informed attacker's success over `cell.trials` releases, the bound beside it."""
    if scene.others is None:
        raise InputError("The informed attacker needs candidates: images of the same data outside the batch.")
    victim, chain, chance = scene.victim, defence_of(cell), cell.inclusion or 1.0
    if chance < 1 and not {"dp", "noise"}.issuperset(cell.defense.split("+")):
        raise InputError(
            f"--inclusion below 1 is for dp and noise only, not for {cell.defense}: leave it at 1."
        )
    given = informed.draw_candidates(
        victim.model,
        victim.loss,
        scene.images,
        scene.labels,
        scene.others,
        cell.candidates,
        cell.max_grad_norm,
        cell.search_seed(),
    )
    done = 0

    def releases(truth: int) -> Iterator[tuple[Release, Tensor]]:
        nonlocal done
        images = torch.cat([given.images[truth : truth + 1], scene.images[1:]])
        labels = torch.cat([given.labels[truth : truth + 1], scene.labels[1:]])
        for trial in range(truth, cell.trials, cell.candidates):
            seed = cell.release_seed() ^ trial
            # a stream of its own, so that the noise is that of the sample in every release
            coins = torch.rand(cell.releases, generator=torch.Generator().manual_seed(seed ^ _COINS))
            release = _released(cell, chain, victim, images, labels, seed)
            yield informed.subsampled(release, given.gradients[truth], coins < chance), coins < chance
            done += 1
            if progress is not None:
                progress(done, cell.trials, math.nan)

    begun = time.perf_counter()
    found = informed.tally(
        given, releases, lambda r: attacked(cell, scene, r, candidates=given).images[0], chance
    )
    low, high = clopper_pearson(found.right, found.trials)
    row = _conditions(cell) | _measured(scene) | _guaranteed(chain.guarantee)
    row |= {
        "image": 0,
        "original_index": scene.indices[0],
        "label": int(scene.labels[0]),
        "success": found.right / found.trials,
        "success_low": low,
        "success_high": high,
        "membership": found.member_right / (2 * found.trials),
        "seconds": time.perf_counter() - begun,
        "status": "ok",
    }
    if chain.guarantee is not None:
        row["success_bound"] = privacy.reconstruction_bound(
            chain.guarantee.noise_multiplier, chance, cell.releases, kappa=1 / cell.candidates
        )
    return CellResult([row], torch.empty(0, 3, 1, 1), torch.empty(0, 3, 1, 1))


def without_result(cell: Cell, status: str, reason: str) -> CellResult:
    """Rows that say why `cell` has none: `status` is `skipped` or `failed`, `reason` one line."""
    # whatever is known without the result, so that the rows stand beside those of the other seeds
    known = accuracy(cell.model, cell.norm, cell.victim, cell.weights)
    common = _conditions(cell) | {"mode": "eval", "victim_accuracy": known}
    with contextlib.suppress(InputError):
        common |= _guaranteed(defence_of(cell).guarantee)
    rows = [common | {"image": i, "status": status, "error": reason} for i in range(cell.batch_size)]
    empty = torch.empty(0, 3, 1, 1)
    result = CellResult(rows, empty, empty, f"{cell.describe()}: {status}. {reason}\n")
    return without_guarantee(result) if cell.bn_stats in bn_statistics.ORACLES else result


def _conditions(cell: Cell) -> dict[str, Any]:
    """The columns that `cell` alone decides."""
    guesses = cell.attack in (MEAN_IMAGE, CONSTANT_IMAGE)
    return {name: getattr(cell, name) for name in _CELLS_OWN} | {
        "key": cell.key(),
        "floor": cell.attack.removeprefix("floor:") if cell.attack.startswith("floor:") else None,
        "eps": cell.eps if cell.eps_scope == "training" else None,
        "eps_release": cell.eps if cell.eps_scope == "release" else None,
        "weights": cell.weights_digest if cell.weights else None,
        "labels": None if guesses else cell.labels,
        "threat_model": None if guesses else cell.threat_model,
        "attack_seed": None if guesses else cell.attack_seed,
        "max_iterations": cell.iterations,
        "device": device_name(cell.device),
    }


def device_name(kind: str) -> str:
    """`cpu`, or the graphics card's own name."""
    return torch.cuda.get_device_name() if kind == "cuda" else kind


def _measured(scene: Scene) -> dict[str, Any]:
    victim = scene.victim
    return {"mode": "train" if victim.model.training else "eval", "victim_accuracy": victim.accuracy}


def _search(found: Reconstruction | None) -> dict[str, Any]:
    """What the attack reports of itself."""
    if found is None:
        return {}
    same = ("gradient_distance", "iterations", "seconds", "compile_seconds", "engine")
    return {name: getattr(found, name) for name in same} | {"labels": found.label_source}


def _guaranteed(guarantee: Guarantee | None) -> dict[str, Any]:
    return {} if guarantee is None else asdict(guarantee)


def _moved(scene: Scene, device: torch.device) -> Scene:
    """A copy of `scene` on `device`; the caller's model stays where and as it is."""
    model = copy.deepcopy(scene.victim.model).to(device)
    images, labels, mean_image = (x.to(device) for x in (scene.images, scene.labels, scene.mean_image))
    others = scene.others and tuple(x.to(device) for x in scene.others)
    generator = scene.generator and copy.deepcopy(scene.generator).to(device)
    return replace(
        scene,
        victim=replace(scene.victim, model=model),
        images=images,
        labels=labels,
        mean_image=mean_image,
        others=others,
        generator=generator,
    )


_CELLS_OWN = (
    *("attack", "floor_of", "adaptive", "defense", "delta", "noise_multiplier", "max_grad_norm", "noise_std"),
    *("prune_ratio", "prune_scope", "train_size", "epochs", "accountant", "eps_scope", "releases"),
    *("candidates", "trials", "inclusion", "prior", "preset", "terms", "matching", "label_rule", "generator"),
    "restarts",
    *("model", "norm", "victim", "logit_scale", "bn_stats", "label_draw", "data", "batch_size"),
    *("batch_seed", "version"),
)
"""Columns that are a cell's fields of the same name."""
_SAME_IMAGE = [
    "data",
    "model",
    "norm",
    "victim",
    "weights",
    "logit_scale",
    "batch_size",
    "batch_seed",
    "label_draw",
    "image",
]
_SAME_SEARCH = [
    *_SAME_IMAGE,
    "threat_model",
    "labels",
    "bn_stats",
    "attack",
    "attack_seed",
    "max_iterations",
    "restarts",
    "preset",
    "terms",
    "matching",
    "label_rule",
    "generator",
]
