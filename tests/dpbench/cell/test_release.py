"""What leaves the client: the gradient, its noise, its guarantee, and nothing that shows an original."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import defenses
from attacks.prior_aware import flat
from dpbench.cell import release as releasing
from dpbench.cell.run import measure, run_cell
from dpbench.cell.scene import prepare
from dpbench.data import draw_disjoint, load_data
from tests.helpers.cells import cell, dp, part, small_scene

NOISY = dp(None, noise_multiplier=0.6)


def several(count: int, defence=NOISY, attack="dlg"):
    return cell(attack, defence, part("honest", releases=count))


def test_undefended_release_is_the_gradient_of_the_mean_loss(spy):
    run_cell(cell())
    scene = prepare(cell().batch)
    model = scene.victim.model
    expected = [torch.zeros_like(p) for p in model.parameters()]
    for image, label in zip(scene.images, scene.labels, strict=True):
        model.zero_grad()
        F.cross_entropy(model(image[None]), label[None]).backward()
        expected = [e + p.grad / 2 for e, p in zip(expected, model.parameters(), strict=True)]
    for found, wanted in zip(spy.release.gradients, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert spy.release.guarantee is None


def test_all_attacks_meet_the_same_noise():
    scene = small_scene(2)
    usual = releasing.released(cell("dlg", NOISY), scene)
    for paired in (cell("idlg", NOISY), cell("dlg", NOISY, labels="inferred", bn_stats="running")):
        found = releasing.released(paired, scene)
        assert all(torch.equal(a, b) for a, b in zip(usual.gradients, found.gradients, strict=True))


def noise(given, scene, trial=0):
    """The standardised noise of a release: less the gradient, whatever the defence's scale."""
    (made,) = releasing.each_release(given, scene, scene.images, scene.labels, count=1, trial=trial)
    clean = replace(given, defence=part("clip", max_grad_norm=given.defence.given.get("max_grad_norm", 1.0)))
    (plain,) = releasing.each_release(clean, scene, scene.images, scene.labels, count=1)
    found = (flat(made.gradients) - flat(plain.gradients)).double()
    return found / found.std()


@pytest.mark.parametrize(
    "other",
    [
        cell("dlg", dp(2.0)),
        cell("dlg", dp(1.0, max_grad_norm=0.5)),
        cell("dlg", part("clip+noise", noise_std=1.0)),
        cell("dlg", dp(1.0), batch_seed=1),
        cell("dlg", dp(1.0), attack_seed=1),
    ],
)
def test_noise_of_cells_that_are_not_paired_is_uncorrelated(other):
    scene, usual = small_scene(2), cell("dlg", dp(1.0))
    one, two = noise(usual, scene), noise(other, scene)
    assert float((one * noise(usual, scene)).mean()) > 0.99
    assert abs(float((one * two).mean())) < 5 / len(one) ** 0.5
    assert abs(float((one * noise(usual, scene, trial=1)).mean())) < 5 / len(one) ** 0.5


def test_releases_are_noised_anew_and_attacks_get_their_mean():
    scene = small_scene(2)
    found = releasing.released(several(4), scene)
    assert len(found.each) == 4
    each = torch.stack([flat(gradients) for gradients in found.each])
    torch.testing.assert_close(each.mean(0), flat(found.gradients))
    # sigma C / B each, and the noise of different releases is independent
    left = each - each.mean(0)
    assert float(left.std() * (4 / 3) ** 0.5) == pytest.approx(0.6 / 2, rel=0.04)
    assert found.guarantee.releases == 4
    single = releasing.released(cell("dlg", NOISY), scene).guarantee
    assert found.guarantee.eps_release > single.eps_release


def test_the_training_budget_does_not_count_the_attacked_releases():
    training = part("dp", noise_multiplier=0.6)
    one, four = (releasing.released(several(n, training), small_scene(2)).guarantee for n in (1, 4))
    assert one.eps == four.eps
    assert one.eps_release < four.eps_release


CHAINS = [
    "none",
    "clip",
    part("prune", prune_ratio=0.5),
    part("clip+prune", prune_ratio=0.5),
    part("clip+noise", noise_std=0.0),
    part("dp", eps_scope="release", noise_multiplier=1e-6),
    part("dp+prune", eps_scope="release", noise_multiplier=1e-6, prune_ratio=0.5),
]


