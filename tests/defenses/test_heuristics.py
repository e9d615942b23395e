"""Soteria, CENSOR and Outpost against their rules, written down a second time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import defenses
from defenses.censor import orthogonal
from defenses.soteria import jacobian_norms
from dpbench.protocol import InputError

torch.set_num_threads(1)


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).double()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(3, 3, 6, 6, generator=generator, dtype=torch.float64), torch.tensor([0, 3, 1])


def released(model, batch, name, seed=0, **given):
    return defenses.create(name, **given).release(model, F.cross_entropy, *batch, seed=seed).gradients


def plain(model, batch):
    return torch.autograd.grad(F.cross_entropy(model(batch[0]), batch[1]), list(model.parameters()))


def test_soteria_masks_what_tells_least_in_the_head_alone(model, batch):
    """Sample by sample: the gradient of the head is error x masked features, by a loop over features."""
    images, labels = batch
    head, body = model[3], model[:3]
    expected = torch.zeros_like(head.weight)
    for image, label in zip(images, labels, strict=True):
        x = image[None].clone().requires_grad_()
        features = body(x)[0]
        ratios = [
            float(torch.autograd.grad(f, x, retain_graph=True)[0].norm() / f.detach().abs())
            if f != 0
            else np.inf
            for f in features
        ]
        kept = features.detach().clone()
        kept[np.argsort(ratios, kind="stable")[: round(0.3 * 64)].tolist()] = 0
        error = head(features).softmax(0) - F.one_hot(label, 5)
        expected += torch.outer(error, kept).detach() / 3
    found = released(model, batch, "soteria", soteria_ratio=0.3)
    torch.testing.assert_close(found[2], expected)
    usual = plain(model, batch)
    for i in (0, 1, 3):
        torch.testing.assert_close(found[i], usual[i])
    assert float((usual[2] - expected).abs().max()) > 1e-3


def test_soteria_without_a_share_is_no_defence_and_one_image_has_columns_of_zeros(model, batch):
    for found, usual in zip(
        released(model, batch, "soteria", soteria_ratio=0), plain(model, batch), strict=True
    ):
        torch.testing.assert_close(found, usual)
    single = batch[0][:1], batch[1][:1]
    before, after = plain(model, single)[2], released(model, single, "soteria", soteria_ratio=0.25)[2]
    masked = (after == 0).all(0) & (before != 0).any(0)
    assert int(masked.sum()) == 16
    torch.testing.assert_close(after[:, ~masked], before[:, ~masked])


def test_the_last_layer_is_the_one_that_runs_last():
    """Its place among the model's attributes says nothing."""

    class HeadFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.body = nn.Linear(8, 5), nn.Linear(12, 8)

        def forward(self, images):
            return self.head(self.body(images.flatten(1)))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        given, batch = HeadFirst(), (torch.rand(1, 3, 2, 2), torch.tensor([1]))
    head, _, body, _ = released(given, batch, "soteria", soteria_ratio=0.5)
    assert int((head == 0).all(0).sum()) == 4
    assert not (body == 0).all(0).any()


def test_jacobian_norms_take_more_features_than_a_chunk(monkeypatch):
    monkeypatch.setattr("defenses.soteria.CHUNK", 7)
    x = torch.rand(2, 3, 2, 2, requires_grad=True)
    weights = torch.rand(12, 17)
    found = jacobian_norms(x.flatten(1) @ weights, x)
    torch.testing.assert_close(found, weights.norm(dim=0).expand(2, 17))


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(3, 5, 6), nn.Flatten()),  # no fully connected layer
        (nn.Flatten(2), nn.Linear(36, 5), nn.Flatten()),  # one that takes tokens
    ],
)
def test_soteria_says_which_models_it_does_not_fit(batch, layers):
    with pytest.raises(InputError, match="soteria"):
        released(nn.Sequential(*layers).double(), batch, "soteria")


