"""The words of the command line, and what they stand for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_type_hints

import attacks
from dpbench.protocol import InputError
from dpbench.sweep import suite
from dpbench.system.command_line import read
from dpbench.victim.networks import models

COMMAND = "python -m dpbench.run"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Attack gradients of real images with and without a defence, and see what comes back.

    Options with [...] take several values; every combination is run. Each batch brings along its undefended
    rows and its floors (what can be had without its gradient). Given again, a command goes on where it ended.
    """

    defense: tuple[str, ...] = ("none", "dp")
    """Defences: none, dp, clip, noise (no DP: nothing is clipped), prune; chained by +, as in clip+prune."""
    eps: tuple[float, ...] = ()
    """Privacy budgets of dp; 1 unless --noise-multiplier is given."""
    eps_scope: tuple[Literal["training", "release"], ...] = ("training",)
    """Whether eps is the budget of a whole training run or of the one attacked gradient."""
    delta: tuple[float, ...] = (1e-5,)
    """Delta of the budget."""
    train_size: tuple[int, ...] = (50_000,)
    """Samples in the client's training set, which the training budget is for."""
    epochs: tuple[float, ...] = (10.0,)
    """Passes over it."""
    noise_multiplier: tuple[float, ...] = ()
    """Sigma of dp, in place of --eps."""
    max_grad_norm: tuple[float, ...] = (1.0,)
    """Clip norm C of dp and clip: the l2 bound of each sample's gradient."""
    prune_ratio: tuple[float, ...] = (0.9,)
    """Share of gradient entries that prune sets to zero, in [0, 1)."""
    prune_scope: tuple[Literal["layer", "global"], ...] = ("layer",)
    """Where prune seeks the smallest entries."""
    noise_std: tuple[float, ...] = (0.01,)
    """Standard deviation that noise adds to every entry of the mean gradient."""
    accountant: Literal["pld", "prv", "rdp"] = "pld"
    """What computes the training budget (Opacus' prv and rdp are slower or looser)."""
    batch_size: tuple[int, ...] = (1, 4)
    """Images per attacked gradient."""
    batch_seed: tuple[int, ...] = (0,)
    """Which batches are drawn, by the published rule of dpbench.data.draw_batch."""
    attack: tuple[str, ...] = ("inverting-gradients",)
    """Attacks: inverting-gradients, gradinversion, deepinversion, latent-projection, dlg, idlg, analytic,
    prior-aware, label-restoration; or all."""
    preset: tuple[Literal["tuned", "paper"], ...] = ("tuned",)
    """Gradinversion's weights and steps: ours, or the paper's."""
    terms: tuple[Literal["gradient", "fidelity", "lazy", "registered"], ...] = ("registered",)
    """What gradinversion optimises, each with all before it: the rows of the paper's ablation."""
    matching: tuple[Literal["layer-l2", "cosine"], ...] = ()
    """How gradinversion compares gradients: tensor by tensor or by the angle; the preset's unless given."""
    label_rule: tuple[Literal["minimum", "sum", "counts", "auto"], ...] = ("minimum",)
    """How gradinversion and label-restoration infer labels."""
    generator: tuple[str, ...] = ("cifar10",)
    """What latent-projection searches: cifar10, biggan, or your file (docs/generators.md)."""
    threat_model: tuple[Literal["honest", "malicious-linear", "informed"], ...] = ()
    """Honest server, one that planted a linear layer, or one that knows all but one sample; the attack's."""
    releases: tuple[int, ...] = (1,)
    """Noisy gradients of the same batch that the attacker gets, for dp and noise."""
    candidates: tuple[int, ...] = (10,)
    """How many candidates for the one sample the informed attacker has."""
    trials: int = 100
    """How often the informed attacker is tried."""
    inclusion: tuple[float, ...] = (1.0,)
    """Chance of that sample to be in each release (Poisson sampling), under dp and noise."""
    prior: tuple[Literal["wiener", "none"], ...] = ("wiener",)
    """What the analytic attack believes of images under noise: statistics of public images, or nothing."""
    attack_seed: tuple[int, ...] = (0,)
    """Seeds of the attack's start and of the defence's noise."""
    adaptive: tuple[Literal["yes", "no"], ...] = ("yes",)
    """Whether the attack uses what it knows of the defence."""
    iterations: tuple[int, ...] = ()
    """Iterations per restart; each attack's own default unless given."""
    restarts: tuple[int, ...] = ()
    """Independent starts; each attack's own default unless given."""
    model: tuple[str, ...] = ("convnet",)
    """Victim networks: lenet, convnet, resnet20, resnet18, resnet50."""
    norm: tuple[Literal["none", "frozen-bn", "gn"], ...] = ()
    """Their normalisation; each network's usual one unless given."""
    victim: tuple[Literal["early", "trained", "untrained"], ...] = ()
    """How far they were trained; early unless given (with --weights: trained, a name for your file only)."""
    weights: str | None = None
    """Weights for the one --model: your file (.safetensors, or a .pt state dict), or resnet50-imagenet."""
    data: str = "samples"
    """Images: samples, imagenet-samples, cifar10, folder:PATH."""
    image_size: int | None = None
    """Resize and crop to this many pixels; images stay as they are unless given."""
    labels: tuple[Literal["known", "inferred"], ...] = ("known",)
    """Whether the attacker is told the labels or has to infer them."""
    label_draw: tuple[Literal["distinct", "random"], ...] = ("distinct",)
    """Whether the labels of a batch differ from each other."""
    bn_stats: tuple[Literal["running", "exact", "recovered", "none"], ...] = ("running",)
    """Batch-norm statistics the attacker is told: public ones, the batch's own, or those a client sent."""
    logit_scale: tuple[float, ...] = (1.0,)
    """What the victim's last layer is multiplied by; below 1 the victim is another, less sure of itself."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run; the graphics card if there is one."""
    engine: Literal["auto", "eager", "graph", "compiled"] = "auto"
    """What runs iterations: PyTorch's operations, a CUDA graph, or a compiled program; auto: what pays."""
    suite: str | None = None
    """Options from a named sweep (quick, epsilon, ...) or a .toml file; options given here win."""
    executor: Literal["local", "workers", "ray"] = "local"
    """Where cells run: in this process, in one per graphics card or core, or on a Ray cluster."""
    workers: int | None = None
    """Processes of --executor workers; one per graphics card or core unless given. More share the cards."""
    ray_address: str = "auto"
    """The cluster of --executor ray, in Ray's own words: auto, HOST:PORT or local."""
    gpus_per_cell: float = 1.0
    """Share of a graphics card that --executor ray reserves for a cell."""
    out: str | None = None
    """The folder for the results; results/NAME unless given, NAME made from the configuration."""
    resume: bool = False
    """Take every option from the config.toml in --out and run what is missing or failed there."""
    status: str | None = None
    """Show how far the run in this folder is, and do nothing else."""
    dry_run: bool = False
    """Say what would be run and, from a second of each kind of cell, how long and in how much memory."""
    quiet: bool = False
    """Print errors only."""

    def configuration(self) -> dict[str, Any]:
        """The options that decide results, without those of where and how they are shown."""
        return {name: value for name, value in asdict(self).items() if name not in _SHOWING}


