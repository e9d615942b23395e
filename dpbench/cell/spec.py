"""What is done in one cell: the plain values that decide its outcome, nested by what they are about.

A cell is one batch of one victim, one defence, one attack and one seed. A part (an attack, a defence, a
threat model) is kept as its name and what differs from its defaults, and fields at their defaults do not
count: a new parameter with a default leaves every older cell its key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import Any

from dpbench.cell.floors import Floor
from dpbench.system import digest, seeds

Plain = bool | int | float | str | None


@dataclass(frozen=True, kw_only=True)
class Part:
    """A registered part: its name, and the parameters that differ from its defaults, sorted by name."""

    name: str
    parameters: tuple[tuple[str, Plain], ...] = ()

    @property
    def given(self) -> dict[str, Plain]:
        """The parameters by name."""
        return dict(self.parameters)


@dataclass(frozen=True, kw_only=True)
class BatchSpec:
    """Which images are attacked, and in which victim.

    Attributes:
        data: the data set, as it was asked for.
        images_digest: hash of all clients' images and labels, and of the data they are drawn from where that
            can change, so that a changed file is another cell.
        image_size: size the images were brought to, pixels; None leaves them as they are.
        batch_size: B.
        batch_seed: draws the batch.
        label_draw: `distinct` or `random`.
        model: the network's name.
        norm: its normalisation.
        victim: how far it was trained.
        weights: the user's file or an asset's name; None where the victim is a shipped one.
        weights_digest: hash of the weights.
        logit_scale: what its last layer is multiplied by.
        trainable: what the client trains, and so sends the gradient of: `all`, or parts joined by `+`
            (`head` is the last layer), as `trained_in_part` takes them.
        clients: n, how many clients' sum the server sees, `batch_size` images each. The attacked one comes
            first, the images of the others are drawn by `batch_seed`, too.
        expected: the expected batch that a release from somebody's training was divided by; None for the
            releases that dpbench makes.
    """

    data: str
    images_digest: str
    image_size: int | None = None
    batch_size: int
    batch_seed: int
    label_draw: str
    model: str
    norm: str
    victim: str
    weights: str | None = None
    weights_digest: str
    logit_scale: float = 1.0
    trainable: str = "all"
    clients: int = 1
    expected: int | None = None


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the attacker is told beside the release.

    Attributes:
        labels: `known` or `inferred`.
        bn_stats: source of batch-norm statistics; `none` where the network has no such layers.
        generator: what a latent search runs through; None where the attack needs none.
        generator_digest: hash of its weights.
    """

    labels: str = "known"
    bn_stats: str = "none"
    generator: str | None = None
    generator_digest: str = ""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where and with what a cell runs.

    Attributes:
        device: `cpu` or `cuda`.
        engine: what runs the iterations.
        lpips_net: trunk of LPIPS; None where it cannot be had.
        version: dpbench's.
        code: hash of the source of attack, defence, threat model, victim and metrics.
        plugins: modules of other people that have to be imported first; they decide nothing by themselves.
    """

    device: str
    engine: str = "auto"
    lpips_net: str | None = None
    version: str
    code: str = ""
    plugins: tuple[str, ...] = field(default=(), metadata={"key": False})


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Where an attack's parameters are from that `python -m dpbench.tune` chose.

    Attributes:
        source: the file, its hash, and the batches that they were chosen on, in words.
        data: the data set of these.
        places: of their images in it.
    """

    source: str
    data: str
    places: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Everything that decides one result.

    Attributes:
        batch: what is attacked.
        defence: stages joined by `+`, or `none`; a calibrated one holds its budget's parameters, too.
        threat: what the attacker may do.
        told: what it is told.
        attack: what it runs; None for the floors of a batch.
        floor: which floor this is; None for an attack.
        attack_seed: of the attack's start and the defence's noise.
        runtime: where it runs.
        tuned: where the attack's parameters are from; None where they are the user's, or the defaults. It
            decides nothing: the parameters do.
    """

    batch: BatchSpec
    defence: Part = Part(name="none")
    threat: Part = Part(name="honest")
    told: Told = Told()
    attack: Part | None
    floor: Floor | None = None
    attack_seed: int = 0
    runtime: Runtime
    tuned: Tuning | None = field(default=None, metadata={"key": False})

    def key(self) -> str:
        """16 hexadecimal digits: the hash of all that differs from a default, and the name of its file."""
        return digest.described({name: _digest(value) for name, value in _counted(self)})

    def release_seed(self, trial: int = 0) -> int:
        """Seeds the defence's noise: the same for every attack, so that all attack one release.

        It depends on batch, defence, number of releases, attack seed and trial alone. So cells are paired
        that differ in the attack, in what the attacker is told, in the threat model and its other parameters,
        or in where they run; all others have independent noise.
        """
        releases = self.threat.given.get("releases", 1)
        parts = (_digest(self.batch), _digest(self.defence), releases, self.attack_seed, trial)
        return seeds.seed("release", *parts)

    def search_seed(self) -> int:
        """Seeds the attack: the same under every defence, so that all searches of an attack start alike.

        It depends on batch, attack and attack seed alone: cells that differ in the defence, the attack's
        parameters or what the attacker is told are paired.
        """
        name = self.attack.name if self.attack else ""
        return seeds.seed("search", _digest(self.batch), name, self.attack_seed)

    def seed(self, purpose: str, *parts: str | int) -> int:
        """A seed for any other purpose: the same for one batch and attack seed, whatever else differs."""
        return seeds.seed(purpose, _digest(self.batch), self.attack_seed, *parts)


@lru_cache(maxsize=65536)
def _digest(spec: object) -> str:
    """A hash of a spec, or of a plain value, in which nothing counts that is as it is by default."""
    return digest.described({"": _sparse(spec)})


def _sparse(spec: object) -> Any:
    if not is_dataclass(spec):
        return [_sparse(each) for each in spec] if isinstance(spec, tuple) else _plain(spec)
    return {name: _sparse(value) for name, value in _counted(spec)}


def _counted(spec: Any) -> Iterator[tuple[str, Any]]:
    """The fields that decide an outcome and differ from their defaults."""
    for each in fields(spec):
        value = getattr(spec, each.name)
        if each.metadata.get("key", True) and (each.default is MISSING or value != each.default):
            yield each.name, value


def _plain(value: Any) -> Any:
    # 1 and 1.0 are the same epsilon, whether typed in a shell or in a notebook
    return int(value) if isinstance(value, float) and value.is_integer() else value
