"""ImprintModel bugs are caught, correct mechanisms pass, and the exit status says which it was."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import pytest
import torch

from defenses import Aggregator, Chain, create, defenses_registry
from dpbench import privacy
from dpbench.audit import audit
from dpbench.audit.__main__ import main
from dpbench.protocol import Guarantee, InputError

torch.set_num_threads(1)


def claim(eps, max_grad_norm=1.0, releases=1):
    return privacy.calibrate(
        eps=eps,
        noise_multiplier=None,
        eps_scope="release",
        delta=1e-5,
        train_size=4,
        epochs=1,
        batch_size=4,
        max_grad_norm=max_grad_norm,
        releases=releases,
    )


def chain(defence, guarantee):
    sigma, bound = guarantee.noise_multiplier, guarantee.max_grad_norm
    return Chain((defence(noise_multiplier=sigma, max_grad_norm=bound, guarantee=guarantee),))


def clipped(vectors, bound):
    """Each row scaled down to a norm of at most `bound`."""
    return vectors * (bound / vectors.norm(dim=-1, keepdim=True).clamp_min(bound))


@dataclass(frozen=True, kw_only=True)
class HandWritten(Aggregator):
    """Makes the same claims as dpbench's own dp."""

    name = "hand-written"
    noise_multiplier: float
    max_grad_norm: float = 1.0
    guarantee: Guarantee | None = None

    @abstractmethod
    def noised_sum(self, samples, noise):
        """Releases [count, d] of per-sample gradients [B, d]; `noise(*sizes)` is N(0, (sigma C)^2)."""

    def aggregate(self, model, loss, images, labels, generator):
        return self.aggregates(model, loss, images, labels, generator, 1)[0]

    def aggregates(self, model, loss, images, labels, generator, count):
        parameters = list(model.parameters())
        rows = []
        for i in range(len(images)):
            gradients = torch.autograd.grad(loss(model(images[i : i + 1]), labels[i : i + 1]), parameters)
            rows.append(torch.cat([g.flatten() for g in gradients]))
        scale = self.noise_multiplier * self.max_grad_norm

        def noise(*sizes):
            return scale * torch.randn(count, *sizes, generator=generator)

        made = self.noised_sum(torch.stack(rows), noise) / len(images)
        parts = made.split([p.numel() for p in parameters], dim=1)
        each = (g.view(-1, *p.shape) for g, p in zip(parts, parameters, strict=True))
        return list(zip(*each, strict=True))


class Correct(HandWritten):
    def noised_sum(self, samples, noise):
        return clipped(samples, self.max_grad_norm).sum(0) + noise(samples.shape[1])


class NoiseDividedTwice(HandWritten):
    def noised_sum(self, samples, noise):
        return clipped(samples, self.max_grad_norm).sum(0) + noise(samples.shape[1]) / len(samples)


class BatchClipped(HandWritten):
    def noised_sum(self, samples, noise):
        return clipped(samples.sum(0), self.max_grad_norm) + noise(samples.shape[1])


class NoiseBeforeClipping(HandWritten):
    def noised_sum(self, samples, noise):
        return clipped(samples + noise(*samples.shape), self.max_grad_norm).sum(1)


class LayersClipped(HandWritten):
    """Each of two tensors to C, so that both together reach sqrt(2) C."""

    def noised_sum(self, samples, noise):
        halves = clipped(samples.unflatten(1, (2, -1)), self.max_grad_norm)
        return halves.flatten(1).sum(0) + noise(samples.shape[1])


class UpsideDown(HandWritten):
    """Releases the negative, with too little noise."""

    def noised_sum(self, samples, noise):
        return noise(samples.shape[1]) / 4 - clipped(samples, self.max_grad_norm).sum(0)


@pytest.mark.parametrize("bug", [NoiseDividedTwice, BatchClipped, NoiseBeforeClipping])
def test_a_planted_bug_is_caught_at_eps_1(bug):
    """20,000 releases for each canary."""
    report = audit(chain(bug, claim(1.0)))
    assert report.exceeded
    assert report.eps > 1.3


def test_the_correct_mechanism_passes_at_eps_1_and_its_loss_is_seen():
    report = audit(chain(Correct, claim(1.0)))
    assert not report.exceeded
    assert 0.3 < report.eps <= 1
    assert report.claimed_eps == pytest.approx(1)
    assert {finding.canary for finding in report.findings} == {
        f"{norm}, others {others}" for norm in ("C", "100 C") for others in ("random", "opposed")
    }


@pytest.mark.parametrize(
    "bug", [NoiseDividedTwice, BatchClipped, NoiseBeforeClipping, LayersClipped, UpsideDown]
)
@pytest.mark.parametrize("bound", [0.1, 3.0])
def test_bugs_are_caught_at_eps_8_with_fewer_releases(bug, bound):
    assert audit(chain(bug, claim(8.0, bound)), releases=4000).exceeded


@pytest.mark.parametrize("bound", [0.1, 3.0])
def test_the_correct_mechanism_passes_at_eps_8(bound):
    report = audit(chain(Correct, claim(8.0, bound)), releases=4000)
    assert 5 < report.eps <= 8