_SHOWING = ("out", "resume", "status", "dry_run", "quiet", "suite")
_SHOWING += ("executor", "workers", "ray_address", "gpus_per_cell")
MOST_CELLS = 1_000_000
_POSITIVE = (
    *("eps", "noise_multiplier", "epochs", "max_grad_norm", "train_size", "batch_size", "iterations"),
    *("restarts", "image_size", "releases", "candidates", "trials", "workers", "gpus_per_cell"),
    "logit_scale",
)
_MAY_BE_EMPTY = ("eps", "noise_multiplier", "iterations", "restarts", "norm", "victim", "matching")
_MAY_BE_EMPTY += ("threat_model",)


def parse(arguments: Sequence[str]) -> Options:
    """The checked options of a command line; `--help` is printed and ends the program.

    Raises:
        InputError: for what cannot be understood or can never work, in one sentence.
    """
    options = read(Options, arguments, COMMAND)
    if options.suite is not None:  # once more, upon the suite's values, so that those given here win
        values = suite.load(options.suite, _configurable())
        options = read(Options, arguments, COMMAND, Options(**values))
    return checked(options)


def _configurable() -> dict[str, Any]:
    """Options that decide results, with their types."""
    return {name: hint for name, hint in get_type_hints(Options).items() if name not in _SHOWING}


def checked(options: Options) -> Options:
    """`options` with what follows from them filled in.

    Raises:
        InputError: for values that can never work.
    """
    for field in fields(options):
        value = getattr(options, field.name)
        if value == () and field.name not in _MAY_BE_EMPTY:
            raise InputError(f"{_flag(field.name)} needs at least one value.")
        for number in value if isinstance(value, tuple) else (value,):
            _check_number(field.name, number)
    if options.eps and options.noise_multiplier:
        raise InputError("Give --eps or --noise-multiplier, not both: one follows from the other.")
    for name in options.model:
        _ = models[name]
    axes = [value for value in asdict(options).values() if isinstance(value, tuple)]
    if math.prod(len(axis) or 1 for axis in axes) > MOST_CELLS:
        raise InputError(
            f"That is more than {MOST_CELLS:,} combinations: give fewer values, or split them into several."
        )
    if options.weights is not None and (len(options.model) > 1 or len(options.victim) > 1):
        raise InputError("--weights is one network's file: give one --model and one --victim with it.")
    attack = tuple(attacks.names()) if "all" in options.attack else options.attack
    default_eps = () if options.noise_multiplier else (1.0,)
    default_victim = ("early",) if options.weights is None else ("trained",)
    return replace(
        options,
        attack=attack,
        eps=options.eps or default_eps,
        victim=options.victim or default_victim,
    )


def from_configuration(stored: dict[str, Any], options: Options) -> Options:
    """The options a run's `config.toml` holds, shown the way `options` says.

    Raises:
        InputError: where `options` say anything else, or `stored` holds what is no option of this version.
    """
    if options.configuration() != checked(Options()).configuration():
        raise InputError(
            "--resume takes what is run from the folder: give nothing but --out, --executor and --quiet."
        )
    values = suite.fitting(stored, _configurable(), f"{options.out}/config.toml")
    shown = {name: getattr(options, name) for name in _SHOWING}
    return checked(Options(**values, **shown))


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if name.endswith("seed") and not 0 <= value < 2**63:
        raise InputError(f"{_flag(name)} must be at least 0 and below 2**63, not {value}.")
    if not math.isfinite(value):
        raise InputError(f"{_flag(name)} must be a finite number, not {value}.")
    if name in _POSITIVE and value <= 0:
        raise InputError(f"{_flag(name)} must be above 0, not {value:g}.")
    if name == "delta" and not 0 < value < 1:
        raise InputError(f"--delta must lie between 0 and 1, not {value:g}.")
    if name == "inclusion" and not 0 < value <= 1:
        raise InputError(f"--inclusion must be above 0 and at most 1, not {value:g}.")
    if name == "noise_std" and value < 0:
        raise InputError(f"--noise-std must be at least 0, not {value:g}.")
    if name == "prune_ratio" and not 0 <= value < 1:
        raise InputError(f"--prune-ratio must be at least 0 and below 1, not {value:g}.")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
