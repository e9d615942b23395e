"""The comparison with breaching: tiny searches, and numbers whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from benchmarks import peer, quality
from benchmarks.quality import COLUMNS, Options, cell, compared, defence, main, measured
from dpbench.data.channels import CIFAR10_MEAN, CIFAR10_STD
from dpbench.victim.networks import build

TINY = Options(
    victim=("lenet:untrained",), batch_size=(2,), defense=("none",), images=4, iterations=2, data="samples"
)


@pytest.fixture
def no_lpips(monkeypatch):
    """Its trunk may have to be downloaded."""
    monkeypatch.setattr("dpbench.metrics.lpips", lambda images, originals: torch.full((len(images),), 0.5))


@pytest.fixture
def breaching():
    """Skips where it is not installed; other tests get TorchScript back."""
    pytest.importorskip("breaching")
    peer.without_torchscript()
    yield
    torch.jit._state.enable()


def test_all_attack_the_same_release_and_are_measured_alike(monkeypatch, no_lpips):
    """A peer that hands back the images in another order has found all of them."""
    seen = []

    def found(config, iterations, seed, scene, release):
        seen.append((config, iterations, seed, release))
        return scene.images.flip(0)

    monkeypatch.setattr(quality, "theirs", found)
    own = []
    attack = quality.ours
    monkeypatch.setattr(quality, "ours", lambda *given: own.append(given[2]) or attack(*given))
    table = pd.DataFrame(list(measured(TINY)))
    assert set(COLUMNS) == set(table.columns)
    assert table.groupby("attack", sort=False).size().to_dict() == {
        "inverting-gradients": 4,
        "inverting-gradients:paper": 4,
        "breaching:invertinggradients": 4,
        "breaching:modern": 4,
    }
    assert sorted(table["batch_seed"].unique()) == [1000, 1001]
    assert np.isinf(table.loc[table["attack"] == "breaching:modern", "psnr"]).all()
    assert (table.loc[table["attack"] == "inverting-gradients", "psnr"] < 40).all()
    assert [each[:2] for each in seen] == [("invertinggradients", 2), ("modern", 2)] * 2
    assert [id(release) for release in own] == [id(each[3]) for each in seen]  # two of each, batch by batch


def test_gains_are_paired_by_image_and_over_the_first_attack():
    seeds, images = np.repeat(np.arange(10), 2), np.tile([0, 1], 10)
    about = {"victim": "lenet:untrained", "batch_size": 2, "defense": "none", "lpips": 0.1, "seconds": 1.0}
    first = pd.DataFrame({"batch_seed": seeds, "image": images, "psnr": seeds + 20.0, "attack": "first"})
    other = first.assign(psnr=first["psnr"] - 3 + 4 * images, attack="other").sample(frac=1, random_state=0)
    same, found = compared(pd.concat([first, other]).assign(**about))
    assert (same["gain"], same["low"], same["high"], same["better"]) == (0, 0, 0, 0)
    assert found["gain"] == pytest.approx(1)
    assert found["low"] == pytest.approx(found["high"]) == pytest.approx(1)  # every batch gains as much
    assert (found["images"], found["better"]) == (20, 10)


def test_words_name_defences_and_attacks():
    assert defence("none").given == defence("clip").given == {}
    assert defence("prune:0.9").given == {"prune_ratio": 0.9}
    assert defence("dp:100").given == {"eps": 100.0, "eps_scope": "release"}
    own = cell(TINY, "resnet20:early", 1, "clip:2", 1000, "inverting-gradients:paper")
    assert (own.batch.model, own.batch.norm, own.batch.victim) == ("resnet20", "frozen-bn", "early")
    assert own.attack.given == {"iterations": 2, "preset": "paper", "restarts": 1}
    assert own.defence.given == {"max_grad_norm": 2.0}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"defense": ("none", "prune:much")}, "Unknown defence 'prune:much'"),
        ({"defense": ("sign:3",)}, "Unknown defence 'sign:3'"),
        ({"defense": ("prune:2",)}, "prune_ratio"),
        ({"victim": ("lenet:trained",)}, "No trained victim lenet"),
        ({"attack": ("inverting-gradient",)}, "Unknown attack"),
        ({"attack": ()}, "none of dpbench's attacks"),
        ({"batch_size": (11,)}, "11"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_runs(given, said, tmp_path, capsys):
    assert main(replace(TINY, **{"peer": (), "out": tmp_path / "out", **given})) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_tables_are_written(no_lpips, tmp_path, capsys):
    options = replace(TINY, peer=(), attack=("inverting-gradients",), images=2, out=tmp_path)
    assert main(options) == 0
    assert len(pd.read_csv(tmp_path / "images.csv")) == 2
    assert pd.read_csv(tmp_path / "table.csv")["images"].tolist() == [2]


@pytest.mark.usefixtures("breaching")
@pytest.mark.parametrize("config", ["invertinggradients", "modern"])
def test_the_peer_sees_the_release_in_the_units_that_it_was_made_in(config):
    """Its images explain the gradient in our network, which normalises, too; and it leaves that as it is."""
    model = build("lenet")
    mean, std = (torch.tensor(values)[:, None, None] for values in (CIFAR10_MEAN, CIFAR10_STD))
    images, labels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([3])

    def gradient(x):
        return torch.autograd.grad(F.cross_entropy(model(x), labels), list(model.parameters()))

    def distance(x):
        one, other = (torch.cat([g.flatten() for g in gs]) for gs in (gradient(x), gradient(images)))
        return 1 - float(F.cosine_similarity(one, other, dim=0))

    torch.manual_seed(0)
    found = peer.breaching(
        config, model, gradient(images), labels, (3, 32, 32), CIFAR10_MEAN, CIFAR10_STD, iterations=60
    )
    assert found.shape == images.shape
    start = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert distance(found * std + mean) < 0.5 * distance(start * std + mean)
    assert distance(found * std + mean) < 0.5 * distance(found)  # what it would be without normalisation


@pytest.mark.usefixtures("breaching")
def test_a_peer_that_searches_labels_is_not_told_them():
    model, images = build("lenet"), torch.rand(2, 3, 32, 32)
    gradients = torch.autograd.grad(model(images).logsumexp(1).sum(), list(model.parameters()))
    given = (model, gradients, torch.tensor([3, 7]), (3, 32, 32), CIFAR10_MEAN, CIFAR10_STD)
    found = peer.breaching("deepleakage", *given, iterations=20)  # it raises where it is told labels
    assert found.shape == images.shape
