"""Whose images are summed with the attacked ones."""

from __future__ import annotations

import hashlib

import pytest
import torch

from dpbench.data import draw_disjoint, load_data, with_clients
from dpbench.protocol import InputError

DATA = load_data("samples")


def drawn(clients, size=2, seed=0, label_draw="distinct"):
    return with_clients(DATA, draw_disjoint(DATA, size, seed, label_draw), clients, seed, label_draw)


def test_the_attacked_batch_comes_first_and_is_always_the_same():
    one, three, five = drawn(1), drawn(3), drawn(5)
    assert three.indices[:2] == five.indices[:2] == one.indices
    assert five.indices[:6] == three.indices
    assert torch.equal(five.images[:2], one.images)


def test_nobody_has_an_image_twice():
    found = drawn(5)
    assert len(set(found.indices)) == len(found.indices) == 10
    assert torch.equal(found.labels, DATA.labels[list(found.indices)])
    assert torch.equal(found.images, DATA.images[list(found.indices)].float() / 255)


def test_labels_of_each_client_are_distinct():
    for labels in drawn(4, size=3).labels.split(3):
        assert len(labels.unique()) == 3


def test_the_rule_without_labels():
    found = drawn(3, label_draw="random").indices
    left = [i for i in range(len(DATA.labels)) if i not in found[:2]]
    left.sort(key=lambda i: hashlib.sha256(f"dpbench clients 0 {i}".encode()).digest())
    assert list(found[2:]) == left[:4]


def test_too_few_images():
    with pytest.raises(InputError, match="too few images for 20 clients of 2 each"):
        drawn(20)
