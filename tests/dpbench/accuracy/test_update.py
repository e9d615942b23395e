"""One step under a defence: whose gradient, which noise, which batches."""

import copy
import math

import pytest
import torch
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import nn
from torch.nn import functional as F

import defenses
from dpbench.accuracy import update
from dpbench.accuracy.train import train as train_once
from dpbench.privacy import epsilon, noise_multiplier
from dpbench.protocol import InputError
from tests.helpers.tf32 import TF32

EXPECTED = 16


def sampler(count=320, rate=0.05, steps=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return UniformWithReplacementSampler(
        num_samples=count, sample_rate=rate, generator=generator, steps=steps
    )


def private(model, seed=0, **parameters):
    stage = defenses.create("dp", **parameters).stages[0]
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    generator = torch.Generator().manual_seed(seed)
    return update.Private(stage, model.train(), optimizer, sampler(), EXPECTED, generator)


def by_hand(model, images, labels, clip):
    """The sum of clipped gradients, sample by sample, over the expected batch."""
    total = [torch.zeros_like(p) for p in model.parameters()]
    for image, label in zip(images, labels, strict=True):
        loss = F.cross_entropy(model(image[None]), label[None])
        gradients = torch.autograd.grad(loss, tuple(model.parameters()))
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        total = [t + g * min(1, clip / norm) for t, g in zip(total, gradients, strict=True)]
    return [t / EXPECTED for t in total]


def close(found, expected):
    return all(torch.allclose(a, b, atol=1e-6, rtol=1e-4) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", ["linear", "convolution"])
@pytest.mark.parametrize("entries", [2**26, 500], ids=["at once", "in chunks"])
def test_clipped_sum_is_that_of_single_samples(request, train, monkeypatch, kind, entries):
    """Ghost clipping of linear layers, per-sample gradients of others: of a batch that is not as expected."""
    monkeypatch.setattr(update, "ENTRIES", entries)
    model = request.getfixturevalue(kind)()
    images, labels = train[0][:11], train[1][:11]
    expected = by_hand(copy.deepcopy(model), images, labels, 0.1)
    step = private(model, noise_multiplier=1e-12, max_grad_norm=0.1)
    assert close(step(images, labels), expected)
    assert close(step(images, labels), expected)  # nothing of the first call is left


def test_ghost_and_plain_clipping_agree(linear, train, monkeypatch):
    model = linear()
    found = {}
    for ghost in (True, False):
        monkeypatch.setattr(update, "_all_linear", lambda _, ghost=ghost: ghost)
        step = private(copy.deepcopy(model), noise_multiplier=0.7, max_grad_norm=0.1)
        assert ("Fast" in type(step.optimizer).__name__) == ghost
        found[ghost] = step(train[0][:11], train[1][:11])
    assert close(found[True], found[False])


def test_noise_has_the_standard_deviation_of_the_guarantee(train):
    """Also in a step whose batch is empty, which has to look like any other."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 400))
    clean = by_hand(model, train[0][:5], train[1][:5], 0.5)
    step = private(model, noise_multiplier=2.0, max_grad_norm=0.5)
    noisy = step(train[0][:5], train[1][:5])
    noise = torch.cat([(a - b).flatten() for a, b in zip(noisy, clean, strict=True)])
    alone = torch.cat([g.flatten() for g in step(train[0][:0], train[1][:0])])
    for drawn in (noise, alone):
        assert drawn.std() * EXPECTED / 0.5 == pytest.approx(2.0, rel=0.03)
        assert abs(drawn.mean()) < 5 * drawn.std() / math.sqrt(len(drawn))
    assert not torch.equal(noise, alone)


def test_every_step_is_accounted_with_the_exact_rate_and_noise(linear, train):
    step = private(linear(), noise_multiplier=1.3, max_grad_norm=1.0)
    for size in (4, 0, 9):
        step(train[0][:size], train[1][:size])
    assert step.engine.accountant.history == [(1.3, 0.05, 3)]
    assert (step.optimizer.expected_batch_size, step.optimizer.max_grad_norm) == (EXPECTED, 1.0)


@pytest.mark.parametrize("defense", ["dp", "clip", "none", "prune", "topk"])
def test_batches_are_drawn_by_poisson_sampling(linear, train, test, monkeypatch, defense):
    """Every defence sees the same batches: of all sizes, each sample with chance q, in T steps."""
    sizes, made = [], update.steps

    def spy(*arguments):
        step = made(*arguments)
        return lambda images, labels: (sizes.append(len(images)), step(images, labels))

    monkeypatch.setattr("dpbench.accuracy.train.steps", spy)
    given = {"noise_multiplier": 1.0} if defense == "dp" else {}
    chain = defenses.create(defense, **given)
    train_once(
        linear,
        chain,
        (train, test),
        sampling=(0.05, 200),
        batch_size=16,
        learning_rate=1e-3,
        seed=0,
        device="cpu",
    )
    drawn = [len(indices) for indices in sampler(steps=200, seed=seed_of_sampling())]
    assert sizes == drawn
    mean, variance = 320 * 0.05, 320 * 0.05 * 0.95
    assert torch.tensor(sizes).float().mean() == pytest.approx(mean, abs=4 * math.sqrt(variance / 200))
    assert torch.tensor(sizes).float().var() == pytest.approx(variance, rel=0.4)


def seed_of_sampling():
    from dpbench.system.seeds import seed

    return seed("sampling", 0)


def test_the_noise_is_that_which_the_budget_of_the_training_allows(linear, train, test, monkeypatch):
    """From what a user states to the standard deviation in Opacus' optimiser and its accountant."""
    import dpbench

    made = []
    begin = update.Private.__init__

    def spy(self, *arguments):
        begin(self, *arguments)
        made.append(self)

    monkeypatch.setattr(update.Private, "__init__", spy)
    table = dpbench.utility(
        linear,
        train,
        test,
        eps=2.0,
        delta=1e-3,
        train_batch_size=32,
        epochs=3,
        max_grad_norm=0.5,
        seeds=0,
        device="cpu",
        progress=False,
    )
    (step,) = made
    sigma = noise_multiplier(2.0, 1e-3, 32 / 320, 30)
    assert step.engine.accountant.history == [(sigma, 0.1, 30)]
    assert (step.optimizer.noise_multiplier, step.optimizer.max_grad_norm) == (sigma, 0.5)
    row = table[table["defense"] == "dp"].iloc[0]
    assert (row["noise_multiplier"], row["sample_rate"], row["steps"]) == (sigma, 0.1, 30)
    assert row["eps"] == 2.0
    assert epsilon(sigma, 1e-3, 0.1, 30) == pytest.approx(2.0, rel=2e-3)


def test_other_stages_get_the_released_gradient(linear, train):
    """A chain ends as its last stage leaves it, and top-k keeps what it left out for later steps."""
    model, sent = linear(), []
    clean = torch.cat([g.flatten() for g in by_hand(model, train[0][:11], train[1][:11], 0.1)])
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    chain = defenses.create("clip+topk", max_grad_norm=0.1, topk_ratio=0.25)
    step = update.steps(chain, model, optimizer, sampler(), EXPECTED, torch.Generator().manual_seed(0))
    for _ in range(4):
        step(train[0][:11], train[1][:11])
        sent.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    kept = [int(s.count_nonzero()) for s in sent]
    assert max(kept) <= round(0.25 * len(clean)) + 1
    assert torch.allclose(sent[0], torch.where(sent[0] != 0, clean, 0.0), atol=1e-6)
    assert not torch.equal(sent[0] != 0, sent[1] != 0)


def test_batch_norm_is_refused_under_dp_and_trained_without(train, test):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 2))
    update.check_private(defenses.create("prune"), model)
    said = r"gradient \(BatchNorm cannot support training with differential privacy\): replace the layer"
    with pytest.raises(InputError, match=said):
        update.check_private(defenses.create("clip"), model)
    with pytest.raises(InputError, match="replace the layer"):
        private(model, noise_multiplier=1.0)


