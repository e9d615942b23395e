"""Per-sample clipping against a loop, and the sensitivity it promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.optimizers import DPOptimizer
from torch import nn
from torch.nn import functional as F

import defenses
import dpbench
from defenses.clipping import check_noise, clipped_means, noise_bounds
from dpbench.victim import networks as models

torch.set_num_threads(1)


def with_statistics(model):
    """Frozen batch norms with statistics and an affine map that are not the identity."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, models.FrozenBatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                tensor.uniform_(low, high, generator=generator)
    return model


@pytest.mark.parametrize(("scale", "few"), [(0.3, 0), (1.001, 8)], ids=["all-clipped", "none-clipped"])
@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("lenet", "none"),
        ("convnet", "none"),
        ("convnet", "frozen-bn"),
        ("resnet20", "frozen-bn"),
        ("resnet20", "gn"),
    ],
)
def test_clipped_mean_equals_a_loop(name, norm, scale, few, looped, flat, monkeypatch):
    monkeypatch.setattr(defenses.per_sample, "FEW", few)
    model = with_statistics(models.build(name, norm=norm, seed=1))
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    labels = torch.tensor([1, 7, 1])
    norms = [float(looped(model, images[i : i + 1], labels[i : i + 1], 1e9).norm()) for i in range(3)]
    bound = scale * (min(norms) if scale < 1 else max(norms))
    release = defenses.create("clip", max_grad_norm=bound).release(
        model, F.cross_entropy, images, labels, seed=0
    )
    expected = looped(model, images, labels, bound)
    assert float((flat(release.gradients) - expected).norm() / expected.norm()) < 1e-5
    assert [g.shape for g in release.gradients] == [p.shape for p in model.parameters()]
    assert release.per_sample == ("functorch" if few else "opacus")


class Tiny(nn.Module):
    """Convolution, optional group norm, linear layer; nothing of dpbench's."""

    def __init__(self, channels, size, grouped, classes):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4) if grouped else nn.Identity()
        self.fc = nn.Linear(4 * size * size, classes)

    def forward(self, x):
        return self.fc(torch.relu(self.norm(self.conv(x))).flatten(1))


@settings(max_examples=40, deadline=None)
@given(
    channels=st.integers(1, 3),
    size=st.integers(2, 6),
    batch=st.integers(1, 9),
    grouped=st.booleans(),
    exponent=st.floats(-6, 6),
    bound=st.floats(1e-3, 1e3),
    zero=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_adding_a_sample_never_moves_the_sum_by_more_than_the_clip_norm(
    flat, channels, size, batch, grouped, exponent, bound, zero, seed
):
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Tiny(channels, size, grouped, 3)
    images = torch.randn(batch + 1, channels, size, size, generator=generator) * 10**exponent
    labels = torch.randint(3, (batch + 1,), generator=generator)
    loss = F.cross_entropy
    if zero:  # a loss that does not depend on the model: every gradient is zero

        def loss(logits, labels):
            return F.cross_entropy(logits * 0, labels)

    clip = defenses.create("clip", max_grad_norm=bound)
    sums = [
        flat(clip.release(model, loss, images[:n], labels[:n], seed=0).gradients) * n
        for n in (batch, batch + 1)
    ]
    assert all(bool(s.isfinite().all()) for s in sums)
    rounding = 1e-6 * sum(float(s.norm()) for s in sums)
    assert float((sums[1] - sums[0]).norm()) <= bound * (1 + 1e-6) + rounding
    if zero:
        assert all(bool((s == 0).all()) for s in sums)


def test_a_clipped_gradient_of_a_large_layer_is_no_longer_than_c(flat):
    """Opacus' norms in float32 are 1e-4 off here."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 3_000_000, generator=generator) ** 5
    for i in range(2):
        (clipped,) = clipped_means(
            [rows[i : i + 1]], max_grad_norm=0.7, noise_multiplier=0.0, generator=generator, count=1
        )
        assert float(flat(clipped).norm()) == pytest.approx(0.7, rel=1e-6)
        assert float(flat(clipped).norm()) <= 0.7 * (1 + 1e-6)


def test_the_clipped_sum_is_that_of_opacus(flat):
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(3, *shape, generator=generator) for shape in ((4, 5), (7,), ())]
    parameters = [nn.Parameter(torch.zeros(r.shape[1:])) for r in rows]
    for p, r in zip(parameters, rows, strict=True):
        p.grad_sample = r
    opacus = DPOptimizer(
        torch.optim.SGD(parameters, lr=0.0), noise_multiplier=0.0, max_grad_norm=5.0, expected_batch_size=3
    )
    opacus.clip_and_accumulate()
    (own,) = clipped_means(rows, max_grad_norm=5.0, noise_multiplier=0.0, generator=generator, count=1)
    torch.testing.assert_close(3 * flat(own), flat(p.summed_grad for p in parameters), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [3, 12])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_models_of_other_precisions_are_clipped(dtype, size, flat):
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Tanh(), nn.Linear(8, 5)).to(dtype)
    images, labels = torch.rand(size, 3, 4, 4, dtype=dtype), torch.arange(size) % 5
    released = defenses.create("clip", max_grad_norm=0.1).release(
        model, F.cross_entropy, images, labels, seed=0
    )
    assert {g.dtype for g in released.gradients} == {dtype}
    assert 0.01 < float(flat(released.gradients).norm()) < 0.101


def test_samples_are_clipped_and_not_the_batch():
    """Opposite gradients of different lengths: only clipping each one makes both count the same."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    images = torch.ones(2, 1, 2, 2)
    images[1] *= 3
    release = defenses.create("clip", max_grad_norm=0.1).release(
        model, F.cross_entropy, images, torch.tensor([0, 1]), seed=0
    )
    weight = release.gradients[0]
    # Logits are 0, so dloss/dlogits is -+0.5: times the pixels for the weight, alone for the bias.
    norms = [(2 * 0.25 * (4 * s * s + 1)) ** 0.5 for s in (1.0, 3.0)]
    expected = (-0.5 * 1 * 0.1 / norms[0] + 0.5 * 3 * 0.1 / norms[1]) / 2
    assert float(weight[0, 0]) == pytest.approx(expected, rel=1e-5)


def test_noise_on_tens_of_millions_of_entries_is_measured_as_what_it_is():
    generator = torch.Generator().manual_seed(0)
    (drawn,) = clipped_means(
        [torch.zeros(1, 40_000_000)],
        max_grad_norm=1.0,
        noise_multiplier=0.6,
        generator=generator,
        count=1,
    )[0]
    assert float(drawn.double().square().mean().sqrt()) == pytest.approx(0.6, rel=1e-3)
    with pytest.raises(dpbench.protocol.InputError, match="would not be private"):
        check_noise([drawn * 0.998], 0.6, noise_bounds([torch.zeros_like(drawn)], 0.6))
