import pytest
import torch
from torch import nn
from torch.nn import functional as F

import defenses
from attacks import labels
from dpbench.assets import AssetUnavailable
from dpbench.data import cifar10, draw_disjoint, load_data
from dpbench.protocol import InputError, PublicImages, Release, Stage
from dpbench.victim import loading as victims
from dpbench.victim.networks import build
from tests.helpers.attacks import know, photograph, plain_release


@pytest.mark.parametrize("arch", ["lenet", "convnet", "resnet20"])
def test_one_label_is_analytic(arch):
    model = build(arch)
    generator = torch.Generator().manual_seed(0)
    for label in range(10):
        release = plain_release(model, torch.rand(1, 3, 32, 32, generator=generator), torch.tensor([label]))
        assert labels.infer(release, know(model)).tolist() == [label]


def test_one_label_without_a_bias():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5, bias=False))
    release = plain_release(model, torch.rand(1, 3, 8, 8), torch.tensor([3]))
    assert labels.infer(release, know(model, shape=(3, 8, 8), classes=5)).tolist() == [3]


def test_minimum_and_sum_are_the_papers_formulas():
    weight = torch.tensor([[0.5, -0.1], [-3.0, 4.0], [-0.4, -0.4], [0.2, 0.3]])
    assert labels.minimum(weight, 2).tolist() == [1, 2]
    assert labels.by_sum(weight, 2).tolist() == [2, 0]


def test_counts_find_repeated_labels_and_distinct_rules_cannot():
    torch.manual_seed(0)
    model = build("convnet")  # untrained: softmax outputs are nearly constant, so the counts are nearly exact
    truth = torch.tensor([2, 2, 2, 5, 5, 7])
    release = plain_release(model, torch.rand(6, 3, 32, 32), truth)
    assert sorted(labels.infer(release, know(model), "counts").tolist()) == truth.tolist()
    assert sorted(labels.infer(release, know(model), "minimum").tolist()) != truth.tolist()


@pytest.mark.parametrize("rule", ["auto", "counts"])
def test_counts_do_not_take_a_clipped_gradient_for_a_sure_victims(rule):
    """Clipped to 0.1 it is about a tenth as long; read as it stands, it would give the labels evenly."""
    torch.manual_seed(0)
    model, truth = build("convnet"), torch.tensor([2, 2, 2, 2, 5, 7])
    images, clip = torch.rand(6, 3, 32, 32), defenses.create("clip", max_grad_norm=0.1)
    release = clip.release(model, F.cross_entropy, images, truth, seed=0)
    assert sorted(labels.infer(release, know(model), rule).tolist()) == truth.tolist()
    assert sorted(labels.counts(*labels.head(release, know(model)), 6).tolist()) != truth.tolist()
    plain = plain_release(model, images, truth)  # a clip that changes nothing is no harm
    assert sorted(labels.counts(*labels.head(plain, know(model)), 6, scaled=True).tolist()) == truth.tolist()


def test_counts_find_distinct_labels_as_the_minimum_rule_does():
    model = victims.load("convnet", "none", "early", None, load_data("samples"), 32).model
    for seed in range(8):
        images, truth = photograph(seed, batch=4)
        found = labels.infer(plain_release(model, images, truth), know(model))
        assert sorted(found.tolist()) == sorted(truth.tolist())


@pytest.mark.parametrize("defence", ["none", "clip"])
def test_labels_that_the_last_layer_tells_are_exact(defence):
    """Where `counts`, which has to guess the softmax outputs, is wrong for some of the batches."""
    data = load_data("samples")
    model = victims.load("convnet", "none", "early", None, data, 32).model
    found = {"auto": [], "counts": []}
    for seed in range(6):
        batch = draw_disjoint(data, 8, seed, "random")
        release = defenses.create(defence).release(model, F.cross_entropy, batch.images, batch.labels, seed=0)
        for rule, right in found.items():
            restored = labels.infer(release, know(model), rule)
            right.append(sorted(restored.tolist()) == sorted(batch.labels.tolist()))
    assert all(found["auto"])
    assert not all(found["counts"])


