"""Releases from somebody's training loop: read as they were sent, attacked as they are."""

import copy
import re
import warnings

import pytest
import torch
from opacus import PrivacyEngine
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import dpbench
from dpbench.api.doubts import doubts
from dpbench.protocol import InputError, Release, Stage

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:Expected:UserWarning")
SIGMA, CLIP, EXPECTED = 0.7, 1.3, 6


def network():
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 24, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(24 * 16, 5),
    )
    return nn.Sequential(*layers)


def data(size=36):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(size, 3, 8, 8, generator=generator), torch.arange(size) % 5


def private(**more):
    """A model, its optimiser and its loader, as Opacus makes them."""
    torch.manual_seed(2)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    loader = DataLoader(TensorDataset(*data()), batch_size=EXPECTED)
    return PrivacyEngine().make_private(
        module=model,
        optimizer=optimizer,
        data_loader=loader,
        noise_multiplier=SIGMA,
        max_grad_norm=CLIP,
        **more,
    )


def dp_step(images, labels, **more):
    model, optimizer, _ = private(**more)
    with dpbench.capture(model, optimizer) as captured:
        cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model, optimizer, captured


def plain_step(images, labels):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with dpbench.capture(model, optimizer, batch_size=len(images)) as captured:
        cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model, captured


def test_a_plain_step_is_captured_with_the_model_it_was_made_with():
    images, labels = data(3)
    trained, captured = plain_step(images, labels)
    before = network()
    for name, p in captured.model.named_parameters():
        assert torch.equal(p, before.get_parameter(name))
        assert not torch.equal(p, trained.get_parameter(name))
    wanted = torch.autograd.grad(cross_entropy(before(images), labels), list(before.parameters()))
    assert captured.release.names == tuple(name for name, _ in before.named_parameters())
    for found, gradient in zip(captured.release.gradients, wanted, strict=True):
        torch.testing.assert_close(found, gradient)


