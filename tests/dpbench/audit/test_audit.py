"""Correct mechanisms pass, bad input is refused, and the exit status says which it was."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from defenses import Aggregator, Chain, create, defenses_registry
from defenses.noise import Noise
from dpbench import privacy
from dpbench.audit import audit
from dpbench.audit.__main__ import main
from dpbench.audit.canaries import SHAPE
from dpbench.audit.limit import affordable
from dpbench.audit.releases import Source
from dpbench.privacy.rounding import up
from dpbench.protocol import Guarantee, InputError
from tests.helpers.mechanisms import Correct, chain, claim
from tests.helpers.noise_bugs import NoiseDividedTwice, NoiseUsedTwice

torch.set_num_threads(1)


def test_the_correct_mechanism_passes_at_eps_1_and_its_loss_is_seen():
    report = audit(chain(Correct, claim(1.0)))
    assert not report.failed
    assert 0.3 < report.eps <= 1
    assert report.claimed_eps == pytest.approx(1)
    assert [finding.canary for finding in report.findings] == [
        "C, others random",
        "C, others opposed",
        "100 C, others uneven",
        "100 C, others opposed",
    ]


@pytest.mark.parametrize("bound", [0.1, 3.0])
def test_the_correct_mechanism_passes_at_eps_8(bound):
    report = audit(chain(Correct, claim(8.0, bound)), releases=4000)
    assert not report.failed
    assert 5 < report.eps <= 8


def stages(name, eps, max_grad_norm):
    guarantee = claim(eps, max_grad_norm)
    dp = {
        "noise_multiplier": guarantee.noise_multiplier,
        "max_grad_norm": max_grad_norm,
        "guarantee": guarantee,
    }
    others = {"dp+prune": {"prune_ratio": 0.5}, "dp+noise": {"noise_std": 0.1 * max_grad_norm}}
    return create(name, **dp, **others.get(name, {}))


@pytest.mark.parametrize(("name", "seeds"), [("dp", 4), ("dp+prune", 2), ("dp+noise", 2)])
def test_false_alarms_are_rare(name, seeds):
    """At confidence 0.5 half of all audits may err; correction and joint limits make it fewer."""
    reports = [
        audit(stages(name, eps, bound), releases=400, confidence=0.5, seed=seed)
        for seed in range(seeds)
        for eps, bound in ((0.3, 1.0), (2.0, 3.0), (20.0, 0.1))
    ]
    assert all(report.gaussian for report in reports)
    assert sum(report.failed for report in reports) <= len(reports) / 2
    assert len({report.eps for report in reports}) > len(reports) / 2
    assert len({report.checks for report in reports}) == len(reports)


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
    assert not other.failed
    assert other.eps == max(finding.eps for finding in other.findings)
    assert audit(defence, releases=4000, claimed_eps=3.0).exceeded


def test_own_dp_passes_and_clipping_alone_claims_nothing(capsys):
    assert main(["--defense", "dp", "--eps", "8", "--releases", "2000"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Passed: no leak above the claim was found. 2,000 releases for each of 4 canaries" in said
    assert "the claim is 8. Its noise passes 8 checks. This is no proof that the claim holds." in said
    assert "safe" not in said.lower()
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


def test_noise_without_a_gaussian_claim_is_described_and_fails_nothing(capsys):
    """Pruned noise is no Gaussian noise, and nobody says that it is."""
    words = ["--defense", "clip+noise+prune", "--releases", "400", "--noise-std", "1", "--claimed-eps", "8"]
    assert main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "for information only" in said
    assert "For information, its noise is not independent Gaussian noise: " in said
    assert "BUG" not in said
    pruned = create("clip+noise+prune", max_grad_norm=1.0, noise_std=1.0, prune_ratio=0.9)
    report = audit(pruned, releases=400, claimed_eps=8.0)
    assert any(check.failed for check in report.checks)
    assert report.departures == ()
    assert not report.failed
    only = audit(create("clip"), releases=400).checks
    assert [check.found for check in only] == ["0 of 48 entries carry noise"]


@pytest.mark.parametrize("name", ["clip+noise", "clip+noise+prune"])
def test_the_epsilon_of_clipping_and_noise_is_a_claim_like_any_other(name, monkeypatch, capsys):
    """Its rows have one: noise of s on the mean of B is a noise multiplier of s B / C."""
    words = ["--defense", name, "--noise-std", "0.5", "--max-grad-norm", "2", "--batch-size", "5"]
    words += ["--delta", "1e-6", "--releases", "1000"]
    eps = privacy.epsilon(0.5 * 5 / 2, 1e-6)
    assert main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"the claim is {up(eps, 4)}. Its noise passes 8 checks" in said
    process = Noise.process
    monkeypatch.setattr(Noise, "process", lambda self, *given: process(replace(self, noise_std=0.4), *given))
    assert main(words) == 1
    assert "BUG. 1,000 releases" in " ".join(capsys.readouterr().out.split())
    assert main([*words, "--unit", "user"]) == 2


def test_what_follows_a_filter_does_not_break_the_claim_of_its_makers(capsys):
    """The classical formula for any two updates holds below epsilon 1; dropping entries spends nothing."""
    words = ["--defense", "local-dp+prune", "--nominal-sensitivity", "2", "--nominal-eps", "0.9"]
    assert main([*words, "--batch-size", "40", "--releases", "800"]) == 0
    assert "the claim is 0.9. Its noise passes 8 checks" in " ".join(capsys.readouterr().out.split())


def test_a_bug_in_the_noise_is_said_and_sets_the_exit_status(monkeypatch, capsys):
    """Epsilon does not show it."""
    monkeypatch.setitem(defenses_registry._items, "twice", NoiseUsedTwice)
    assert main(["--defense", "twice", "--eps", "1", "--releases", "800"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "BUG. 800 releases" in said
    assert "the claim is 1. Its noise is not what it claims: " in said
    assert "releases distinct (" in said


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


def test_a_defence_that_fails_is_no_bug_that_was_found(monkeypatch, capsys):
    def fails(*_):
        raise ValueError("first line\nsecond line")

    monkeypatch.setattr(Own, "aggregate", fails)
    monkeypatch.setitem(defenses_registry._items, "own", Own)
    assert main(["--defense", "own+prune", "--eps", "2", "--releases", "800"]) == 2
    said = capsys.readouterr()
    expected = "own+prune fails when it makes a release (ValueError: first line second line).\n"
    assert (said.out, said.err) == ("", expected)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--eps", "0"], "--eps must be above 0"),
        (["--eps", "nan"], "--eps must be a finite number"),
        (["--eps", "1", "--noise-multiplier", "1"], "not both"),
        (["--eps", "one"], "--eps"),
        (["--defense", "dpp"], "Unknown defense 'dpp' (did you mean 'dp'?); known: none"),
        (["--defense", "prune+dp"], "first in a chain"),
        (["--defense", "clip", "--eps", "1"], "--claimed-eps"),
        (["--delta", "0"], "--delta must be above 0"),
        (["--defense", "none", "--delta", "nan"], "--delta must be a finite number"),
        (["--confidence", "1"], "--confidence must be below 1"),
        (["--max-grad-norm", "-1"], "--max-grad-norm must be above 0"),
        (["--claimed-eps", "-1"], "--claimed-eps must be at least 0"),
        (["--batch-size", "1"], "--batch-size must be at least 2"),
        (["--releases", "10"], "Give at least 400 releases, not 10: fewer show nothing."),
        (["--seed", "-1"], "seed"),
        (["--defense", "noise", "--noise-std", "-1"], "--noise-std must be at least 0"),
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


def test_a_time_limit_makes_fewer_releases_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr("dpbench.audit.auditor.affordable", lambda *_: 500)
    assert main(["--defense", "dp", "--seconds", "7"]) == 0
    assert "500 releases, of 20,000 asked for, for each of 4 canaries" in capsys.readouterr().out
    told, made = [], []
    report = audit(create("none"), releases=450, seconds=7, planned=told.append, progress=made.append)
    assert (report.releases, report.asked) == (450, 450)
    assert told == [sum(made)] == [4 * 450]


def test_too_short_a_time_is_refused_with_a_longer_one(monkeypatch, capsys):
    monkeypatch.setattr("dpbench.audit.auditor.affordable", lambda *_: 100)
    assert main(["--defense", "dp", "--seconds", "10"]) == 2
    said = capsys.readouterr().err
    assert "10 seconds will do for 100 releases here" in said
    assert "give --seconds 48 or more" in said
    for seconds in (0, -1.0, float("nan")):
        with pytest.raises(InputError, match="`seconds` must be above 0"):
            audit(create("none"), seconds=seconds)


def test_what_fits_follows_from_the_speed(monkeypatch):
    clock = iter([0.0, 0.001, 0.001, 0.501])  # 10 releases in a millisecond, then 500 in half a second
    monkeypatch.setattr("dpbench.audit.limit.time.perf_counter", lambda: next(clock))
    source = Source(create("none"), seed=0, count=510, portions=2, progress=None)
    assert affordable(source, torch.rand(2, *SHAPE), seconds=10, canaries=4) == 2000


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("", "empty path"),
        ("none/a.json", "folder"),
        (".", "folder"),
        ("thesis.doc", "something else than an audit, and is kept"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_any_release(
    out, said, monkeypatch, tmp_path, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thesis.doc").write_text("[]")
    monkeypatch.setattr("dpbench.audit.__main__.audit", None)  # calling it would fail
    assert main(["--defense", "clip", "--releases", "400", "--out", out]) == 2
    assert said in capsys.readouterr().err