def test_censor_sends_noise_orthogonal_to_each_tensor_and_as_long(model, batch):
    usual = plain(model, batch)
    found = released(model, batch, "censor", censor_trials=1)
    for sent, gradient in zip(found, usual, strict=True):
        assert float((sent * gradient).sum()) == pytest.approx(0, abs=1e-12 * float(gradient.norm()) ** 2)
        assert float(sent.norm()) == pytest.approx(float(gradient.norm()), rel=1e-12)


def test_the_direction_of_censors_noise_is_uniform_across_the_gradient():
    """Orthogonal complement of g in 6 dimensions: covariance (I - g g^T / |g|^2) |g|^2 / 5."""
    g = torch.tensor([3.0, -1.0, 0.5, 0.0, 2.0, -2.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([orthogonal((g,), generator)[0] for _ in range(6000)])
    square = float(g @ g)
    expected = (torch.eye(6, dtype=torch.float64) - torch.outer(g, g) / square) * square / 5
    torch.testing.assert_close(draws.T @ draws / 6000, expected, rtol=0, atol=0.05 * square / 5)
    assert float(draws.mean(0).abs().max()) < 4.5 * float((expected.diagonal() / 6000).sqrt().max())
    assert orthogonal((torch.ones(1),), generator)[0].tolist() == [0.0]


def test_censor_takes_the_draw_of_lowest_loss(model, batch):
    """The same draws, judged by hand at a step long enough to tell them apart."""
    generator = torch.Generator().manual_seed(6)
    usual = [g.clone() for g in plain(model, batch)]
    draws, losses = [orthogonal(usual, generator) for _ in range(6)], []
    start = [p.detach().clone() for p in model.parameters()]
    for draw in draws:
        with torch.no_grad():
            for p, s, d in zip(model.parameters(), start, draw, strict=True):
                p.copy_(s - 3.0 * d)
            losses.append(float(F.cross_entropy(model(batch[0]), batch[1])))
            for p, s in zip(model.parameters(), start, strict=True):
                p.copy_(s)
    found = released(model, batch, "censor", seed=6, censor_trials=6, censor_step=3.0)
    torch.testing.assert_close(list(found), list(draws[int(np.argmin(losses))]))
    assert int(np.argmin(losses)) != 0


def test_outpost_prunes_by_tensor_and_noises_the_largest_squares(model, batch):
    with torch.no_grad():
        model[0].weight.mul_(3)
        model[3].weight.mul_(20)  # a variance above 1
    usual = plain(model, batch)
    entries = np.concatenate([g.numpy().ravel() for g in usual])
    cut = np.sort(entries**2)[-round(0.4 * len(entries))]
    found = [
        released(model, batch, "outpost", seed=seed, outpost_prune=50, outpost_phi=40, outpost_noise=0.5)
        for seed in range(200)
    ]
    judged = []
    for i, gradient in enumerate(usual):
        draws = torch.stack([each[i] for each in found])
        noised = gradient.square() >= cut
        limit = gradient.abs().flatten().sort(descending=True).values[round(gradient.numel() / 2) - 1]
        kept = torch.where(gradient.abs() >= limit, gradient, 0.0)
        torch.testing.assert_close(draws[:, ~noised], kept[~noised].expand(200, -1))
        spread = min(float(np.var(list(model.parameters())[i].detach().numpy())), 1.0)
        if int(noised.sum()) > 20:
            noise = (draws - kept)[:, noised] / (0.5 * spread)
            assert float(noise.std()) == pytest.approx(1, rel=0.03)
            assert abs(float(noise.mean())) < 4.5 / noise.numel() ** 0.5
            judged.append(spread)
    small, capped = judged
    assert small < capped == 1


def test_outpost_acts_less_often_in_later_rounds(model, batch):
    usual = plain(model, batch)
    given = {"outpost_beta": 0.5, "outpost_round": 2}  # 1 / (1 + 1)
    same = sum(
        torch.equal(released(model, batch, "outpost", seed=seed, **given)[2], usual[2]) for seed in range(200)
    )
    assert 72 <= same <= 128  # 4 standard deviations around half
    assert not torch.equal(released(model, batch, "outpost", outpost_beta=9)[2], usual[2])
