"""The options of sweeps themselves: what no attack, defence or threat model declares."""

from __future__ import annotations

from typing import Any

from dpbench.protocol import Parameter
from dpbench.sweep.option import ATTACKS, DEFENCES, EACH_ITS_OWN, OUTPUT, SCENE, WHERE, Option


def _option(
    group: str,
    name: str,
    kind: type,
    default: Any,
    help: str,
    *,
    decides: bool = True,
    hint: str = "",
    choices: tuple[str, ...] = (),
    **ranges: float,
) -> Option:
    several = isinstance(default, tuple)
    declared = Parameter(name, kind, choices, default is None, default, help, **ranges)
    return Option(declared, default, several, group, decides, hint)


_SEED = {"at_least": 0}
OWN = (
    _option(SCENE, "data", str, "samples", "images: samples, imagenet-samples, cifar10, folder:PATH"),
    _option(
        SCENE,
        "image_size",
        int,
        None,
        "resize and crop to this many pixels",
        hint="images as they are",
        at_least=1,
        at_most=4096,
    ),
    _option(SCENE, "batch_size", int, (1, 4), "images per attacked gradient", at_least=1, below=10**6),
    _option(
        SCENE, "batch_seed", int, (0,), "which batches are drawn, by the rule of dpbench.data.draw_batch", **_SEED
    ),
    _option(
        SCENE,
        "label_draw",
        str,
        ("distinct",),
        "whether the labels of a batch differ from each other",
        choices=("distinct", "random"),
    ),
    _option(
        SCENE, "model", str, ("convnet",), "victim networks: lenet, convnet, resnet20, resnet18, resnet50"
    ),
    _option(
        SCENE,
        "norm",
        str,
        EACH_ITS_OWN,
        "their normalisation",
        hint="each network's usual one",
        choices=("none", "frozen-bn", "gn"),
    ),
    _option(
        SCENE,
        "victim",
        str,
        EACH_ITS_OWN,
        "how far they were trained",
        hint="early; with `weights` trained, a name for your file only",
        choices=("early", "trained", "untrained"),
    ),
    _option(
        SCENE,
        "weights",
        str,
        None,
        "weights for the one `model`: your file (.safetensors, or a .pt state dict), or resnet50-imagenet",
        hint="the shipped ones",
    ),
    _option(
        SCENE,
        "logit_scale",
        float,
        (1.0,),
        "what the victim's last layer is multiplied by; below 1 the victim is another, less sure of itself",
        above=0,
    ),
    _option(
        SCENE,
        "labels",
        str,
        ("known",),
        "whether the attacker is told the labels or has to infer them",
        choices=("known", "inferred"),
    ),
    _option(
        SCENE,
        "bn_stats",
        str,
        ("running",),
        "batch-norm statistics the attacker is told: public ones, the batch's own, or those a client sent",
        choices=("running", "exact", "recovered", "none"),
    ),
    _option(
        DEFENCES,
        "defense",
        str,
        ("none", "dp"),
        "defences: none, dp, clip, noise, prune or your own; chained by +, as in clip+prune",
    ),
    _option(ATTACKS, "attack", str, ("inverting-gradients",), "attacks by name, or all"),
    _option(
        ATTACKS,
        "attack_seed",
        int,
        (0,),
        "seeds of the attack's start and of the defence's noise",
        **_SEED,
    ),
    _option(
        ATTACKS,
        "threat_model",
        str,
        EACH_ITS_OWN,
        "honest (a curious server), malicious-linear (it planted a layer), informed (knows all but one sample)",
        hint="each attack's usual one",
    ),
    _option(
        ATTACKS,
        "generator",
        str,
        ("cifar10",),
        "what latent-projection searches: cifar10, biggan, or your file (docs/generators.md)",
    ),
    _option(
        WHERE,
        "device",
        str,
        "auto",
        "where to run; auto takes the graphics card if there is one",
        choices=("auto", "cpu", "cuda"),
    ),
    _option(
        WHERE,
        "engine",
        str,
        "auto",
        "what runs iterations: PyTorch's operations, a CUDA graph, or a compiled program; auto: what pays",
        choices=("auto", "eager", "graph", "compiled"),
    ),
    _option(
        WHERE,
        "executor",
        str,
        "local",
        "where cells run: in this process, in one per graphics card or core, or on a Ray cluster",
        decides=False,
        choices=("local", "workers", "ray"),
    ),
    _option(
        WHERE,
        "workers",
        int,
        None,
        "processes of `executor` workers; more than there are graphics cards share them",
        decides=False,
        hint="one per graphics card or core",
        at_least=1,
        at_most=4096,
    ),
    _option(
        WHERE,
        "ray_address",
        str,
        "auto",
        "the cluster of `executor` ray, in Ray's own words: auto, HOST:PORT or local",
        decides=False,
    ),
    _option(
        WHERE,
        "gpus_per_cell",
        float,
        1.0,
        "share of a graphics card that `executor` ray reserves for a cell",
        decides=False,
        above=0,
        at_most=1024,
    ),
    _option(
        OUTPUT,
        "suite",
        str,
        None,
        "options from a named sweep (quick, epsilon, ...) or a .toml file; options given here win",
        decides=False,
        hint="none",
    ),
    _option(
        OUTPUT,
        "out",
        str,
        None,
        "the folder for the results",
        decides=False,
        hint="results/NAME, made from the configuration",
    ),
    _option(
        OUTPUT,
        "resume",
        bool,
        False,
        "take every option from the config.toml in `out` and run what is missing or failed there",
        decides=False,
    ),
    _option(
        OUTPUT,
        "status",
        str,
        None,
        "show how far the run in this folder is, and do nothing else",
        decides=False,
        hint="no folder",
    ),
    _option(
        OUTPUT,
        "dry_run",
        bool,
        False,
        "say what would be run and, from a second of each kind of cell, how long and in how much memory",
        decides=False,
    ),
    _option(OUTPUT, "quiet", bool, False, "print errors only", decides=False),
    _option(
        OUTPUT,
        "plugin",
        str,
        (),
        "modules or .py files with attacks, defences, ... of your own, imported first",
        hint="none",
    ),
)
"""The options of sweeps themselves."""
