"""Axes to cells: what a sweep consists of, and the name under which each result is kept.

A cell is one victim batch x defence x attack x seed. Every batch and attack brings its undefended cell and
its floors along, so that no defence is credited with an attack that fails anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product

import attacks
from dpbench.protocol import InputError, parameters
from dpbench.system import digest
from dpbench.victim import usual_norm

MEAN_IMAGE, CONSTANT_IMAGE, NOISE_GRADIENT, START = (
    f"floor:{name}" for name in ("mean-image", "constant-image", "noise-gradient", "start")
)
LABELS_ONLY = "label-restoration"
"""The attack that rebuilds no image."""
THREAT_MODELS = ("honest", "malicious-linear", "informed")
CONCERNS = {
    "none": (),
    "clip": ("max_grad_norm",),
    "dp": (
        *("eps", "noise_multiplier", "max_grad_norm", "eps_scope", "delta", "train_size", "epochs"),
        "releases",
    ),
    "noise": ("noise_std", "releases"),
    "prune": ("prune_ratio", "prune_scope"),
}
"""Which axes multiply a stage of a defence; none do one that is not named here, somebody's own."""
_DEFENCE_AXES = tuple(dict.fromkeys(axis for axes in CONCERNS.values() for axis in axes))
ATTACK_AXES = ("preset", "terms", "matching", "label_rule", "generator")
"""Which axes multiply an attack: those of its hyper-parameters and needs named here."""
_SIGNS = {
    "eps": "eps",
    "eps_scope": "scope",
    "noise_multiplier": "sigma",
    "max_grad_norm": "C",
    "noise_std": "std",
    "prune_ratio": "ratio",
    "prune_scope": "scope",
    "preset": "preset",
    "terms": "terms",
    "matching": "matching",
    "label_rule": "labels by",
}
_USUAL = ("training", "layer", "tuned", "registered", "minimum")
_BATCH_FIELDS = ("data", "images_digest", "image_size", "model", "norm", "victim", "weights_digest")
_BATCH_FIELDS += ("batch_size", "batch_seed", "label_draw", "labels", "bn_stats", "logit_scale")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Everything that decides one result; see `dpbench.store.SCHEMA` for the meaning and unit of each name.

    Beside the columns: `images_digest` and `weights_digest` are hashes of the batch and of the victim's
    weights, so that a changed file is another cell; `image_size` is the size the images were brought to,
    pixels; `attack_code` is a hash of the attack's source; `iterations`, `restarts` and `matching` are None
    where the attack's own defaults hold; `candidates`, `trials` and `inclusion` are the informed attacker's,
    the last None where the sample is in every release; `prior` is the analytic attack's under a defence;
    `generator_digest` is a hash of the generator's weights.
    """

    data: str
    images_digest: str
    image_size: int | None
    model: str
    norm: str
    victim: str
    weights: str | None
    weights_digest: str
    batch_size: int
    batch_seed: int
    label_draw: str
    labels: str
    bn_stats: str
    logit_scale: float = 1.0
    defense: str = "none"
    eps: float | None = None
    noise_multiplier: float | None = None
    max_grad_norm: float | None = None
    eps_scope: str | None = None
    delta: float | None = None
    train_size: int | None = None
    epochs: float | None = None
    accountant: str | None = None
    noise_std: float | None = None
    prune_ratio: float | None = None
    prune_scope: str | None = None
    releases: int = 1
    threat_model: str = "honest"
    candidates: int | None = None
    trials: int | None = None
    inclusion: float | None = None
    prior: str | None = None
    preset: str | None = None
    terms: str | None = None
    matching: str | None = None
    label_rule: str | None = None
    generator: str | None = None
    generator_digest: str = ""
    attack: str
    attack_code: str = ""
    floor_of: str | None = None
    adaptive: bool = False
    attack_seed: int
    iterations: int | None = None
    restarts: int | None = None
    engine: str = "auto"
    lpips_net: str | None = None
    device: str
    version: str

    def key(self) -> str:
        """16 hexadecimal digits: the SHA-256 of all fields as canonical JSON."""
        return digest.described(asdict(self))

    def release_seed(self) -> int:
        """Seeds the defence's noise: the same for every attack, so that they are compared on one release."""
        names = (*_BATCH_FIELDS, *_DEFENCE_AXES, "accountant", "defense", "attack_seed")
        return int(digest.described({name: getattr(self, name) for name in names}), 16) >> 1

    def search_seed(self) -> int:
        """Seeds the attack: the same under every defence, so that they are compared from the same start."""
        names = (*_BATCH_FIELDS, "attack_seed")
        described = {name: getattr(self, name) for name in names} | {"attack": self.floor_of or self.attack}
        return int(digest.described(described), 16) >> 1

    def stage_parameters(self) -> dict[str, float | str]:
        """What `defenses.create` needs from the user; `dp`'s noise and guarantee come from calibration."""
        names = ("max_grad_norm", "noise_std", "prune_ratio", "prune_scope")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def describe(self) -> str:
        """One line for messages: which gradient, and what is done with it."""
        seeds = f"batch {self.batch_seed}" + (f", attack seed {self.attack_seed}" if self.attack_seed else "")
        scaled = f" logits x{self.logit_scale:g}" if self.logit_scale != 1 else ""
        network = f"{self.model}/{self.norm}/{self.victim}{scaled}"
        return f"{network} B={self.batch_size} ({seeds}): {self.attack_and_defence()}"

    def attack_and_defence(self) -> str:
        """Attack and defence in a few words."""
        words = [self.attack + (f" ({self.floor_of})" if self.floor_of else "")]
        if not self.attack.startswith("floor:"):
            words += ["on", self.defense]
            for name, sign in _SIGNS.items():
                if (value := getattr(self, name)) not in (None, *_USUAL):
                    words.append(f"{sign}={value}" if isinstance(value, str) else f"{sign}={value:g}")
            words += [f"T={self.releases}"] if self.releases > 1 else []
            words += [f"q={self.inclusion:g}"] if self.inclusion is not None else []
            words += [self.threat_model] if self.threat_model != "honest" else []
            if self.defense != "none" and not self.adaptive:
                words.append("not adaptive")
        return " ".join(words)


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What a sweep varies (tuples) and what it holds fixed; names and units are those of `Cell`.

    An empty `norm` is each network's usual one, an empty `threat_model` each attack's. Exactly one of `eps`
    and `noise_multiplier` has values where a defence contains `dp`.
    """

    data: str
    device: str
    version: str
    image_size: int | None = None
    weights: str | None = None
    accountant: str = "pld"
    engine: str = "auto"
    lpips_net: str | None = None
    model: tuple[str, ...] = ("convnet",)
    norm: tuple[str, ...] = ()
    victim: tuple[str, ...] = ("early",)
    batch_size: tuple[int, ...] = (1,)
    batch_seed: tuple[int, ...] = (0,)
    label_draw: tuple[str, ...] = ("distinct",)
    labels: tuple[str, ...] = ("known",)
    bn_stats: tuple[str, ...] = ("running",)
    logit_scale: tuple[float, ...] = (1.0,)
    defense: tuple[str, ...] = ("none",)
    eps: tuple[float, ...] = ()
    noise_multiplier: tuple[float, ...] = ()
    max_grad_norm: tuple[float, ...] = (1.0,)
    eps_scope: tuple[str, ...] = ("training",)
    delta: tuple[float, ...] = (1e-5,)
    train_size: tuple[int, ...] = (50_000,)
    epochs: tuple[float, ...] = (10,)
    noise_std: tuple[float, ...] = (0.01,)
    prune_ratio: tuple[float, ...] = (0.9,)
    prune_scope: tuple[str, ...] = ("layer",)
    releases: tuple[int, ...] = (1,)
    threat_model: tuple[str, ...] = ()
    candidates: tuple[int, ...] = (10,)
    trials: int = 100
    inclusion: tuple[float, ...] = (1.0,)
    prior: tuple[str, ...] = ("wiener",)
    preset: tuple[str, ...] = ("tuned",)
    terms: tuple[str, ...] = ("registered",)
    matching: tuple[str | None, ...] = (None,)
    label_rule: tuple[str, ...] = ("minimum",)
    generator: tuple[str, ...] = ("cifar10",)
    attack: tuple[str, ...] = ("inverting-gradients",)
    adaptive: tuple[bool, ...] = (True,)
    attack_seed: tuple[int, ...] = (0,)
    iterations: tuple[int | None, ...] = (None,)
    restarts: tuple[int | None, ...] = (None,)


@dataclass(frozen=True)
class Plan:
    """The cells of a sweep, in the order they run, and one sentence for each combination left out."""

    cells: tuple[Cell, ...]
    left_out: tuple[str, ...] = ()


def plan(
    axes: Axes,
    weights_digest: Callable[[str, str, str], str],
    images_digest: Callable[[int, int, str], str],
    code_digest: Callable[[str], str],
    generator_digest: Callable[[str], str] = lambda _: "",
) -> Plan:
    """Expand `axes`: every batch with its undefended cells, its defended cells, and its floors.

    Values that do not concern a cell are dropped (`eps` multiplies `dp` only, `adaptive` defended cells
    only), and so are the duplicates this leaves.

    Args:
        axes: what varies.
        weights_digest: (model, norm, victim) to the hash of its weights; InputError where there are none.
        images_digest: (batch size, batch seed, label draw) to the hash of that batch; InputError where it
            cannot be drawn.
        code_digest: attack to the hash of its source; InputError where there is no such attack.
        generator_digest: generator to the hash of its weights; InputError where there is no such generator.

    Raises:
        InputError: if nothing is left; with the first reason.
    """
    for name in axes.threat_model:
        if name not in THREAT_MODELS:
            raise InputError(f"Unknown threat model {name!r}; known: {', '.join(THREAT_MODELS)}.")
    chosen: dict[Cell, None] = {}
    reasons: dict[str, None] = {}
    for batch in _batches(axes, weights_digest, images_digest, reasons):
        attacked = list(_attacked(axes, batch, code_digest, generator_digest))
        # floors last: some take as long as their attack, and whoever runs out of time has what was asked for
        for cell in (*attacked, *_floors(attacked)):
            chosen[cell] = None
    if not chosen:
        raise InputError(
            next(iter(reasons), "There is nothing to run: give at least one defence and one attack.")
        )
    return Plan(tuple(chosen), tuple(reasons))


def _batches(
    axes: Axes,
    weights_digest: Callable[[str, str, str], str],
    images_digest: Callable[[int, int, str], str],
    reasons: dict[str, None],
) -> Iterator[Cell]:
    """Cells that say all about victim and batch, and nothing yet about defence and attack."""
    networks = [(model, norm) for model in axes.model for norm in axes.norm or (usual_norm(model),)]
    for (model, norm), victim in product(networks, axes.victim):
        for size, seed, draw, labels, stats, scale in product(
            *(axes.batch_size, axes.batch_seed, axes.label_draw),
            *(axes.labels, axes.bn_stats, axes.logit_scale),
        ):
            try:
                weights, images = weights_digest(model, norm, victim), images_digest(size, seed, draw)
            except InputError as error:
                reasons[str(error)] = None
                continue
            yield Cell(
                data=axes.data,
                images_digest=images,
                image_size=axes.image_size,
                model=model,
                norm=norm,
                victim=victim,
                weights=axes.weights,
                weights_digest=weights,
                batch_size=size,
                batch_seed=seed,
                label_draw=draw,
                labels=labels,
                bn_stats=stats if "bn" in norm else "none",
                logit_scale=scale,
                attack="",
                attack_seed=0,
                engine=axes.engine,
                lpips_net=axes.lpips_net,
                device=axes.device,
                version=axes.version,
            )


def _attacked(
    axes: Axes,
    batch: Cell,
    code_digest: Callable[[str], str],
    generator_digest: Callable[[str], str],
) -> Iterator[Cell]:
    """The undefended cells of `batch`, then the defended ones."""
    for defense in dict.fromkeys(("none", *axes.defense)):
        concerned = _concerned(defense, axes)
        for values in product(*(getattr(axes, axis) for axis in concerned)):
            defended = replace(batch, defense=defense, **dict(zip(concerned, values, strict=True)))
            if "dp" in defense.split("+"):
                defended = replace(defended, accountant=axes.accountant)
            if defended.eps_scope == "release":  # one release, whatever training it may be part of
                defended = replace(defended, train_size=None, epochs=None)
            # without a defence there is nothing to adapt to
            attackers = list(_attackers(axes, batch, defense, generator_digest))
            for adaptive in axes.adaptive if defense != "none" else (False,):
                for attacker, seed, iterations, restarts in product(
                    attackers, axes.attack_seed, axes.iterations, axes.restarts
                ):
                    yield replace(
                        defended,
                        **attacker,
                        attack_code=code_digest(attacker["attack"]),
                        adaptive=adaptive,
                        attack_seed=seed,
                        iterations=iterations,
                        restarts=restarts,
                    )


def _attackers(
    axes: Axes, batch: Cell, defense: str, generator_digest: Callable[[str], str]
) -> Iterator[dict[str, object]]:
    """Attacks with their threat model, their own axes, and what belongs to either.

    A threat model that none of the attacks asked for is made for brings its own.
    """
    pairs = {(t, attack): None for attack in axes.attack for t in _threat_models(axes, attack)}
    for lacking in set(axes.threat_model) - {t for t, _ in pairs}:
        pairs |= {(lacking, name): None for name in attacks.names() if usual_threat_model(name) == lacking}
    for threat_model, attack in sorted(pairs, key=lambda pair: THREAT_MODELS.index(pair[0])):
        same = {"threat_model": threat_model, "attack": attack}
        if threat_model == "informed":
            several = "releases" in _concerned(
                defense, axes
            )  # only where releases differ can one lack the sample
            chances = [None if q == 1 else q for q in axes.inclusion] if several else [None]
            for n, q in product(axes.candidates, chances):
                yield {**same, "candidates": n, "trials": axes.trials, "inclusion": q}
        elif attack == "analytic" and defense != "none":
            yield from ({**same, "prior": prior} for prior in axes.prior)
        else:
            kind = attacks.kind(attack)
            own = [axis for axis in ATTACK_AXES if axis in {*parameters(kind), *kind.needs}]
            if batch.labels == "known":  # there is nothing to infer
                own = [axis for axis in own if axis != "label_rule"]
            for values in product(*(getattr(axes, axis) for axis in own)):
                chosen = dict(zip(own, values, strict=True))
                if "generator" in chosen:
                    chosen["generator_digest"] = generator_digest(chosen["generator"])
                yield same | chosen


def _threat_models(axes: Axes, attack: str) -> tuple[str, ...]:
    own = attacks.threat_models(attack)
    return tuple(t for t in axes.threat_model if t in own) if axes.threat_model else own[:1]


def usual_threat_model(attack: str) -> str:
    """The attacker that attack is usually of."""
    return attacks.threat_models(attack)[0]


def _concerned(defense: str, axes: Axes) -> tuple[str, ...]:
    names = dict.fromkeys(axis for stage in defense.split("+") for axis in CONCERNS.get(stage, ()))
    unused = "eps" if axes.noise_multiplier else "noise_multiplier"
    return tuple(name for name in names if name != unused)


def _floors(attacked: list[Cell]) -> Iterator[Cell]:
    """What can be had without this batch's gradient; `floor:start` comes with the undefended cell's rows."""
    undefended = [cell for cell in attacked if cell.defense == "none"]
    nobody = {"threat_model": "honest", "candidates": None, "trials": None}
    for name in (MEAN_IMAGE, CONSTANT_IMAGE):
        for cell in undefended[:1]:
            nothing = {"attack_code": "", "attack_seed": 0, "iterations": None, "restarts": None}
            nothing |= dict.fromkeys(ATTACK_AXES) | {"generator_digest": ""}
            yield replace(cell, attack=name, **nothing, **nobody)
    for cell in undefended:
        if cell.threat_model == "informed":  # it picks a candidate and rebuilds nothing
            continue
        if not attacks.kind(cell.attack).noise_floor:
            continue
        yield replace(cell, attack=NOISE_GRADIENT, floor_of=cell.attack)
