"""GradInversion and its baselines on tiny networks, where the answer is known."""

from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import attacks
from attacks import gradinversion
from attacks.gaussian_prior import GaussianPrior
from attacks.gradinversion import GradInversion
from attacks.held import Held, WithFeatures
from attacks.objectives import LayerL2, Scaled
from attacks.regularisers import (
    L2,
    BatchNormStatistics,
    DiagonalVariation,
    GroupConsistency,
    ImageNorm,
    TotalVariation,
)
from dpbench.data import image_statistics
from dpbench.protocol import InputError, Release
from dpbench.victim.batch_norm import exact, recovered, statistics, updated
from dpbench.victim.networks import FrozenBatchNorm2d, build
from tests.helpers import attacks as helpers
from tests.helpers.attacks import Painter, noise_release, plain_release, psnr

LABELS = torch.tensor([2, 0])


def know(model, images, source="exact", labels=LABELS, **more):
    told = statistics(model, images, source)
    return helpers.know(model, labels, (3, 8, 8), 4, bn_stats=source, statistics=told, **more)


def matched(found, images):
    """PSNR under the better of the two orders."""
    return max(psnr(found.images, images), psnr(found.images.flip(0), images))


@pytest.mark.parametrize("relative", [False, True])
def test_priors_have_the_gradient_of_finite_differences(relative):
    generator = torch.Generator().manual_seed(1)
    z, x = (
        torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2)
    )
    told = [(torch.rand(3, dtype=torch.float64), torch.rand(3, dtype=torch.float64))]
    assert torch.autograd.gradcheck(DiagonalVariation(0.3), z)
    assert torch.autograd.gradcheck(ImageNorm(0.3), z)
    assert torch.autograd.gradcheck(lambda x: BatchNormStatistics(0.3, told, relative)(z, [x]), x)
    assert torch.autograd.gradcheck(GroupConsistency(0.3, torch.zeros(2, 3, 5, 4).double(), relative), z)


def test_the_group_term_pulls_nowhere_from_the_consensus_itself():
    z = torch.randn(1, 3, 4, 4, requires_grad=True)
    GroupConsistency(1.0, z.detach().clone())(z).backward()
    assert torch.equal(z.grad, torch.zeros_like(z))


def test_the_papers_terms_are_its_sums():
    z = torch.randn(2, 3, 5, 4)
    expected = sum(
        float(d.norm())
        for d in (
            z[..., :, 1:] - z[..., :, :-1],
            z[..., 1:, :] - z[..., :-1, :],
            z[..., 1:, 1:] - z[..., :-1, :-1],
            z[..., 1:, :-1] - z[..., :-1, 1:],
        )
    )
    assert float(DiagonalVariation(1.0)(z)) == pytest.approx(expected, rel=1e-5)
    norms = (float(z[0].norm()) + float(z[1].norm())) / 2
    assert float(ImageNorm(1.0)(z)) == pytest.approx(norms, rel=1e-5)