class Mixing(nn.Module):
    """Normalises by the batch by hand, so that no layer tells of it; while it is trained, if wanted."""

    def __init__(self, always):
        super().__init__()
        self.always, self.first, self.last = always, nn.Linear(36, 8), nn.Linear(8, 2)

    def forward(self, images):
        hidden = self.first(images.flatten(1))
        if self.always or self.training:
            hidden = hidden - hidden.mean(0)
        return self.last(torch.tanh(hidden))


class RowsFirst(nn.Module):
    """A layer that sees rows of pixels in its first dimension, which Opacus takes for the batch."""

    def __init__(self):
        super().__init__()
        self.each, self.norm, self.last = nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 2)

    def forward(self, images):
        return self.last(self.norm(self.each(images.squeeze(1).permute(1, 0, 2)))).mean(0)


class Remembering(nn.Module):
    """Adds the image before to each image, from batch to batch."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(36, 2)
        self.register_buffer("seen", torch.zeros(36))

    def forward(self, images):
        found = self.last(images.flatten(1) + self.seen)
        self.seen = images[-1].flatten().detach()
        return found


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: Mixing(always=True), "depends on the other images of the batch"),
        (lambda: Mixing(always=False), "depends on the other images of the batch"),
        (RowsFirst, "Opacus cannot train this model: "),
        (Remembering, "changes its buffer seen"),
    ],
    ids=["always", "in training", "rows first", "remembering"],
)
@pytest.mark.parametrize("size", [1, 6, 13], ids=lambda size: f"B={size}")
def test_what_opacus_would_clip_wrongly_is_refused_before_a_step(train, model, said, size):
    """Otherwise a sample could move the sum by many times C, and the budget in the table would be untrue."""
    step = private(model(), noise_multiplier=1.0)
    step(train[0][:0], train[1][:0])  # an empty batch shows nothing
    with pytest.raises(InputError, match=said):
        step(train[0][:size], train[1][:size])


class Gated(nn.Module):
    """Mixes samples once its gate, zero at first, is opened."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.last = nn.Linear(36, 2)

    def forward(self, images):
        x = images.flatten(1)
        return self.last(x + self.gate * (x - x.mean(0)))


