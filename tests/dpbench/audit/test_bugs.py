"""Planted bugs are caught, and the correct mechanism passes the same audit."""

from __future__ import annotations

import pytest
import torch

from defenses import create
from dpbench import privacy
from dpbench.audit import audit
from tests.helpers import mechanisms, noise_bugs
from tests.helpers.mechanisms import HandWritten, MoreNoise, chain, claim

torch.set_num_threads(1)

MECHANISMS = {
    name: each
    for name, each in (vars(mechanisms) | vars(noise_bugs)).items()
    if isinstance(each, type) and issubclass(each, HandWritten) and each is not HandWritten
}
SHOWN_BY = {
    "BatchClipped": {"shift of the mean"},
    "EntriesClipped": {"epsilon", "shift of the mean"},
    "TensorLeftOut": {"epsilon", "shift of the mean"},
    "NotClipped": {"epsilon", "shift of the mean"},
    "PrivateCount": {"epsilon"},
    "MedianNorm": {"epsilon", "size"},
    "LargestNorm": {"epsilon", "shift of the mean"},
    "LargestClippedNorm": {"epsilon", "size"},
    "NormsPublished": {"epsilon"},
    "NoiseDividedTwice": {"epsilon", "size", "quietest direction"},
    "NoiseWithoutC": {"epsilon", "size", "quietest direction"},
    "NoiseByTotalLength": {"epsilon", "size", "quietest direction"},
    "UpsideDown": {"epsilon", "size", "quietest direction"},
    "NoiseBeforeClipping": {"epsilon", "size", "shape"},
    "TensorNotNoised": {"epsilon", "size", "quietest direction"},
    "LastEntriesNotNoised": {"epsilon", "size", "quietest direction"},
    "SometimesNotNoised": {"releases distinct", "shape"},
    "SameNoiseInTensors": {"epsilon", "quietest direction", "entries independent"},
    "CentredNoise": {"epsilon", "quietest direction", "entries independent"},
    "CommonNoise": {"entries independent"},
    "NoiseUsedTwice": {"releases independent", "releases distinct"},
    "MirroredNoise": {"releases distinct"},
    "CorrelatedReleases": {"releases independent"},
    "OwnSeed": {"releases distinct", "worlds independent"},
    "SixteenBitSeed": {"releases distinct"},
    "SixteenBitSeeds": {"releases distinct"},
    "TensorsShareNoise": {"releases distinct"},
    "LaplaceNoise": {"shape"},
    "RoundedNoise": {"shape"},
    "VaryingNoise": {"shape"},
}
"""What has to show each bug at eps 1 and C = 3, with 2,000 releases for each canary."""
PRIVATE = {"Correct", "MoreNoise"}
NEED_MORE = {"TensorsClipped"}


def test_no_mechanism_is_forgotten():
    assert MECHANISMS.keys() == SHOWN_BY.keys() | PRIVATE | NEED_MORE


@pytest.mark.parametrize("name", sorted(SHOWN_BY.keys() | PRIVATE))
def test_what_2000_releases_show_at_eps_1(name):
    releases = 400 if name == "NormsPublished" else 2000  # it is asked for one at a time
    report = audit(chain(MECHANISMS[name], claim(1.0, 3.0)), releases=releases)
    shown = {check.name for check in report.departures} | ({"epsilon"} if report.exceeded else set())
    expected = SHOWN_BY.get(name, set())
    assert report.failed == bool(expected)
    assert shown >= expected


@pytest.mark.parametrize("seed", range(3))
def test_a_sensitivity_of_1_4_c_is_seen_at_eps_1_with_8000_releases(seed):
    """The epsilon found is below the claim; the mean moves too far all the same."""
    report = audit(chain(mechanisms.TensorsClipped, claim(1.0)), releases=8000, seed=seed)
    assert [check.name for check in report.departures] == ["shift of the mean"]


@pytest.mark.parametrize(
    "name", ["SameNoiseInTensors", "TensorNotNoised", "LastEntriesNotNoised", "CentredNoise"]
)
@pytest.mark.parametrize("seed", range(2))
def test_directions_without_noise_show_in_the_epsilon_of_any_mechanism(name, seed):
    """No Gaussian claim is needed, and 1,000 releases show as much as they can show at all."""
    report = audit(chain(MECHANISMS[name], claim(1.0)), releases=1000, claimed_eps=1.0, seed=seed)
    assert not report.gaussian
    assert report.exceeded
    assert report.eps == pytest.approx(report.reach)
    assert all(finding.seen_by.startswith("whitened") for finding in report.findings if finding.eps > 2)


@pytest.mark.parametrize(
    ("name", "seen_by"),
    [
        ("MedianNorm", "likelihood ratio"),
        ("LargestNorm", "likelihood ratio"),
        ("LargestClippedNorm", "likelihood ratio"),
        ("NormsPublished", "published number"),
    ],
)
def test_what_depends_on_the_private_batch_shows_in_the_epsilon_of_any_mechanism(name, seen_by):
    report = audit(chain(MECHANISMS[name], claim(1.0)), releases=400, claimed_eps=1.0)
    assert report.exceeded
    assert max(report.findings, key=lambda finding: finding.eps).seen_by == seen_by


@pytest.mark.parametrize("bound", [0.1, 3.0])
@pytest.mark.parametrize(
    "name",
    [
        "NoiseDividedTwice",
        "BatchClipped",
        "NoiseBeforeClipping",
        "TensorsClipped",
        "UpsideDown",
        "SameNoiseInTensors",
    ],
)
def test_bugs_show_in_epsilon_at_8_with_4000_releases(name, bound):
    assert audit(chain(MECHANISMS[name], claim(8.0, bound)), releases=4000).exceeded


def test_from_python_clip_and_noise_claim_what_their_rows_do():
    given = {"max_grad_norm": 1.0, "noise_std": 0.3}
    report = audit(create("clip+noise", **given), releases=400)
    assert report.gaussian
    assert report.claimed_eps == pytest.approx(privacy.epsilon(1.2, 1e-5), rel=1e-3)  # 0.3 on a mean of 4
    assert not report.failed
    assert audit(create("clip+noise", **given), releases=400, claimed_eps=9.0).claimed_eps == 9
    assert audit(create("clip+noise", **given | {"noise_std": 0.0}), releases=400).claimed_eps is None


def test_more_noise_than_claimed_is_told_and_is_no_breach():
    report = audit(chain(MoreNoise, claim(2.0)), releases=400)
    assert not report.failed
    size = next(check for check in report.checks if check.name == "size")
    low, high = (float(part) for part in size.found.split(" of ")[0].split(" to "))
    assert 1.4 < low < 1.5 < high < 1.6


@pytest.mark.parametrize("ratio", [0.0, 0.9])
def test_post_processing_does_not_hide_the_noise_from_its_checks(ratio):
    prune = create("prune", prune_ratio=ratio).stages
    report = audit(chain(noise_bugs.SixteenBitSeed, claim(1.0), *prune), releases=2000)
    assert [check.name for check in report.departures] == ["releases distinct"]