def test_training_goes_on_as_if_nobody_looked():
    images, labels = data(3)
    trained, _ = plain_step(images, labels)
    alone = network()
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.5)
    cross_entropy(alone(images), labels).backward()
    optimizer.step()
    for one, other in zip(trained.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not optimizer._optimizer_step_pre_hooks


def test_an_opacus_step_is_what_the_server_gets():
    images, labels = data(4)
    model, optimizer, captured = dp_step(images, labels)
    release = captured.release
    assert release.defense == (Stage("dp", {"noise_multiplier": SIGMA, "max_grad_norm": CLIP}),)
    assert release.batch_size == EXPECTED
    for before, after, sent in zip(
        captured.model.parameters(), model.parameters(), release.gradients, strict=True
    ):
        torch.testing.assert_close(before - 0.5 * sent, after)
    assert type(captured.model) is nn.Sequential
    assert not any(m._forward_hooks or m._backward_hooks for m in captured.model.modules())
    again = Release.from_optimizer(optimizer)
    assert all(torch.equal(a, b) for a, b in zip(again.gradients, release.gradients, strict=True))


def test_ghost_clipping_is_read_likewise():
    images, labels = data(4)
    torch.manual_seed(2)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    loader = DataLoader(TensorDataset(*data()), batch_size=EXPECTED)
    model, optimizer, criterion, _ = PrivacyEngine().make_private(
        module=model,
        optimizer=optimizer,
        criterion=nn.CrossEntropyLoss(),
        data_loader=loader,
        noise_multiplier=SIGMA,
        max_grad_norm=CLIP,
        grad_sample_mode="ghost",
    )
    with dpbench.capture(model, optimizer) as captured:
        criterion(model(images), labels).backward()
        optimizer.step()
    fitted = rescaled(captured.release, captured.model, 4)
    assert doubts(fitted, captured.model, cross_entropy, images, labels) == []
    assert captured.release.batch_size == EXPECTED


def rescaled(release, model, count):
    from dpbench.api.attack import _fitted

    return _fitted(release, model, count)


def test_a_batch_of_another_size_than_expected_keeps_its_noise():
    images, labels = data(4)
    _, _, captured = dp_step(images, labels)
    fitted = rescaled(captured.release, captured.model, 4)
    assert fitted.batch_size == 4
    assert fitted.noise_on_sum() == pytest.approx(SIGMA * CLIP)
    for once, then in zip(captured.release.gradients, fitted.gradients, strict=True):
        torch.testing.assert_close(once * EXPECTED, then * 4)
    assert doubts(fitted, captured.model, cross_entropy, images, labels) == []


def test_noise_of_another_level_than_claimed_is_noticed():
    images, labels = data(4)
    _, _, captured = dp_step(images, labels)
    claimed = Stage("dp", {"noise_multiplier": 2 * SIGMA, "max_grad_norm": CLIP})
    fitted = rescaled(captured.release, captured.model, 4)
    lying = Release(fitted.names, fitted.gradients, 4, (claimed,))
    (line,) = doubts(lying, captured.model, cross_entropy, images, labels)
    assert re.search("lies 0.(4[7-9]|5[0-3]) times", line)


def test_the_model_after_the_step_is_noticed():
    images, labels = data(3)
    trained, captured = plain_step(images, labels)
    assert doubts(captured.release, captured.model, cross_entropy, images, labels) == []
    (line,) = doubts(captured.release, trained, cross_entropy, images, labels)
    assert "before the step" in line


def test_an_undefended_step_gives_its_image_away():
    images, labels = data(1)
    _, captured = plain_step(images, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        table = dpbench.attack(
            captured.release,
            model=captured.model,
            originals=(images, labels),
            attacks="peel",
            progress=False,
            iterations=1,
        )
    (row,) = table[table["attack"] == "peel"].to_dict("records")
    assert row["defense"] == "none"
    assert row["psnr"] > 60
    assert bool(row["certified"])
    assert (table["floor"].notna().sum()) >= 2


@pytest.mark.usefixtures("bare_exports")
def test_it_is_the_release_that_is_attacked_and_not_one_of_our_own(tmp_path):
    """A release of zeros tells nothing, and dpbench could have made a better one from the originals."""
    images, labels = data(1)
    _, captured = plain_step(images, labels)
    other = network()
    loss = cross_entropy(other(images.flip(0, 3)), labels)
    strange = Release(
        captured.release.names, torch.autograd.grad(loss, list(other.parameters())), batch_size=1
    )
    given = {
        "model": captured.model,
        "originals": (images, labels),
        "attacks": "peel",
        "progress": False,
        "iterations": 1,
    }
    with pytest.warns(UserWarning, match="differs by"):
        table = dpbench.attack(strange, out=tmp_path, **given)
    (row,) = table[table["attack"] == "peel"].to_dict("records")
    assert row["psnr"] < 30
    again = dpbench.attack(captured.release, out=tmp_path / "other", **given)
    assert again[again["attack"] == "peel"]["psnr"].item() > 60
    assert set(again["key"]).isdisjoint(table["key"])


@pytest.mark.parametrize(
    ("budget", "eps"),
    [
        ({}, None),
        ({"train_size": 36, "epochs": 2}, dpbench.privacy.epsilon(SIGMA, 1e-5, 1 / 6, 12)),
    ],
)
def test_the_rows_have_the_epsilon_of_what_was_sent(budget, eps):
    images, labels = data(8)  # Poisson sampling drew more than it expects
    _, _, captured = dp_step(images, labels)
    table = dpbench.attack(
        captured.release,
        model=captured.model,
        originals=(images, labels),
        iterations=1,
        preset="paper",
        progress=False,
        **budget,
    )
    row = table[(table["defense"] == "dp") & table["floor"].isna()].iloc[0]
    assert row["status"] == "ok"
    assert row["noise_multiplier"] == SIGMA
    assert row["max_grad_norm"] == CLIP
    assert row["eps_release"] == pytest.approx(dpbench.privacy.epsilon(SIGMA, 1e-5, 1, 1), rel=1e-3)
    assert row["eps"] == pytest.approx(eps, rel=1e-3) if eps else row.isna()["eps"]


def read_before_the_step():
    model, optimizer, _ = private()
    cross_entropy(model(data(4)[0]), data(4)[1]).backward()
    return Release.from_optimizer(optimizer)


def read_in_a_virtual_step():
    model, optimizer, loader = private()
    with BatchMemoryManager(data_loader=loader, max_physical_batch_size=1, optimizer=optimizer) as batches:
        images, labels = next(iter(batches))
        cross_entropy(model(images), labels).backward()
        optimizer.step()
    return Release.from_optimizer(optimizer)


def captured_in_a_virtual_step():
    model, optimizer, loader = private()
    with BatchMemoryManager(data_loader=loader, max_physical_batch_size=1, optimizer=optimizer) as batches:
        images, labels = next(iter(batches))
        with dpbench.capture(model, optimizer) as captured:
            cross_entropy(model(images), labels).backward()
            optimizer.step()
    return captured.release


def captured_with_a_batch_size():
    model, optimizer, _ = private()
    with dpbench.capture(model, optimizer, batch_size=6):
        pass


def several_steps():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    images, labels = data(2)
    with dpbench.capture(model, optimizer, batch_size=2) as captured:
        for _ in range(2):
            cross_entropy(model(images), labels).backward()
            optimizer.step()
    return captured.release


def attacked(release=None, model=None, **options):
    images, labels = data(1)
    _, captured = plain_step(images, labels)
    return dpbench.attack(
        release or captured.release,
        model=model or captured.model,
        originals=(images, labels),
        **options,
    )


@pytest.mark.parametrize(
    ("do", "said"),
    [
        (read_before_the_step, "after `step\\(\\)`"),
        (read_in_a_virtual_step, "after `step\\(\\)`"),
        (lambda: per_layer(), "another rule"),
        (lambda: Release.from_optimizer(torch.optim.SGD(network().parameters(), lr=1)), "from_gradients"),
        (lambda: Release.from_gradients(network(), batch_size=1), "holds no gradient"),
        (lambda: Release.from_gradients(network(), batch_size=0), "1 or more"),
        (lambda: Release.from_gradients(network(), batch_size="4"), "a whole number, not '4'"),
        (captured_in_a_virtual_step, "made no step .* whole batch"),
        (captured_with_a_batch_size, "Leave out `batch_size`"),
        (several_steps, "made 2 optimiser steps"),
        (lambda: attacked(eps=1), "takes no eps"),
        (lambda: attacked(threat_model="informed"), "takes no threat_model"),
        (lambda: attacked(train_size=100), "none has none"),
        (lambda: attacked(model=nn.Sequential(nn.Flatten(), nn.Linear(192, 5))), "do not fit"),
    ],
)
def test_what_cannot_be_read_is_said(do, said):
    with pytest.raises(InputError, match=said):
        do()


def per_layer():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    loader = DataLoader(TensorDataset(*data()), batch_size=EXPECTED)
    _, optimizer, _ = PrivacyEngine().make_private(
        module=model,
        optimizer=optimizer,
        data_loader=loader,
        noise_multiplier=SIGMA,
        max_grad_norm=[CLIP] * 4,
        clipping="per_layer",
    )
    return Release.from_optimizer(optimizer)


def test_wrapped_models_are_unwrapped():
    from dpbench.victim.unwrapped import unwrapped

    model = network()
    for wrapped in (nn.DataParallel(model), torch.compile(model), nn.DataParallel(torch.compile(model))):
        assert type(unwrapped(wrapped)) is nn.Sequential
    alone = nn.Sequential(copy.deepcopy(model))  # one child, but no wrapper
    assert len(unwrapped(alone)) == 1