def test_labels_that_are_not_exact_are_counted():
    """Zeros that a defence put in, and more images than the last layer tells apart."""
    model = build("convnet")
    generator = torch.Generator().manual_seed(0)
    for batch, name in ((6, "prune"), (10, "none")):
        images = torch.rand(batch, 3, 32, 32, generator=generator)
        truth = torch.randint(10, (batch,), generator=generator)
        release = defenses.create(name).release(model, F.cross_entropy, images, truth, seed=0)
        rules = [labels.infer(release, know(model), rule).tolist() for rule in ("auto", "counts")]
        assert rules[0] == rules[1]


def test_counts_without_a_bias():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5, bias=False))
    truth = torch.tensor([1, 1, 1, 4])
    release = plain_release(model, torch.rand(4, 3, 8, 8), truth)
    assert sorted(labels.infer(release, know(model, shape=(3, 8, 8), classes=5)).tolist()) == truth.tolist()


def test_more_images_than_classes_and_unknown_rules_are_refused():
    model = build("convnet")
    release = plain_release(model, torch.rand(12, 3, 32, 32), torch.arange(12) % 10)
    assert len(labels.infer(release, know(model))) == 12
    with pytest.raises(InputError, match="distinct labels only, and there are 12 images of 10 classes"):
        labels.infer(release, know(model), "minimum")
    with pytest.raises(InputError, match="minimum, sum, counts, matched, auto"):
        labels.infer(release, know(model), "guess")
    with pytest.raises(InputError, match="No fully connected layer"):
        labels.infer(Release(("w",), (torch.zeros(3, 3),), 1), know(model))


def restored(victim, batches, rule="minimum"):
    """Share of labels the rule finds, and chance, over batches of 4 distinct labels in test order."""
    try:
        images, truth = cifar10("test")
    except AssetUnavailable as error:
        pytest.skip(str(error))
    model = victims.load("resnet20", "frozen-bn", victim, None, load_data("samples"), 32).model
    right = total = 0
    waiting = list(range(len(truth)))
    while batches and len(waiting) >= 4:
        picked, seen = [], set()
        for index in waiting:
            if int(truth[index]) not in seen:
                picked.append(index)
                seen.add(int(truth[index]))
            if len(picked) == 4:
                break
        if len(picked) < 4:
            break
        waiting = [i for i in waiting if i not in picked] if len(waiting) < 50 else drop(waiting, picked)
        x, y = images[picked].float() / 255, truth[picked]
        found = labels.infer(plain_release(model, x, y), know(model), rule)
        right += len(set(found.tolist()) & seen)
        total += 4
        batches -= 1
    return right / total, 4 / 10


def drop(waiting, picked):
    """`waiting` without `picked`, which all stand near its front."""
    front, rest = waiting[:50], waiting[50:]
    return [i for i in front if i not in picked] + rest


@pytest.mark.parametrize("batches", [60, pytest.param(2500, marks=pytest.mark.slow)])
def test_minimum_rule_on_an_early_victim(batches):
    early, chance = restored("early", batches)
    converged, _ = restored("trained", batches)
    print(f"minimum rule, B=4: early {early:.3f}, converged {converged:.3f}, chance {chance:.2f}")
    assert early >= 0.95


def test_cross_entropy_bias_gradient_is_what_the_rules_assume():
    model = build("convnet")
    images, truth = torch.rand(3, 3, 32, 32), torch.tensor([0, 4, 4])
    _, bias = labels.head(plain_release(model, images, truth), know(model))
    expected = (model(images).softmax(1) - F.one_hot(truth, 10)).mean(0)
    torch.testing.assert_close(bias, expected.detach(), rtol=1e-4, atol=1e-6)


def test_two_classes_that_share_a_logit_are_told_apart_under_noise():
    """One released row stands for both, so that no row is matched."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    images = torch.rand(40, 3, 2, 2)
    knowledge = know(
        model, shape=(3, 2, 2), classes=2, public_images=PublicImages(images, torch.arange(40) % 2)
    )
    for label in (0, 1):
        loss = F.binary_cross_entropy_with_logits(model(images[:1])[:, 0], torch.tensor([float(label)]))
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        noise = (Stage("noise", {"noise_std": 1e-4}),)
        release = Release(("1.weight", "1.bias"), gradients, 1, noise)
        assert labels.infer(release, knowledge).tolist() == [label]
        with pytest.raises(InputError, match="two classes share one: use sum"):
            labels.infer(release, knowledge, "matched")
