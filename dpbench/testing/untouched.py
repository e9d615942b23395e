"""What a defence is given stays as it is: gradients, victim and batch."""

from __future__ import annotations

import copy

import torch
from torch.nn import functional as F

import defenses
from defenses import PostProcessor
from dpbench.testing.chains import SIZES, batch, created, released, victim
from dpbench.testing.claims import claim, same


def given_gradients_are_left_as_they_were(name: str) -> None:
    """Each stage that works on gradients makes new ones."""
    (plain,) = released(victim(), defenses.NONE)
    for stage in created(name).stages:
        if isinstance(stage, PostProcessor):
            given = tuple(g.clone() for g in plain.gradients)
            stage.process_all([given], torch.Generator().manual_seed(0))
            claim(
                same(given, plain.gradients),
                f"{stage.name} changes the gradients that it is given: make new tensors, without operations "
                "in place.",
            )


def the_victim_and_the_batch_are_left_as_they_were(name: str) -> None:
    """Weights, gradients, modes, hooks, attributes, images and labels."""
    for training in (False, True):
        for size in SIZES:
            _leaves_alone(name, training, size)


def _leaves_alone(name: str, training: bool, size: int) -> None:
    model = victim().train(training)
    model[0].weight.requires_grad_(False)
    model.register_buffer("constant", torch.ones(1))
    for p in model.parameters():
        p.grad = torch.ones_like(p)

    def attributes() -> list[object]:
        found = [(m.training, vars(m).get("inplace"), set(vars(m))) for m in model.modules()]
        return [*found, *((p.requires_grad, set(vars(p))) for p in model.parameters())]

    before, noted, (images, labels) = copy.deepcopy(model), attributes(), batch(size)
    given = images.clone(), labels.clone()
    created(name).release(model, F.cross_entropy, *given, seed=0)
    claim(attributes() == noted, f"{name} leaves the victim with other modes, flags or attributes.")
    for m in model.modules():
        hooks = m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        claim(not hooks, f"{name} leaves hooks on the victim.")
    for key, value in model.state_dict().items():
        claim(same([value], [before.state_dict()[key]]), f"{name} changes `{key}` of the victim.")
    claim(all(bool((p.grad == 1).all()) for p in model.parameters()), f"{name} writes into `.grad`.")
    claim(same(given, (images, labels)) and not given[0].requires_grad, f"{name} changes the batch.")
