"""How attacks answer defences that come from elsewhere."""

from __future__ import annotations

import pytest
import torch

import attacks
import dpbench
from attacks.adaptation import adapt, adapts, support
from attacks.objectives import Clipped, Cosine, LayerL2, Simulated, SquaredL2
from defenses import PostProcessor, create, defense
from dpbench.protocol import Release, Stage, combined, parameter
from tests.helpers.attacks import know, plain_release, psnr
from tests.helpers.registries import as_in_a_new_process

LABELS = torch.tensor([2, 0])
SHAPES = [(4, 3), (4,), (2, 3, 5)]


@pytest.fixture(autouse=True)
def registries():
    with as_in_a_new_process():
        yield


@pytest.fixture
def squash():
    """A smooth clamp, its own differentiable form; with it one that offers nothing, and one with `adapt`."""

    @defense("squash")
    class Squash(PostProcessor):
        squash: float = parameter(0.5, "size from which squash bends entries", above=0)

        def process(self, gradients, generator):
            return self.differentiable(gradients)

        def differentiable(self, gradients):
            return tuple(self.squash * torch.tanh(g / self.squash) for g in gradients)

    @defense("mute")
    class Mute(PostProcessor):
        def process(self, gradients, generator):
            return tuple(g / 2 for g in gradients)

    @defense("told")
    class Told(PostProcessor):
        def process(self, gradients, generator):
            return tuple(-g for g in gradients)

        def adapt(self, objective, release):
            assert release.defense[-1].name == "told"
            return Negated(objective)

    return Squash


class Negated(Cosine):
    def __init__(self, objective):
        super().__init__()
        self.objective = objective

    def forward(self, trial, target):
        value, cotangent = self.objective([-g for g in trial], target)
        return value, [-v for v in cotangent]


def draw(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]


def release(*stages):
    return Release(("a", "b", "c"), tuple(draw(2)), 1, tuple(stages))


@pytest.mark.parametrize("objective", [Cosine(), SquaredL2(), LayerL2()])
def test_the_cotangent_follows_the_defence(squash, objective):
    found = adapt(objective, release(Stage("squash", {"squash": 0.7})))
    assert isinstance(found, Simulated)
    trial, target = [g.requires_grad_() for g in draw(1)], draw(2)
    with torch.no_grad():
        value, cotangent = found([g.detach() for g in trial], target)
    bent = [0.7 * torch.tanh(g / 0.7) for g in trial]
    inner, outer = objective([g.detach() for g in bent], target)
    expected = torch.autograd.grad(bent, trial, outer)
    assert float(value) == pytest.approx(float(inner))
    torch.testing.assert_close(cotangent, list(expected))


def test_a_tensor_that_the_defence_does_not_send_says_nothing(squash):
    class Half:
        def differentiable(self, gradients):
            return (gradients[0], torch.zeros_like(gradients[1]), gradients[2])

    _, cotangent = Simulated(SquaredL2(), Half())(draw(1), draw(2))
    assert not cotangent[1].any()
    assert cotangent[0].any()


def test_what_is_offered_is_used_and_nothing_else_is(squash):
    objective = Cosine()
    assert adapt(objective, release(Stage("mute"))) is objective
    assert isinstance(adapt(objective, release(Stage("told"))), Negated)
    assert isinstance(adapt(objective, release(Stage("prune"), Stage("squash", {"squash": 1.0}))), Simulated)
    for kind in (Cosine, SquaredL2):
        assert adapts(["squash"], kind)
        assert adapts(["told"], kind)
        assert not adapts(["mute"], kind)
        assert not adapts(["squash", "mute"], kind)
        assert not adapts(["quantize"], kind)
    assert adapts(["clip", "mute"], SquaredL2)  # the scale


