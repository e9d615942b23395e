"""The learned inversion: what it simulates, what it learns, what it keeps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import attacks
from attacks.learned import kept
from attacks.learned.back_projection import fitted
from attacks.learned.decoder import trained
from attacks.learned.simulate import simulated
from attacks.learned.sketch import Sketch
from defenses import create
from dpbench.protocol import InputError, PublicImages, Release, Stage, combined
from tests.helpers.attacks import know, noise_release, smooth_images

IMAGES, LABELS = smooth_images(420), torch.arange(420) % 4


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DPBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(kept, "_held", {})
    return tmp_path / "learned-inversion"


def told(model, label=None, first=20):
    public = PublicImages(IMAGES[first:], LABELS[first:])
    return know(model, None if label is None else label[None], (3, 8, 8), 4, public_images=public)


def released(model, i, name, seed=0, count=1, **given):
    chain = create(name, **given)
    x, y = IMAGES[i : i + 1], LABELS[i : i + 1]
    return combined(chain.releases(model, F.cross_entropy, x, y, seed=seed, count=count))


def attack(steps=40, **given):
    return attacks.create("learned-inversion", training_steps=steps, **given)


@pytest.mark.parametrize(
    ("name", "count", "given"),
    [
        ("none", 1, {}),
        ("clip", 1, {"max_grad_norm": 0.1}),
        ("sign", 1, {}),
        ("topk", 3, {"topk_ratio": 0.2}),
        ("soteria", 1, {}),
        ("clip+percentile", 1, {"max_grad_norm": 0.1, "percentile_gamma": 0.01}),
    ],
)
def test_what_is_simulated_is_what_is_released(tiny, name, count, given):
    """Of defences that draw nothing at random."""
    truth = [released(tiny, i, name, count=count, **given) for i in range(3)]
    found = simulated(truth[0], told(tiny), IMAGES[:3], LABELS[:3], torch.Generator().manual_seed(0))
    for one, other in zip(found, truth, strict=True):
        torch.testing.assert_close(one, other.gradients, atol=1e-6, rtol=1e-4)


def test_noise_is_drawn_for_every_image(tiny):
    like = released(tiny, 0, "dp", noise_multiplier=1.0)
    same = (IMAGES[:1].expand(2, -1, -1, -1), LABELS[:1].expand(2))
    first, second = simulated(like, told(tiny), *same, torch.Generator().manual_seed(0))
    assert not torch.equal(first[0], second[0])


def test_a_sketch_keeps_inner_products():
    sizes = [5, 3000, 2000]
    sketch = Sketch(sizes, 1005, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    a, b = ([torch.randn(n, generator=generator) for n in sizes] for _ in range(2))
    b = [x + y for x, y in zip(a, b, strict=True)]
    assert sketch.length == 1005
    flat = [torch.cat(g) / torch.cat(g).norm() for g in (a, b)]
    assert float(sketch(a) @ sketch(b)) == pytest.approx(float(flat[0] @ flat[1]), abs=0.1)
    torch.testing.assert_close(sketch(a), sketch([7 * g for g in a]))
    torch.testing.assert_close(sketch(a)[:5], flat[0][:5])


def test_what_a_sample_is_estimated_as_does_not_know_it():
    """Against regressions from which each sample is left out in turn, with the ridge that was chosen."""
    generator = torch.Generator().manual_seed(0)
    rows, targets = (torch.randn(30, n, generator=generator, dtype=torch.float64) for n in (8, 2))
    targets = rows[:, :2] + targets
    targets = targets - targets.mean(0)
    found = fitted(rows, targets, [8])
    scaled = (rows - rows.mean(0)) / (rows - rows.mean(0)).square().mean().sqrt()

    def others(i, ridge):
        rest = [j for j in range(30) if j != i]
        x, y = scaled[rest], targets[rest]
        centred = x - x.mean(0)
        weights = torch.linalg.solve(
            centred.T @ centred + ridge * torch.eye(8, dtype=x.dtype), centred.T @ (y - y.mean(0))
        )
        return (scaled[i] - x.mean(0)) @ weights + y.mean(0)

    # the ridge shows in the weights
    inner = scaled.T @ scaled
    spread = (rows - rows.mean(0)).square().mean().sqrt()
    ridge = float(
        ((scaled.T @ targets - inner @ (found.weights * spread)) / (found.weights * spread)).median()
    )
    torch.testing.assert_close(found.alone[3], others(3, ridge), atol=1e-6, rtol=1e-4)
    assert float((found.alone - targets).square().mean()) < 1.5


def test_the_decoder_learns_what_estimates_have_in_common():
    """Estimates at half the contrast: a network can undo that, and starts as the identity."""
    means = torch.full_like(IMAGES, 0.5)
    estimates = 0.5 + (IMAGES - 0.5) / 2
    untrained, decoder = (trained(estimates, means, IMAGES, n, lambda *_: None) for n in (0, 100))
    torch.testing.assert_close(untrained(estimates, means), estimates)
    errors = [float((d(estimates, means) - IMAGES).square().mean()) for d in (untrained, decoder)]
    assert errors[1] < 0.2 * errors[0]
    odd = torch.rand(1, 3, 7, 5)
    assert decoder(odd, odd).shape == odd.shape


@pytest.mark.parametrize(("name", "given"), [("sign", {}), ("quantize", {"quantize_bits": 3})])
def test_it_inverts_what_it_was_trained_under_and_no_noise(tiny, name, given):
    errors = torch.zeros(3)
    for i in range(12):
        release = released(tiny, i, name, seed=i, **given)
        nothing = noise_release(release, seed=i)
        noise = Release(release.names, nothing.gradients, 1, release.defense)
        if name == "sign":
            noise = Release(release.names, tuple(g.sign() for g in noise.gradients), 1, release.defense)
        for k, sent in enumerate((release, noise)):
            found = attack()(sent, told(tiny, LABELS[i]), seed=0)
            errors[k] += (found.images - IMAGES[i]).square().mean()
        errors[2] += (found.start - IMAGES[i]).square().mean()
    assert errors[0] < 0.7 * errors[2]
    assert errors[1] > 0.9 * errors[2]


def test_it_trains_once_and_is_kept(tiny, cache, monkeypatch):
    release, knowledge = released(tiny, 0, "sign"), told(tiny, LABELS[0])
    calls = []
    first = attack()(release, knowledge, seed=0, progress=lambda *call: calls.append(call))
    assert calls[0][:2] == (0, 40)
    assert calls[-1][:2] == (40, 40)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr("attacks.learned.attack.learnt", lambda *_: pytest.fail("it trains again"))
    attack()(released(tiny, 1, "sign"), knowledge, seed=3)
    kept._held.clear()  # as in another process
    again = attack()(release, knowledge, seed=1)
    assert torch.equal(first.images, again.images)
    for other in (
        lambda: attack(steps=41)(release, knowledge, seed=0),
        lambda: attack()(released(tiny, 0, "sign", sign_scale="mean"), knowledge, seed=0),
        lambda: attack()(release, told(tiny, LABELS[0], first=24), seed=0),
    ):
        with pytest.raises(pytest.fail.Exception, match="trains again"):
            other()
    with torch.no_grad():
        tiny.fc.weight.add_(0.01)
    with pytest.raises(pytest.fail.Exception, match="trains again"):
        attack()(release, knowledge, seed=0)


def test_a_spoilt_file_is_made_again(tiny, cache):
    release, knowledge = released(tiny, 0, "sign"), told(tiny, LABELS[0])
    first = attack()(release, knowledge, seed=0)
    (file,) = cache.iterdir()
    file.write_bytes(b"nothing")
    kept._held.clear()
    assert torch.equal(attack()(release, knowledge, seed=0).images, first.images)
    assert file.stat().st_size > 1000


def test_what_it_cannot_do_is_refused(tiny):
    chain = create("sign")
    two = chain.release(tiny, F.cross_entropy, IMAGES[:2], LABELS[:2], seed=0)
    with pytest.raises(InputError, match="takes 1 image at a time and the batch has 2: use `batch_size` 1"):
        attack()(two, told(tiny, LABELS[0]), seed=0)
    release = released(tiny, 0, "sign")
    unknown = Release(release.names, release.gradients, 1, (Stage("theirs"),))
    with pytest.raises(InputError, match="No defence is registered as theirs"):
        attack()(unknown, told(tiny, LABELS[0]), seed=0)
    with pytest.raises(InputError, match="20 public images of a label"):
        attack(training_images=40)(release, told(tiny, LABELS[0]), seed=0)
    some = know(tiny, LABELS[3:4], (3, 8, 8), 4, public_images=PublicImages(IMAGES[:200], LABELS[:200] % 2))
    with pytest.raises(InputError, match="no 20 public images of label 3"):
        attack()(release, some, seed=0)