@pytest.mark.parametrize("defence", CHAINS, ids=lambda d: getattr(d, "name", d))
@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_absent_sample_is_one_that_was_never_there(defence, batch_size):
    """The release without it is that of the others alone, divided by the batch that was expected."""
    scene, given = small_scene(batch_size), cell("dlg", defence, batch_size=batch_size)
    rest = scene.images[1:], scene.labels[1:]
    (made,) = releasing.each_release(given, scene, *rest, count=1)
    assert made.batch_size == batch_size
    if batch_size == 1:
        assert float(flat(made.gradients).abs().max()) < 1e-4
        return
    clean, shown = given.defence.name.split("+"), {"max_grad_norm": 1.0, "prune_ratio": 0.5}
    stages = "+".join(name for name in ("clip" if n == "dp" else n for n in clean) if name != "noise")
    taken = {n for stage in defenses.stages(stages) for n in stage.__dataclass_fields__}
    chain = defenses.create(stages, **{n: v for n, v in shown.items() if n in taken})
    alone = chain.release(scene.victim.model, F.cross_entropy, *rest, seed=0)
    expected = flat(alone.gradients) * (batch_size - 1) / batch_size
    torch.testing.assert_close(flat(made.gradients), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("present", [0, 1, 3, 4])
def test_noise_is_that_of_the_expected_batch_whoever_is_in_it(present):
    scene, given = small_scene(4), cell("dlg", dp(None, noise_multiplier=2.0), batch_size=4)
    made = releasing.each_release(given, scene, scene.images[:present], scene.labels[:present], count=20)
    each = torch.stack([flat(release.gradients) for release in made])
    assert float((each - each.mean(0)).std() * (20 / 19) ** 0.5) == pytest.approx(2.0 / 4, rel=0.03)
    clean = releasing.each_release(
        cell("dlg", "clip", batch_size=4), scene, scene.images[:present], scene.labels[:present], count=1
    )
    sum_of_norms = float(flat(clean[0].gradients).norm()) * 4
    assert sum_of_norms <= present + 1e-5
    # the mean over releases is the clean sum over the expected batch
    error = each.mean(0) - flat(clean[0].gradients)
    assert float(error.std()) == pytest.approx(2.0 / 4 / 20**0.5, rel=0.15)


def test_every_release_has_the_guarantee_of_all_of_them():
    scene = small_scene(2)
    made = releasing.each_release(several(3), scene, scene.images, scene.labels, count=3)
    assert {release.guarantee for release in made} == {releasing.released(several(3), scene).guarantee}


def tensors(value, seen=None):
    """Every tensor that can be reached from `value`."""
    if isinstance(value, torch.Tensor):
        yield value.detach()
    elif isinstance(value, nn.Module):
        yield from (tensor.detach() for tensor in value.state_dict().values())
        yield from (p.grad for p in value.parameters() if p.grad is not None)
        yield from (t for name, each in vars(value).items() if name[0] != "_" for t in tensors(each))
        yield from (t for child in value.children() for t in tensors(child))
    elif is_dataclass(value):
        yield from (t for each in fields(value) for t in tensors(getattr(value, each.name)))
    elif isinstance(value, dict):
        yield from (t for each in value.values() for t in tensors(each))
    elif isinstance(value, tuple | list):
        yield from (t for each in value for t in tensors(each))
        if value and all(isinstance(each, int | float) for each in value):
            yield torch.tensor(value)


def holds(tensor: torch.Tensor, secret: torch.Tensor) -> bool:
    """Whether `secret` is anywhere in `tensor`, in whatever shape and scale of storage."""
    flat_secret, found = secret.flatten().double(), tensor.flatten().double()
    if len(found) < len(flat_secret):
        return False
    starts = (found[: len(found) - len(flat_secret) + 1] == flat_secret[0]).nonzero().flatten().tolist()
    return any(torch.equal(found[i : i + len(flat_secret)], flat_secret) for i in starts)


KNOWLEDGE = [
    cell("dlg", labels="inferred", batch_size=4),
    cell("dlg", several(3).defence, part("honest", releases=3), labels="inferred", batch_size=4),
    cell("analytic", threat="malicious-linear", labels="inferred", batch_size=4),
    cell("dlg", labels="inferred", batch_size=4, victim="early", generator="cifar10"),
    cell(
        "dlg", labels="inferred", bn_stats="running", model="resnet20", norm="frozen-bn", victim="early",
        batch_size=4,
    ),
]  # fmt: skip


@pytest.mark.parametrize("given", KNOWLEDGE)
def test_the_attack_is_shown_no_original(spy, given):
    """Nothing that it is told equals or contains an attacked image, nor their labels."""
    assert run_cell(given).status == "ok"
    batch = draw_disjoint(load_data("samples"), 4, 0)
    shown = [*tensors(spy.knowledge), *tensors(spy.release)]
    assert len(shown) > 5
    for secret in (*batch.images, batch.labels):
        for scaled in (secret, secret * 255):
            assert not any(holds(tensor, scaled) for tensor in shown)


def test_what_shows_an_original_is_found():
    """The walk above sees images and labels wherever they may be."""
    batch = draw_disjoint(load_data("samples"), 2, 0)
    model = nn.Linear(2, 2)
    model.kept = {"images": batch.images}
    for place in (model, {"a": [batch.images]}, (batch.images.flatten(),)):
        assert any(holds(tensor, batch.images[1]) for tensor in tensors(place))
    assert any(holds(tensor, batch.labels) for tensor in tensors((tuple(batch.labels.tolist()),)))


def test_what_is_told_is_told(spy):
    run_cell(cell())
    batch = draw_disjoint(load_data("samples"), 2, 0)
    assert torch.equal(spy.knowledge.labels, batch.labels)
    assert spy.knowledge.bn_stats == "none"
    assert spy.knowledge.statistics == ()
    assert spy.knowledge.image_generator is None
    run_cell(cell(labels="inferred"))
    assert spy.knowledge.labels is None


def test_the_attack_sees_all_releases_and_no_candidates(spy):
    run_cell(several(3))
    assert len(spy.release.repeats) == 3
    assert spy.knowledge.candidates is None


def test_the_attack_gets_a_copy_of_the_model(spy):
    scene = small_scene(2)
    before = scene.victim.model[1].weight.clone()
    given = cell()
    measure(given, scene)
    with torch.no_grad():
        spy.knowledge.model[1].weight.add_(1)
        spy.knowledge.labels.add_(1)
    assert torch.equal(scene.victim.model[1].weight, before)
    assert torch.equal(scene.labels, small_scene(2).labels)
    assert spy.seed == given.search_seed()
