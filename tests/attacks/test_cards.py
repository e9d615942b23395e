"""What a graphics card would refuse, seen without one: other layouts, other devices, reads within a graph.

Tensors on PyTorch's `meta` device hold nothing. An operation on tensors of two devices fails on them as on a
card, and so does reading a value, which a captured graph cannot do.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.func import functional_call

import attacks
from attacks.engine import programs, search, steps
from attacks.engine.runners import Inputs
from attacks.engine.search import _built
from dpbench.data import image_statistics
from dpbench.protocol import Stage
from tests.helpers.attacks import know, plain_release, smooth_images

SEARCHES = {
    "inverting-gradients": {},
    "gradinversion": {"restarts": 2},
    "deepinversion": {},
}


def on_a_card(inputs):
    """`inputs` as a graph owns them, on a card that does not exist."""

    def moved(tensor):
        found = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        return found.requires_grad_(tensor.requires_grad)

    tensors, flat, row, labels, noise = inputs.copied()
    return Inputs(
        {name: moved(t) for name, t in tensors.items()},
        [moved(t) for t in flat],
        moved(row),
        moved(labels),
        [moved(t) for t in noise],
    )


@pytest.fixture
def seen(monkeypatch):
    """The iterations that attacks search with, and their inputs."""
    found, runners = [], search.__globals__["_runners"]

    def spy(engine, iteration, states, row, labels, noise, announce):
        found.append((iteration, Inputs(steps.tensors_of(iteration), states[0], row, labels, noise)))
        return runners(engine, iteration, states, row, labels, noise, announce)

    monkeypatch.setitem(search.__globals__, "_runners", spy)
    return found


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("defended", [False, True])
def test_an_iteration_is_of_one_device_and_reads_nothing_back(name, defended, seen, tiny):
    release = plain_release(tiny, torch.rand(2, 3, 8, 8), torch.tensor([1, 2]))
    if defended:
        stages = (
            Stage("clip", {"max_grad_norm": 1.0}),
            Stage("noise", {"noise_std": 0.01}),
            Stage("prune", {"prune_ratio": 0.5}),
        )
        release = replace(release, defense=stages)
    images = smooth_images(30)
    statistics = image_statistics.fit((255 * images).round().byte(), images.mean(0))
    knowledge = know(tiny, torch.tensor([1, 2]), (3, 8, 8), 4, image_statistics=statistics)
    attack = attacks.create(name, iterations=1, engine="eager", **SEARCHES[name])
    attack(release, knowledge, seed=0)
    assert seen
    for iteration, inputs in seen:
        tensors, *rest = on_a_card(inputs)
        new = functional_call(iteration, tensors, tuple(rest))
        assert {tensor.device.type for tensor in new} == {"meta"}
        assert [tensor.shape for tensor in new] == [tensor.shape for tensor in inputs.flat]


def test_the_fake_card_refuses_what_a_card_would():
    there = torch.ones(2, device="meta")
    with pytest.raises(RuntimeError, match="device"):
        there + torch.ones(2)
    with pytest.raises(RuntimeError, match="meta"):
        float(there.sum())


def test_what_is_compiled_has_the_layout_of_what_a_graph_feeds(monkeypatch, seen, tiny):
    """Inductor's programs assert strides, so one compiled for other strides always fails."""

    class OnCard:
        type = "cuda"

    class Row(torch.Tensor):
        device = OnCard()

    release = plain_release(tiny, torch.rand(2, 3, 8, 8), torch.tensor([1, 2]))
    knowledge = know(tiny, labels=torch.tensor([1, 2]), shape=(3, 8, 8), classes=4)
    attacks.create("inverting-gradients", iterations=1, engine="eager")(release, knowledge, seed=0)
    iteration, inputs = seen[0]
    compiled, captured = [], []

    class Graph:
        def __init__(self, step, own):
            captured.append([t.stride() for t in own.all()])
            self.own = own.all()

        def adopt(self, tensors, labels):
            pass

    def compile_(iteration, given):
        compiled.append([t.stride() for t in given.all()])
        return lambda *parts: iteration(*parts[1:])

    monkeypatch.setattr("attacks.engine.steps.compiled", compile_)
    monkeypatch.setitem(search.__globals__, "Graph", Graph)
    monkeypatch.setitem(search.__globals__, "full_precision", lambda device: torch.no_grad())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1, 1))
    on_card = inputs._replace(row=inputs.row.as_subclass(Row))
    first, second = _built("compiled", iteration, on_card, 2, lambda: None)
    programs.forget()
    assert captured == [compiled[0], compiled[0]]
    assert compiled[0] != [t.stride() for t in inputs.all()]  # channels_last
    addresses = [{t.data_ptr() for t in graph.own if t.numel()} for graph in (first, second)]
    assert not addresses[0] & addresses[1]