@pytest.mark.parametrize("bound", [0.5, 100.0])
@pytest.mark.parametrize("objective", [Cosine(), SquaredL2(), LayerL2()])
def test_the_cotangent_follows_a_clip(objective, bound):
    trial, target = [g.requires_grad_() for g in draw(1)], draw(2)
    with torch.no_grad():
        value, cotangent = Clipped(objective, bound)([g.detach() for g in trial], target)
    norm = torch.cat([g.flatten() for g in trial]).norm()
    clipped = [g * (bound / norm).clamp(max=1) for g in trial]
    inner, outer = objective([g.detach() for g in clipped], target)
    assert float(value) == pytest.approx(float(inner))
    torch.testing.assert_close(cotangent, list(torch.autograd.grad(clipped, trial, outer)))


def test_a_clamp_after_a_clip_sees_the_clipped_trial(tiny, images):
    """The true gradient, 20 times as long as the clip norm, is what the release is of; half of it is, too."""
    sent = create("clip+percentile", max_grad_norm=0.05, percentile_gamma=0.001).release(
        tiny, torch.nn.functional.cross_entropy, images[:1], LABELS[:1], seed=0
    )
    true = plain_release(tiny, images[:1], LABELS[:1]).gradients
    assert torch.cat([g.flatten() for g in true]).norm() > 1
    objective = adapt(Cosine(), sent)
    value = float(objective(true, sent.gradients)[0])
    assert value < 0.2 * float(objective.objective(true, sent.gradients)[0])
    assert float(objective([g / 2 for g in true], sent.gradients)[0]) == pytest.approx(value, abs=1e-5)


def test_the_support_of_several_releases_is_how_often_an_entry_was_sent(tiny, images):
    """Each of the noisy releases is pruned by itself, so that their mean holds a part of most entries."""
    chain = create("noise+prune", noise_std=0.05, prune_ratio=0.5)
    given = (tiny, torch.nn.functional.cross_entropy, images[:1], LABELS[:1])
    one = chain.releases(*given, seed=0, count=8)
    release = combined(one)
    for i, share in enumerate(support(release)):
        sent = torch.stack([each.gradients[i] for each in one]).ne(0).float().mean(0)
        torch.testing.assert_close(share, sent)
    assert any(((s > 0) & (s < 1)).any() for s in support(release))


@pytest.mark.parametrize("name", ["squash", "told"])
def test_an_attack_that_adapts_gets_more(squash, tiny, images, name):
    """Both hide the gradient's direction from an attack that does not know of them."""
    given = {"squash": 0.1} if name == "squash" else {}  # entries have a root mean square of 0.14
    (stage,) = create(name, **given).stages
    plain = plain_release(tiny, images, LABELS)
    sent = Release(
        plain.names, stage.process(plain.gradients, torch.Generator()), len(images), (stage.stage(),)
    )
    found = {
        adaptive: psnr(
            attacks.create(
                "inverting-gradients", adaptive=adaptive, iterations=200, tv=0.0, prior_weight=0.0
            )(sent, know(tiny, LABELS, (3, 8, 8), 4), seed=0).images,
            images,
        )
        for adaptive in (True, False)
    }
    assert found[True] > max(found[False], 20) + 10


def test_rows_are_doubled_only_where_something_adapts(squash, tiny, images):
    table = dpbench.benchmark(
        tiny,
        images,
        LABELS,
        attacks="dlg",
        defense=["squash", "mute"],
        adaptive=[True, False],
        iterations=1,
        device="cpu",
        progress=False,
    )
    rows = table[table["floor"].isna()]
    said = {name: set(map(str, each["adaptive"])) for name, each in rows.groupby("defense")}
    assert said == {"none": {"<NA>"}, "squash": {"True", "False"}, "mute": {"<NA>"}}


def test_a_program_is_not_shared_by_other_strengths(squash):
    """The defence's own code runs within the iteration, so that a compiled one holds its parameters."""
    from attacks.engine.programs import structure

    one, same, other = (Simulated(Cosine(), squash(squash=s)) for s in (1.0, 1.0, 2.0))
    assert structure(one) == structure(same) != structure(other)