def test_false_alarms_are_rare():
    """At confidence 0.5 half of all audits may err; correction and joint limits make it fewer."""
    reports = [
        audit(chain(Correct, claim(2.0)), releases=400, confidence=0.5, seed=seed) for seed in range(12)
    ]
    assert sum(report.exceeded for report in reports) <= 6
    assert len({report.eps for report in reports}) > 6


def test_the_seed_decides_the_report():
    first, again = (audit(chain(Correct, claim(8.0)), releases=400, seed=3) for _ in range(2))
    assert first == again


def test_a_claim_that_is_not_gaussian_is_judged_by_epsilon_alone():
    """Nothing follows from mu where the guarantee is not that of its noise multiplier as a Gaussian."""
    guarantee = claim(8.0)
    defence = chain(NoiseDividedTwice, guarantee)
    assert audit(defence, releases=4000).gaussian
    other = audit(defence, releases=4000, claimed_eps=8.0)
    assert not other.gaussian
    assert not other.exceeded
    assert other.eps == max(finding.eps for finding in other.findings)
    assert audit(defence, releases=4000, claimed_eps=3.0).exceeded


def test_own_dp_passes_and_clipping_alone_claims_nothing(capsys):
    assert main(["--defense", "dp", "--eps", "8", "--releases", "2000"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Passed. 2,000 releases for each of 4 canaries" in said
    assert "the claim is 8." in said
    assert main(["--defense", "clip", "--releases", "400"]) == 0
    assert "claims nothing" in " ".join(capsys.readouterr().out.split())
    assert main(["--defense", "clip", "--releases", "400", "--claimed-eps", "1", "--quiet"]) == 1
    assert capsys.readouterr().out == ""


def test_a_claim_beyond_the_reach_of_the_releases_is_not_confirmed(capsys):
    assert main(["--defense", "dp", "--eps", "100", "--releases", "400"]) == 0
    assert "Passed for want of evidence." in " ".join(capsys.readouterr().out.split())
    report = audit(create("clip"), releases=400, claimed_eps=100.0)
    assert report.eps == pytest.approx(report.reach)


def test_postprocessing_passes_and_noise_without_clipping_does_not():
    assert main(["--defense", "dp+prune", "--eps", "8", "--releases", "400", "--prune-ratio", "0.5"]) == 0
    report = audit(create("noise", noise_std=1.0), releases=400, claimed_eps=2.0)
    small, large = report.findings[0], report.findings[2]
    assert small.eps < 1 < 2 < large.eps
    assert report.exceeded


@dataclass(frozen=True, kw_only=True)
class Own(Aggregator):
    """A user's defence: the plain interface, one release at a time."""

    name = "own"
    noise_multiplier: float
    max_grad_norm: float
    guarantee: Guarantee | None = None
    divisor = 1

    def aggregate(self, model, loss, images, labels, generator):
        correct = Correct(noise_multiplier=self.noise_multiplier / self.divisor)
        return correct.aggregate(model, loss, images, labels, generator)


@pytest.mark.parametrize(("divisor", "status"), [(8, 1), (1, 0)])
def test_a_users_own_registered_defence(divisor, status, monkeypatch, capsys):
    monkeypatch.setattr(Own, "divisor", divisor)
    monkeypatch.setitem(defenses_registry._items, "own", Own)
    assert main(["--defense", "own+prune", "--eps", "2", "--releases", "800", "--prune-ratio", "0"]) == status
    said = " ".join(capsys.readouterr().out.split())
    assert ("BUG." in said) == bool(status)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--eps", "0"], "eps must be a finite number above 0"),
        (["--eps", "nan"], "eps must be a finite number above 0"),
        (["--eps", "1", "--noise-multiplier", "1"], "not both"),
        (["--eps", "one"], "--eps"),
        (["--defense", "dpp"], "Unknown defense 'dpp'; known: none"),
        (["--defense", "prune+dp"], "first in a chain"),
        (["--defense", "clip", "--eps", "1"], "--claimed-eps"),
        (["--delta", "0"], "delta must lie strictly between"),
        (["--defense", "none", "--delta", "nan"], "delta must lie strictly between"),
        (["--confidence", "1"], "confidence must lie"),
        (["--max-grad-norm", "-1"], "clip norm"),
        (["--claimed-eps", "-1"], "claimed eps"),
        (["--batch-size", "1"], "others in its batch"),
        (["--releases", "10"], "at least 400"),
        (["--seed", "-1"], "seed"),
        (["--defense", "noise", "--noise-std", "-1"], "noise_std"),
        (["--what"], "--what"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words, match, capsys):
    assert main(words) == 2
    said = capsys.readouterr()
    assert match in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_what_cannot_be_audited_says_so():
    with pytest.raises(InputError, match="single releases"):
        audit(chain(Correct, claim(1.0, releases=2)))
    with pytest.raises(InputError, match="not finite"):
        audit(Chain((Correct(noise_multiplier=3e38),)), releases=400)
