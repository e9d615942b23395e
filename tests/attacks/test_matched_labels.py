"""The matched rule on a head that takes images as its features."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import attacks
from attacks import labels, matched_labels
from dpbench.data.image_statistics import fit
from dpbench.protocol import InputError, PublicImages, Release, Stage
from tests.helpers.attacks import know, smooth_images

SHAPE, CLASSES = (3, 8, 8), 5


class Sparse(nn.Module):
    """One pixel in eight is a feature; the others are dead, as after ReLU, and their gradient is noise."""

    def forward(self, images):
        flat = images.flatten(1)
        return flat * (torch.arange(flat.shape[1]) % 8 == 0)


def head(bias=True):
    torch.manual_seed(0)
    return nn.Sequential(Sparse(), nn.Linear(192, CLASSES, bias=bias))


def public(each=20):
    count = each * CLASSES
    return PublicImages(smooth_images(count + 99)[99:], torch.arange(count) % CLASSES)


def released(model, truth, noise, seed=0, clip=1.0):
    """`dp` of as many images as there are labels, none of them public."""
    images = smooth_images(1000)[900:][torch.randperm(99, generator=torch.Generator().manual_seed(seed))]
    total, parameters = None, list(model.parameters())
    for x, y in zip(images, truth, strict=False):
        rows = torch.autograd.grad(F.cross_entropy(model(x[None]), y[None]), parameters)
        norm = torch.cat([g.flatten() for g in rows]).norm()
        rows = [g * (clip / norm).clamp(max=1) for g in rows]
        total = rows if total is None else [a + b for a, b in zip(total, rows, strict=True)]
    generator, batch = torch.Generator().manual_seed(seed), len(truth)
    noisy = tuple((g + noise * torch.randn(g.shape, generator=generator)) / batch for g in total)
    stage = Stage("dp", {"noise_multiplier": noise / clip, "max_grad_norm": clip})
    return Release(tuple(name for name, _ in model.named_parameters()), noisy, batch, (stage,))


def right(model, knowledge, noise, rule, batch=1, trials=60):
    """Share of labels restored, over random batches."""
    found = 0
    for seed in range(trials):
        truth = torch.randint(CLASSES, (batch,), generator=torch.Generator().manual_seed(seed))
        release = released(model, truth, noise, seed)
        given = labels.infer(release, knowledge, rule).bincount(minlength=CLASSES)
        found += int(torch.minimum(given, truth.bincount(minlength=CLASSES)).sum())
    return found / (trials * batch)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [1, 4])
def test_it_finds_more_labels_under_noise_than_rules_that_expect_none(bias, batch):
    model = head(bias)
    knowledge = know(model, None, SHAPE, CLASSES, public_images=public())
    scores = {rule: right(model, knowledge, 0.3, rule, batch) for rule in ("matched", "sum", "counts")}
    assert scores["matched"] > scores["sum"] + 0.02
    assert scores["matched"] > scores["counts"] + 0.2


def test_it_is_right_under_little_noise_and_no_better_than_chance_under_much():
    model = head()
    knowledge = know(model, None, SHAPE, CLASSES, public_images=public())
    assert right(model, knowledge, 0.01, "matched") == 1
    assert right(model, knowledge, 0.01, "matched", batch=4) > 0.9
    assert abs(right(model, knowledge, 1000.0, "matched") - 1 / CLASSES) < 0.15


def test_statistics_will_do_where_there_are_no_images():
    """Draws of a Gaussian field, the same each time."""
    model, images = head(), public().images
    statistics = fit((images * 255).round().byte(), images.mean(0))
    knowledge = know(model, None, SHAPE, CLASSES, image_statistics=statistics)
    assert right(model, knowledge, 0.05, "matched") > 0.95
    first, second = (matched_labels.references(knowledge) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert first[1].bincount(minlength=CLASSES).unique().tolist() == [80]


def test_images_of_other_labels_stand_for_a_label_without_any():
    model, known = head(), public()
    kept = known.labels != 3
    partial = PublicImages(known.images[kept], known.labels[kept])
    knowledge = know(model, None, SHAPE, CLASSES, public_images=partial)
    release = released(model, torch.tensor([3]), 0.05)
    assert labels.infer(release, knowledge, "matched").tolist() == [3]


def test_several_releases_count_as_one_with_less_noise():
    """A label is repeated where the noise leaves no doubt; where it may be noise, another is likelier."""
    model = head()
    knowledge = know(model, None, SHAPE, CLASSES, public_images=public())
    one = released(model, torch.tensor([2, 2, 2, 2]), 0.3)
    stage = one.defense[0]
    loud = Stage("dp", {**stage.parameters, "noise_multiplier": 30.0})
    quiet = Release(one.names, one.gradients, 4, (loud,), repeats=(one.gradients,) * 10_000)
    noisy = Release(one.names, one.gradients, 4, (loud,))
    assert labels.infer(quiet, knowledge).tolist() == labels.infer(one, knowledge).tolist() == [2, 2, 2, 2]
    assert labels.infer(noisy, knowledge).unique().numel() > 1


def test_auto_asks_whether_there_is_noise(monkeypatch):
    model = head()
    knowledge = know(model, None, SHAPE, CLASSES)
    informed = know(model, None, SHAPE, CLASSES, public_images=public())
    asked = []
    for name in ("matched", "by_sum", "counts", "analytic"):
        monkeypatch.setattr(
            labels, name, lambda *_, name=name: (asked.append(name), torch.zeros(2).long())[1]
        )
    cases = [
        (informed, 1, 0.1, "matched"), (knowledge, 1, 0.1, "by_sum"), (knowledge, 5, 0.1, "by_sum"),
        (knowledge, 6, 0.1, "counts"), (informed, 1, 0.0, "analytic"), (informed, 2, 0.0, "counts"),
    ]  # fmt: skip
    for told, batch, noise, _ in cases:
        labels.infer(released(model, torch.zeros(batch).long(), noise), told)
    assert asked == [expected for *_, expected in cases]


def test_without_any_knowledge_of_images_it_is_refused():
    model = head()
    with pytest.raises(InputError, match="`label_rule` matched learns from public images"):
        labels.infer(released(model, torch.tensor([0]), 0.1), know(model, None, SHAPE, CLASSES), "matched")


def test_only_who_asks_for_the_rule_is_given_images():
    for name in ("label-restoration", "gradinversion"):
        assert "public_images" not in attacks.create(name).wants()
        assert "public_images" in attacks.create(name, label_rule="matched").wants()