def test_recovered_statistics_are_the_exact_ones():
    """From float32 running statistics that a client sent after one batch."""
    model = build("resnet20")
    batch = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    for (mean, variance), (m, v) in zip(
        exact(model, batch), recovered(model, updated(model, batch)), strict=True
    ):
        torch.testing.assert_close(m, mean, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(v, variance, rtol=1e-4, atol=1e-4)
    running = statistics(model, batch, "running")
    assert not torch.allclose(running[0][0], exact(model, batch)[0][0], atol=1e-3)
    assert statistics(model, batch, "none") == ()


def test_statistics_are_those_of_training_batch_norm():
    """An independent witness: PyTorch's own batch norm in training mode normalises with them."""
    model = build("resnet20")
    batch = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    mean, variance = exact(model, batch)[0]
    seen = model.conv1(model.normalise(batch))
    layer = nn.BatchNorm2d(16, affine=False, eps=1e-12)
    expected = layer(seen)
    found = (seen - mean[:, None, None]) / variance.sqrt()[:, None, None]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("terms", get_args(gradinversion.Terms))
def test_every_row_of_the_ablation_inverts_a_tiny_net(terms, normed, images):
    release = plain_release(normed, images, LABELS)
    attack = GradInversion(terms=terms, iterations=400, restarts=2)
    found = attack(release, know(normed, images), seed=1)
    # the best constant image has 15.0 dB; fed noise, the same searches end at 6.1 to 12.1; regularisers blur
    assert matched(found, images) > (40 if terms == "gradient" else 16)
    assert found.iterations == 800


@pytest.mark.filterwarnings("ignore:.* was given no statistics")
@pytest.mark.parametrize(
    ("preset", "statistics", "limit"),
    [("tuned", "exact", 2.0), ("tuned", "none", None), ("paper", "exact", None)],
)
def test_the_pull_is_limited_where_there_are_statistics(
    preset, statistics, limit, normed, images, monkeypatch
):
    """Without any, total variation is next to nothing beside the gradient, and must not hold it back."""
    seen = []

    def watched(problem, *args, **kwargs):
        seen.append(problem.limit)
        return search(problem, *args, **kwargs)

    search = gradinversion.search
    monkeypatch.setattr(gradinversion, "search", watched)
    attack = GradInversion(preset=preset, terms="fidelity", iterations=2, restarts=1)
    attack(plain_release(normed, images, LABELS), know(normed, images, statistics), seed=0)
    assert seen == [limit]


def problem_of(release, knowledge, monkeypatch, **given):
    """What is searched for, and the answer."""
    seen = []

    def watched(problem, starts, labels, schedule, **kwargs):
        seen.append((problem, schedule))
        return search(problem, starts, labels, schedule, **kwargs)

    search = gradinversion.search
    with monkeypatch.context() as patch:
        patch.setattr(gradinversion, "search", watched)
        found = GradInversion(iterations=10, **({"terms": "fidelity", "restarts": 1} | given))(
            release, knowledge, seed=0
        )
    return *seen[0], found


def public(size=8):
    pixels = torch.rand(12, 3, size, size, generator=torch.Generator().manual_seed(6))
    return image_statistics.fit((255 * pixels).byte(), pixels.mean(0))


def test_the_prior_takes_the_place_of_total_variation_where_there_are_statistics(normed, images, monkeypatch):
    release = plain_release(normed, images, LABELS)

    def terms(statistics, **given):
        problem, schedule, found = problem_of(
            release, know(normed, images, image_statistics=statistics), monkeypatch, **given
        )
        return [type(each) for each in problem.regularisers], schedule.factors, found.note

    kinds, factors, note = terms(public())
    assert kinds == [GaussianPrior, BatchNormStatistics]
    assert factors[[0, -1]].flatten().tolist() == pytest.approx([10, 1, 1, 1])
    assert note == ""
    kinds, factors, _ = terms(public(), terms="lazy", restarts=2)
    assert kinds == [GaussianPrior, BatchNormStatistics, GroupConsistency]
    assert factors[[0, -1]].tolist() == [pytest.approx([10, 1, 0]), [1, 1, 1]]
    for told in (None, public(16)):
        kinds, factors, note = terms(told)
        assert kinds == [TotalVariation, L2, BatchNormStatistics]
        assert factors.min() == factors.max() == 1
        assert note.startswith("There were no statistics of public images of this size")
    kinds, _, note = terms(public(), preset="paper")
    assert kinds == [DiagonalVariation, ImageNorm, BatchNormStatistics]
    assert note == ""
    assert terms(public(), terms="gradient")[::2] == ([], "")
    assert "image_statistics" in GradInversion().wants()
    for given in ({"terms": "gradient"}, {"preset": "paper"}):
        assert "image_statistics" not in GradInversion(**given).wants()


def test_beside_a_prior_other_peoples_batch_statistics_count_for_nothing(
    normed, images, monkeypatch, recwarn
):
    release = plain_release(normed, images, LABELS)

    def problem(source, statistics=True):
        knowledge = know(normed, images, source, image_statistics=public() if statistics else None)
        found, _, answer = problem_of(release, knowledge, monkeypatch)
        assert (gradinversion.LEFT_ASIDE in answer.note) == (source == "running" and statistics)
        return [type(each) for each in found.regularisers], found.limit

    recwarn.clear()
    for source in ("exact", "recovered"):
        assert problem(source) == ([GaussianPrior, BatchNormStatistics], 2)
    for source in ("running", "none"):
        assert problem(source) == ([GaussianPrior], None)
    assert problem("running", statistics=False) == ([TotalVariation, L2, BatchNormStatistics], 2)
    assert not [each for each in recwarn if "batch-norm" in str(each.message)]


@pytest.mark.filterwarnings("ignore:.* was given no statistics")
def test_the_loss_gradient_is_held_and_large_entries_count_for_less(normed, images, monkeypatch):
    release = plain_release(normed, images, LABELS)

    def objective(told, statistics="exact", **given):
        knowledge = know(normed, images, statistics, image_statistics=public() if told else None)
        problem, _, found = problem_of(release, knowledge, monkeypatch, **given)
        return type(problem.objective), type(problem.loss), found.note

    assert objective(True) == (WithFeatures, Held, "")
    assert objective(True, "none")[:2] == objective(False)[:2] == (WithFeatures, Held)
    assert objective(True, terms="gradient")[:2] == (Scaled, Held)
    assert objective(False, "none")[:2] == (Scaled, Held)
    assert objective(True, matching="layer-l2")[:2] == (LayerL2, Held)
    assert objective(True, preset="paper") == (LayerL2, type(know(normed, images).loss), "")
    release = noise_release(release)
    assert objective(True)[1] is type(know(normed, images).loss)
    assert objective(True)[2].endswith("so the search went by its own loss.")


def test_what_it_adapts_to():
    def adapts(*stages, **given):
        return GradInversion.adapts(stages, given)

    answers = {name: adapts(name) for name in ("clip", "noise", "prune", "quantize")}
    assert answers == {"clip": False, "noise": True, "prune": True, "quantize": True}
    assert not adapts("noise", preset="paper")
    assert adapts("clip", preset="paper")  # of a distance that sees a scale


@pytest.mark.parametrize(("name", "values"), [("gradinversion", {"terms": "lazy"}), ("deepinversion", {})])
def test_a_batch_norm_term_that_is_lost_is_said_once(name, values, normed, tiny, images, recwarn):
    def said(model, statistics, **more):
        recwarn.clear()
        attack = attacks.create(name, iterations=2, restarts=2, **(values | more))
        attack(plain_release(model, images, LABELS), know(model, images, statistics), seed=0)
        return [str(warning.message) for warning in recwarn if "batch-norm" in str(warning.message)]

    (message,) = said(normed, "none")
    assert message.startswith(f"{name} was given no statistics")
    assert "`bn_stats` running, exact or recovered" in message
    assert said(normed, "exact") == said(tiny, "none") == []
    unused = {"terms": "gradient"} if name == "gradinversion" else {"bn": 0.0}
    assert said(normed, "none", **unused) == []


@pytest.mark.filterwarnings("ignore:.* was given no statistics")
def test_noise_is_not_inverted(normed, images):
    release = noise_release(plain_release(normed, images, LABELS))
    found = GradInversion(terms="fidelity", iterations=100, restarts=1)(
        release, know(normed, images, "none"), seed=1
    )
    assert matched(found, images) <= psnr(torch.full_like(images, 0.5), images) + 1


def test_the_papers_preset_is_the_papers():
    paper = gradinversion.PRESETS["paper"]
    assert (paper.gradient, paper.tv, paper.l2, paper.bn, paper.group) == (1e-3, 1e-4, 1e-6, 0.1, 0.01)
    assert (paper.langevin, paper.learning_rate, paper.iterations, paper.restarts) == (0.2, 0.1, 20_000, 8)
    assert int(gradinversion.GROUP_FROM * 20_000) == 5_000
    assert int(paper.group_every * 20_000) == 100
    assert GradInversion(preset="paper").resolved().matching == "layer-l2"


def test_the_papers_preset_runs(normed, images):
    release = plain_release(normed, images, LABELS)
    attack = GradInversion(preset="paper", terms="lazy", iterations=50, restarts=2)
    found = attack(release, know(normed, images, "running"), seed=0)
    assert found.images.shape == images.shape


def test_the_consensus_is_taken_on_time(normed, images, monkeypatch):
    calls = []

    def watched(seeds, *_, **__):
        calls.append(seeds.shape)
        return seeds.mean(0)

    monkeypatch.setattr(gradinversion, "consensus", watched)
    release = plain_release(normed, images, LABELS)
    GradInversion(iterations=100, restarts=3)(release, know(normed, images), seed=0)
    assert calls == [(3, 2, 3, 8, 8)] * 15  # every 5 of 100 iterations, from 25 on
    calls.clear()
    GradInversion(iterations=100, restarts=3, terms="fidelity")(release, know(normed, images), seed=0)
    assert calls == []


def test_the_group_holds_the_seeds_together(normed, images):
    """With a heavy group term they end nearer to each other than without."""
    release, knowledge = plain_release(normed, images, LABELS), know(normed, images)

    def spread(terms, monkeypatch):
        ends = []
        true = gradinversion.search

        def kept(*args, **kwargs):
            outcome = true(*args, **kwargs)
            ends.append(torch.stack([found.last[0] for found in outcome.found]))
            return outcome

        with monkeypatch.context() as patch:
            patch.setattr(gradinversion, "search", kept)
            GradInversion(terms=terms, iterations=60, restarts=3)(release, knowledge, seed=0)
        return float(ends[0].std(0).mean())

    patch = pytest.MonkeyPatch()
    assert spread("lazy", patch) < spread("fidelity", patch)


def test_labels_are_restored_by_the_minimum_rule(normed, images):
    release = plain_release(normed, images, LABELS)
    found = GradInversion(iterations=2, restarts=2)(release, know(normed, images, labels=None), seed=0)
    assert sorted(found.labels.tolist()) == [0, 2]
    assert found.label_source == "inferred"


@pytest.mark.parametrize("rule", ["minimum", "sum"])
def test_label_restoration_is_complete_on_distinct_labels(rule):
    """20 batches of distinct labels on a network with positive features that is sure of nothing yet."""
    model, right = build("convnet"), []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        batch = torch.rand(4, 3, 32, 32, generator=generator)
        labels = torch.randperm(10, generator=generator)[:4]
        knowledge = helpers.know(model)
        attack = attacks.create("label-restoration", label_rule=rule)
        found = attack(plain_release(model, batch, labels), knowledge, seed=0)
        right.append(sorted(found.labels.tolist()) == sorted(labels.tolist()))
    assert all(right) if rule == "minimum" else sum(right) >= 10


def test_more_labels_than_classes_are_refused(normed):
    batch, labels = torch.rand(5, 3, 8, 8), torch.tensor([0, 1, 2, 3, 0])
    release = plain_release(normed, batch, labels)
    knowledge = know(normed, batch, labels=None)
    with pytest.raises(InputError, match="distinct labels only, and there are 5 images of 4 classes"):
        GradInversion(iterations=2)(release, knowledge, seed=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"restarts": 1}, "`restarts` 2 or more, or `terms` fidelity"),
        ({"preset": "mine"}, "`preset` must be one of tuned, paper"),
        ({"terms": "all"}, "gradient, fid"),
        ({"matching": "l1"}, "cosine"),
    ],
)
def test_unknown_words_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        GradInversion(**values)


