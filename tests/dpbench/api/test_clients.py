"""Sums over several clients from Python: each batch of a list is one client's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import defenses
import dpbench
from dpbench.protocol import InputError


def given(count, size=1):
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(size, 3, 8, 8, generator=generator) for _ in range(count)]
    return images, [torch.arange(size) + 1 for _ in range(count)]


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).eval()


def run(images, labels, **more):
    common = {"attacks": "dlg", "iterations": 1, "device": "cpu", "progress": False}
    return dpbench.benchmark(model(), images, labels, **common, **more)


def test_batches_are_summed_with_those_that_follow():
    images, labels = given(3)
    table = run(images, labels, clients=[1, 2])
    attacked = table[table["attack"] == "dlg"].set_index(["clients", "batch_seed"])
    assert len(attacked) == 6
    assert attacked["original_index"].tolist() == [0, 0, 1, 1, 2, 2]
    alone = attacked["release_norm"][1]
    means = attacked["release_norm"][2]
    assert all(means[i] <= (alone[i] + alone[(i + 1) % 3]) / 2 + 1e-6 for i in range(3))
    assert (attacked["image_grad_share"][1] == 1).all()
    assert (attacked["image_grad_share"][2] < 1).all()


def test_too_few_batches_or_of_two_sizes():
    one, other = given(1), given(1, size=2)
    for images, labels in (one, (one[0] + other[0], one[1] + other[1])):
        with pytest.raises(InputError, match="A sum over 2 `clients` needs 2 batches of one size"):
            run(images, labels, clients=2)


def test_who_adds_the_noise_is_asked_of_objects_too():
    images, labels = given(2)
    defence = defenses.create("dp", noise_multiplier=1.0)
    table = run(images, labels, defense=defence, clients=2, noise=["local", "central"])
    found = table[table["defense"] == "dp"].set_index("noise")
    assert set(found.index) == {"local", "central"}
    assert found["eps_release"]["central"].isna().all()
    assert found["eps_release"]["local"].notna().all()


@pytest.mark.parametrize("more", [{"clients": 2}, {"noise": "local"}, {"unit": "user"}])
def test_what_was_sent_says_it_itself(more):
    images, labels = given(1)
    network = model()
    torch.nn.functional.cross_entropy(network(images[0]), labels[0]).backward()
    release = dpbench.Release.from_gradients(network, batch_size=1)
    with pytest.raises(InputError, match=next(iter(more))):
        dpbench.attack(release, model=network, originals=(images[0], labels[0]), progress=False, **more)
