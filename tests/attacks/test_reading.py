"""What a release says entry by entry, and what attacks make of it, on victims with a known answer."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import attacks
from attacks import linear_estimate
from attacks.adaptation import support
from attacks.matched_labels import matched
from attacks.prior_aware import scores
from attacks.reading import linear, reading_of
from defenses import create
from dpbench.protocol import Candidates, PublicImages, Release, Stage
from tests.helpers.attacks import know, smooth_images
from tests.helpers.linear_victim import CLASSES, PIXELS, SHAPE, draw, gradients, released, told

NAMES = ("fc.weight", "fc.bias")


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def defended(name, rows, count=1, batch=1, seed=0, before=(), **given):
    """`count` releases by the last stage `name` of gradients [count, P] or [P] of the linear victim."""
    (stage,) = create(name, **given).stages
    rows = rows.expand(count, -1) if rows.ndim == 1 else rows
    size = CLASSES * PIXELS
    shaped = [(r[:size].view(CLASSES, PIXELS).clone(), r[size:].clone()) for r in rows]
    each = stage.process_all(shaped, torch.Generator().manual_seed(seed))
    mean = tuple(torch.stack(same).mean(0) for same in zip(*each, strict=True))
    repeats = tuple(each) if count > 1 else ()
    return Release(NAMES, mean, batch, (*before, stage.stage()), repeats=repeats)


def numbers(count=1, seed=0):
    size = CLASSES * PIXELS + CLASSES
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed)).squeeze(0)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(("name", "given"), [("prune", {"prune_ratio": 0.5}), ("topk", {"topk_ratio": 0.5})])
def test_what_was_kept_is_the_gradient_and_nothing_is_known_of_the_rest(name, given, batch):
    g = numbers()
    seen = linear(defended(name, g, batch=batch, **given))
    assert 15 < int(seen.kept.sum()) < 25
    assert torch.equal(seen.values, torch.where(seen.kept, batch * g, 0.0))
    assert torch.equal(seen.weights, seen.kept.float())
    assert seen.noise == 0


def test_what_topk_sent_late_is_divided_by_how_much_of_it_was_sent():
    g = numbers()
    seen = linear(defended("topk", g, count=6, topk_ratio=0.2))
    assert int(seen.kept.sum()) > 20
    torch.testing.assert_close(seen.values, torch.where(seen.kept, g, 0.0))


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("prune", {"prune_ratio": 0.5}),
        ("topk", {"topk_ratio": 0.1}),
        ("percentile", {"percentile": 40.0, "percentile_gamma": 1.0}),
        ("percentile", {"percentile": 40.0, "percentile_gamma": 1e-3}),  # all that is sent is clamped
    ],
)
def test_what_was_never_sent_is_within_its_bounds(name, given, count):
    """Also of noisy releases, each of which sends other entries: the mean of what each was given."""
    rows = numbers() + 0.2 * torch.randn(count, len(numbers()), generator=torch.Generator().manual_seed(1))
    release = defended(name, rows, count=count, **given)
    seen = reading_of(release)
    unsent = flat(seen.shares) == 0
    bounds = torch.cat([b.expand(v.shape).flatten() for b, v in zip(seen.bounds, seen.values, strict=True)])
    assert unsent.any()
    assert (rows.mean(0).abs() <= bounds + 1e-6)[unsent].all()
    assert count > 1 or given.get("percentile_gamma") == 1e-3 or (rows[0].abs() >= bounds)[~unsent].all()


def test_entries_that_were_pruned_in_some_releases_are_read_from_the_others():
    """Under noise each release keeps other entries: what is kept in k of T has T / k times the variance."""
    g, noise, count = numbers(), 0.5, 400
    noised = g + noise * torch.randn(count, len(g), generator=torch.Generator().manual_seed(1))
    before = (Stage("noise", {"noise_std": noise}),)
    release = defended("prune", noised, count=count, before=before, prune_ratio=0.5)
    shares = flat(support(release))
    truth = torch.stack([flat(each) for each in release.each]).ne(0).float().mean(0)
    torch.testing.assert_close(shares, truth)
    seen = linear(release)
    torch.testing.assert_close(seen.values[shares == 1], noised.mean(0)[shares == 1])
    assert ((shares > 0) & (shares < 1)).any()
    deviation = seen.noise / seen.weights[seen.kept]
    torch.testing.assert_close(deviation, noise / (count * shares[seen.kept]).sqrt())


def test_clamped_entries_are_dropped():
    g = numbers()
    seen = linear(defended("percentile", g, percentile=20.0, percentile_gamma=1.0))
    told_of = (g.abs() < 1) & (g.abs() > g.abs().quantile(0.2))
    assert torch.equal(seen.kept, told_of)
    assert torch.equal(seen.values, torch.where(told_of, g, 0.0))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("bits", [1, 3])
def test_rounding_is_noise_of_the_variance_that_it_says(bits, count):
    errors, said = [], []
    for seed in range(300):
        g = numbers(seed=seed)
        seen = linear(defended("quantize", g, count=count, seed=seed, quantize_bits=bits))
        if seen.kept.all():
            errors.append((seen.values - g).square())
            said.append((seen.noise / seen.weights).square())
    errors, said = torch.stack(errors), torch.stack(said)
    assert len(errors) > 50
    for part in (slice(0, CLASSES * PIXELS), slice(CLASSES * PIXELS, None)):
        assert float(said[:, part].mean()) == pytest.approx(float(errors[:, part].mean()), rel=0.3)


def test_nothing_is_read_from_what_is_orthogonal_to_the_gradient(tiny):
    images, label = smooth_images(40), torch.tensor([2])
    knowledge = know(tiny, label, (3, 8, 8), 4, public_images=PublicImages(images[1:], torch.full((39,), 2)))
    release = create("censor").release(tiny, F.cross_entropy, images[:1], label, seed=0)
    assert not linear(release).kept.any()
    for name in ("lmmse", "map"):
        if name == "map":
            from dpbench.data.image_statistics import fit

            statistics = fit((images * 255).byte(), images.mean(0))
            object.__setattr__(knowledge, "image_statistics", statistics)
        found = attacks.create(name)(release, knowledge, seed=0).images
        torch.testing.assert_close(found[0], images[1:].mean(0), atol=0.02, rtol=0)


def test_soteria_hides_its_columns_and_no_more(tiny):
    images, label = smooth_images(1), torch.tensor([2])
    plain = create("none").release(tiny, F.cross_entropy, images, label, seed=0)
    release = create("soteria", soteria_ratio=0.5).release(tiny, F.cross_entropy, images, label, seed=0)
    seen = linear(release)
    assert int((~seen.kept).sum()) == 256 * 4
    torch.testing.assert_close(seen.values, torch.where(seen.kept, flat(plain.gradients), 0.0))


def estimated(release, knowledge):
    return linear_estimate.estimate(release, knowledge, 1200, torch.device("cpu")).images.double()


def dense(seen, labels, public):
    """The estimate from covariances as they are, of the entries of which something is known."""
    mean, gain, total = [], [], 0
    for label in labels.tolist():
        x = public.of(label, 1200).double()
        g = gradients(x, torch.full((len(x),), label))
        x, expected = x.flatten(1), g.mean(0)
        mean.append((x.mean(0), expected))
        gain.append((x - x.mean(0)).T @ (g - expected) / len(x))
        total = total + (g - expected).T @ (g - expected) / len(x)
    kept = seen.kept
    spread = (seen.noise / seen.weights[kept].double()).square()
    misfit = seen.values.double() - sum(m[1] for m in mean)
    solved = torch.linalg.solve(total[kept][:, kept] + torch.diag(spread), misfit[kept])
    return torch.stack([m[0] + c[:, kept] @ solved for m, c in zip(mean, gain, strict=True)]).unflatten(
        1, SHAPE
    )


@pytest.mark.parametrize("labels", [[1], [2, 0], [1, 0, 1]])
@pytest.mark.parametrize("name", ["topk", "percentile", "quantize"])
def test_the_linear_estimate_is_that_of_the_known_entries(name, labels):
    labels, knowledge = torch.tensor(labels), told(torch.tensor(labels))
    noised = released(draw(labels), labels, 0.1)
    given = {"topk": {"topk_ratio": 0.5}, "percentile": {"percentile_gamma": 0.6 / len(labels)}}.get(name, {})
    release = defended(name, flat(noised.gradients), batch=len(labels), before=noised.defense, **given)
    seen = linear(release)
    assert name == "quantize" or 0 < int(seen.kept.sum()) < 39
    truth = dense(seen, labels, knowledge.public_images)
    torch.testing.assert_close(estimated(release, knowledge), truth, atol=1e-4, rtol=0)
    blind = Release(release.names, release.gradients, release.batch_size, noised.defense)
    assert not torch.allclose(estimated(blind, knowledge), truth, atol=1e-2)


@pytest.mark.parametrize(
    ("attack", "name", "given", "images"),
    [
        ("lmmse", "topk", {"topk_ratio": 0.2}, 20),
        ("lmmse", "percentile", {"percentile_gamma": 0.55}, 20),
        ("lmmse", "quantize", {"quantize_bits": 2}, 20),
        ("map", "topk", {"topk_ratio": 0.2}, 3),
        ("map", "percentile", {"percentile_gamma": 0.55}, 3),
    ],
)
def test_knowing_the_last_stage_brings_the_image_closer(attack, name, given, images):
    """Against the same attack that is not told of it, and against the mean image."""
    label, errors = torch.tensor([1]), {"told": 0.0, "blind": 0.0, "mean": 0.0}
    knowledge, own = told(label, each=100), {"iterations": 100} if attack == "map" else {}
    for seed in range(images):
        image = draw(label, seed=100 + seed)
        noised = released(image, label, 0.02, seed=seed)
        release = defended(name, flat(noised.gradients), seed=seed, before=noised.defense, **given)
        blind = Release(release.names, release.gradients, 1, noised.defense)
        for how, sent in (("told", release), ("blind", blind)):
            found = attacks.create(attack, **own)(sent, knowledge, seed=0)
            errors[how] += float((found.images - image).square().mean())
        errors["mean"] += float((knowledge.public_images.of(1, 100).mean(0) - image).square().mean())
    assert errors["told"] < 0.95 * min(errors["blind"], errors["mean"])


def test_prior_aware_weighs_entries_and_finds_the_truth():
    """Eight candidates for one of two samples."""
    candidates, known = numbers(8, seed=3), numbers(seed=4)
    images = torch.arange(8.0)[:, None, None, None].expand(8, *SHAPE)
    knowledge = told(torch.tensor([0]))
    object.__setattr__(knowledge, "candidates", Candidates(images, torch.arange(8), candidates, known))
    for name, given in (
        ("sign", {}),
        ("percentile", {"percentile_gamma": 0.2}),
        ("quantize", {"quantize_bits": 2}),
        ("topk", {"topk_ratio": 0.3}),
    ):
        right = asked = 0
        for truth in range(8):
            release = defended(name, (candidates[truth] + known) / 2, batch=2, seed=truth, **given)
            found = attacks.create("prior-aware")(release, knowledge, seed=0)
            right += int(found.labels) == truth
            without = defended(name, known / 2, batch=2, seed=truth, **given)
            for sent, member in ((release, True), (without, False)):
                asked += bool(scores(sent, known, candidates[truth][None]) > 0) == member
        assert right == 8, name
        assert asked >= 15, name


def test_labels_are_matched_on_what_was_kept(tiny):
    """Batches of four under noise and top-k: more labels than for who is not told of what was kept."""
    images, labels = smooth_images(400), torch.arange(400) % 4
    public = (images[80:], labels[80:])
    knowledge = know(tiny, None, (3, 8, 8), 4, public_images=PublicImages(*public))
    found = {"told": 0, "blind": 0}
    for seed in range(20):
        order = torch.randperm(80, generator=torch.Generator().manual_seed(seed))[:4]
        chain = create("noise+topk", noise_std=0.02, topk_ratio=0.2)
        release = chain.release(tiny, F.cross_entropy, images[order], labels[order], seed=seed)
        blind = Release(release.names, release.gradients, 4, release.defense[:1])
        for how, sent in (("told", release), ("blind", blind)):
            guess = matched(sent, knowledge, (sent.names[2], sent.names[3]), public)
            counts = [torch.bincount(each, minlength=4) for each in (guess, labels[order])]
            found[how] += int(torch.minimum(*counts).sum())
    assert found["told"] > found["blind"]
    assert found["told"] > 60


@pytest.mark.parametrize("name", ["quantize", "soteria"])
def test_the_linear_estimate_reads_defended_gradients_of_a_network(tiny, name):
    """Of a conv net, over ten images: closer than the mean image, and closer than without a word of it."""
    given = {
        "quantize": {"quantize_bits": 2},
        "soteria": {"soteria_ratio": 0.3},
    }.get(name, {})
    images, errors = smooth_images(210), torch.zeros(3)
    for i in range(10):
        label = torch.tensor([2])
        public = PublicImages(images[10:], torch.full((200,), 2))
        knowledge = know(tiny, label, (3, 8, 8), 4, public_images=public)
        release = create(name, **given).release(tiny, F.cross_entropy, images[i : i + 1], label, seed=i)
        blind = Release(release.names, release.gradients, 1)
        for k, sent in enumerate((release, blind)):
            found = attacks.create("lmmse")(sent, knowledge, seed=0)
            errors[k] += (found.images - images[i]).square().mean()
        errors[2] += (found.start - images[i]).square().mean()
    assert errors[0] < 0.7 * errors[2]
    assert errors[0] < errors[1]
