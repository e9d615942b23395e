"""PRECODE's network, loss and gradient, written down a second time."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

import defenses
from dpbench.protocol import InputError, bottleneck_head

torch.set_num_threads(1)
WIDTH, BETA = 3, 0.2


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5)).double()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(4, 3, 2, 2, generator=generator, dtype=torch.float64), torch.tensor([0, 3, 1, 1])


def create(**given):
    return defenses.create("precode", precode_width=WIDTH, precode_beta=BETA, **given)


def test_the_loss_is_that_of_random_codes_and_their_divergence(model, batch):
    """The release is the gradient of this value, with the noise that the generator gives next."""
    images, labels = batch
    changed, _ = create().victim(model, F.cross_entropy)
    weights = dict(changed.named_parameters())
    noise = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    features = F.relu(images.flatten(1) @ weights["1.weight"].T + weights["1.bias"])
    coded = features @ weights["3.bottleneck.encoder.weight"].T + weights["3.bottleneck.encoder.bias"]
    codes = Normal(coded[:, :WIDTH], (1 + (coded[:, WIDTH:] - 5).exp()).log())
    drawn = codes.mean + codes.stddev * noise
    decoded = drawn @ weights["3.bottleneck.decoder.weight"].T + weights["3.bottleneck.decoder.bias"]
    logits = decoded @ weights["3.linear.weight"].T + weights["3.linear.bias"]
    divergence = kl_divergence(codes, Normal(0.0, 1.0)).sum(1).mean()
    value = F.cross_entropy(logits, labels) + BETA * divergence
    expected = torch.autograd.grad(value, list(weights.values()))
    release = create().release(model, F.cross_entropy, images, labels, seed=5)
    assert release.names == tuple(weights)
    torch.testing.assert_close(list(release.gradients), list(expected))


def test_the_last_layer_and_all_before_it_keep_their_weights(model, batch):
    changed, loss = create().victim(model, F.cross_entropy)
    for before, after in (("1", "1"), ("3", "3.linear")):
        assert torch.equal(model.get_submodule(before).weight, changed.get_submodule(after).weight)
    assert model.get_submodule("3").weight is not changed.get_submodule("3.linear").weight
    again, same = create().victim(changed, loss)
    assert again is changed
    assert same is loss
    with pytest.raises(InputError, match="of width 3 already"):
        defenses.create("precode", precode_width=4).victim(changed, loss)
    fresh, _ = create().victim(model, F.cross_entropy)
    assert torch.equal(*(m.get_parameter("3.bottleneck.decoder.weight") for m in (changed, fresh)))


def test_a_linear_model_gets_a_bottleneck_before_it():
    changed, _ = create().victim(nn.Linear(6, 2), F.cross_entropy)
    assert changed(torch.rand(3, 6)).shape == (3, 3)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ((nn.Conv2d(3, 5, 2), nn.Flatten()), "has none"),
        ((nn.Flatten(), nn.Linear(12, 5), nn.Tanh()), "returns what its last"),
        ((nn.Flatten(2), nn.Linear(4, 5), nn.Flatten()), "returns what its last"),
    ],
)
def test_networks_that_do_not_end_with_a_fully_connected_layer_are_refused(batch, layers, said):
    with pytest.raises(InputError, match=said):
        create().release(nn.Sequential(*layers).double(), F.cross_entropy, *batch, seed=0)


def test_noise_of_another_number_of_samples_is_left_out(model, batch):
    changed, _ = create().victim(model, F.cross_entropy)
    bottleneck = bottleneck_head(changed)[1].bottleneck
    means = changed(batch[0])
    bottleneck.noise = torch.ones(2, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(changed(batch[0]), means)
    assert not torch.allclose(changed(batch[0][:2]), means[:2])