def test_deepinversion_reads_no_gradient(normed, images):
    release = plain_release(normed, images, LABELS)
    other = Release(release.names, tuple(g * 0 + 7 for g in release.gradients), 2)
    attack = attacks.create("deepinversion", iterations=40)
    first, second = (attack(r, know(normed, images), seed=0) for r in (release, other))
    assert torch.equal(first.images, second.images)
    with pytest.raises(InputError, match="`labels` known"):
        attack(release, know(normed, images, labels=None), seed=0)


def test_deepinversion_makes_what_the_victim_calls_by_that_label(normed, images):
    knowledge = know(normed, images)
    found = attacks.create("deepinversion", iterations=150, label_weight=1.0)(
        plain_release(normed, images, LABELS), knowledge, seed=0
    )
    assert normed(found.images).argmax(1).tolist() == LABELS.tolist()
    error = BatchNormStatistics(1.0, knowledge.statistics, relative=True)
    with torch.no_grad():
        before, after = (
            float(error(images, [normed.conv((x - 0.5) / 0.25)])) for x in (found.start, found.images)
        )
    assert after < before / 3


def test_the_latent_search_recovers_a_generated_image(normed):
    painter, generator = Painter(), torch.Generator().manual_seed(4)
    images = painter(torch.randn(2, 6, generator=generator), F.one_hot(LABELS, 4).float())
    release = plain_release(normed, images, LABELS)
    attack = attacks.create("latent-projection", iterations=250, restarts=2)
    found = attack(release, know(normed, images, image_generator=painter), seed=0)
    assert psnr(found.images, images) > 25
    noisy = attack(noise_release(release), know(normed, images, image_generator=painter), seed=0)
    assert psnr(noisy.images, images) < 15


def test_generators_that_do_not_fit_are_refused(normed, images):
    release, attack = plain_release(normed, images, LABELS), attacks.create("latent-projection")
    with pytest.raises(InputError, match="`generator`"):
        attack(release, know(normed, images), seed=0)
    large, few = Painter(), Painter()
    large.image_shape, few.num_classes = (3, 32, 32), 2
    with pytest.raises(InputError, match=r"\(3, 32, 32\) and the victim takes \(3, 8, 8\)"):
        attack(release, know(normed, images, image_generator=large), seed=0)
    with pytest.raises(InputError, match="knows 2 classes, and label 2"):
        attack(release, know(normed, images, image_generator=few), seed=0)


def test_a_batch_norm_that_takes_no_part_is_refused(normed, images):
    """Its absence would shift every later layer's statistics by one."""
    normed.unused = FrozenBatchNorm2d(8)
    with pytest.raises(InputError, match="took no part"):
        statistics(normed, images, "exact")