def test_a_layer_that_begins_to_mix_is_refused_once_it_does(train):
    """Only the weights of the first batch were looked at."""
    model = Gated()
    step = private(model, noise_multiplier=1.0)
    images, labels = train[0][:6], train[1][:6]
    step(images, labels)
    model.gate.fill_(1.0)
    with pytest.raises(InputError, match="depends on the other images of the batch"):
        step(images, labels)


def test_the_check_of_a_model_leaves_no_trace(linear, train, monkeypatch):
    """Dropout draws what it would have drawn, and is no reason to refuse a model."""
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 2))
    found = []
    for checked in (True, False):
        step = private(copy.deepcopy(model), noise_multiplier=1e-9, max_grad_norm=0.1)
        if not checked:
            monkeypatch.setattr("dpbench.accuracy.update.check_trained", lambda *_: None)
        torch.manual_seed(3)
        found.append(step(train[0][:11], train[1][:11]))
    assert close(*found)


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_what_a_card_rounds_is_no_wrong_gradient(kind, train, monkeypatch, request):
    """Trainings run under TF32, which moves gradients by more than the check of them lets pass."""
    images, labels = train[0][:11], train[1][:11]
    make = request.getfixturevalue(kind)
    with TF32() as card:
        with pytest.raises(InputError, match=r"per-sample gradients of .* are wrong"):
            private(make(), noise_multiplier=1.0)(images, labels)
        monkeypatch.setattr("defenses.per_sample.trained.full_precision", card.off)
        private(make(), noise_multiplier=1.0)(images, labels)


def test_a_parameter_that_is_not_used_is_refused_in_a_sentence(train):
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Conv2d(1, 2, 6), nn.Linear(3, 3)

        def forward(self, images):
            return self.used(images).flatten(1)

    step = private(Unused(), noise_multiplier=1.0)
    with pytest.raises(InputError, match="needs each sample's gradient"):
        step(train[0][:4], train[1][:4])
