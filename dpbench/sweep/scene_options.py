"""The options of sweeps about what is attacked: images, batches and the victim."""

from __future__ import annotations

from dpbench.sweep.option import EACH_ITS_OWN, SCENE, option

OF_SCENES = (
    option(SCENE, "data", str, "samples", "images: samples, imagenet-samples, cifar10, folder:PATH"),
    option(
        SCENE,
        "image_size",
        int,
        None,
        "resize and crop to this many pixels",
        hint="images as they are",
        at_least=1,
        at_most=4096,
    ),
    option(SCENE, "batch_size", int, (1, 4), "images per attacked gradient", at_least=1, below=10**6),
    option(
        SCENE,
        "clients",
        int,
        (1,),
        "clients with a batch each, of whose gradients the server sees the sum alone (docs/aggregation.md)",
        at_least=1,
        below=10**6,
    ),
    option(
        SCENE,
        "batch_seed",
        int,
        (0,),
        "which batches are drawn; those of other seeds hold other images while there are any",
        at_least=0,
    ),
    option(
        SCENE,
        "label_draw",
        str,
        ("distinct",),
        "whether the labels of a batch differ from each other",
        choices=("distinct", "random"),
    ),
    option(
        SCENE,
        "model",
        str,
        ("convnet",),
        "victim networks: lenet, convnet, mlp, vit, resnet20, resnet18, resnet50; or FILE.py:FUNCTION, "
        "module:FUNCTION, torchvision:NAME, timm:NAME, transformers:NAME (docs/own-model.md)",
    ),
    option(
        SCENE,
        "norm",
        str,
        EACH_ITS_OWN,
        "their normalisation",
        hint="each network's usual one",
        choices=("none", "frozen-bn", "gn"),
    ),
    option(
        SCENE,
        "victim",
        str,
        EACH_ITS_OWN,
        "how far they were trained",
        hint="early; with `weights` trained, a name for your file only",
        choices=("early", "trained", "untrained"),
    ),
    option(
        SCENE,
        "weights",
        str,
        None,
        "weights for the one `model`: your file (.safetensors, or a .pt state dict), or resnet50-imagenet",
        hint="the shipped ones",
    ),
    option(
        SCENE,
        "logit_scale",
        float,
        (1.0,),
        "what the victim's last layer is multiplied by; below 1 the victim is another, less sure of itself",
        above=0,
    ),
    option(
        SCENE,
        "trainable",
        str,
        ("all",),
        "what the client trains, and so sends the gradient of: all layers, the last one alone (head), or "
        "parts by their names, joined by + (head+blocks.3; docs/transfer-learning.md)",
    ),
    option(
        SCENE,
        "labels",
        str,
        ("known",),
        "whether the attacker is told the labels or has to infer them",
        choices=("known", "inferred"),
    ),
    option(
        SCENE,
        "bn_stats",
        str,
        ("running",),
        "batch-norm statistics the attacker is told: public ones, the batch's own, or those a client sent",
        choices=("running", "exact", "recovered", "none"),
    ),
)
