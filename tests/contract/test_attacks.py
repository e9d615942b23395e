"""What holds for every registered attack. A new one is tested by registering it.

An attack is told what its class flags ask for: `threat_models` decides the victim, `needs` the knowledge.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import attacks
from attacks.base import Attack
from dpbench.data.image_statistics import fit
from dpbench.protocol import Candidates, InputError, Knowledge, Parameter, PublicImages, Release, parameters
from dpbench.victim.batch_norm import statistics
from tests.helpers.attacks import Painter, know, noise_release, plain_release, psnr, smooth_images

SHAPE, CLASSES = (3, 8, 8), 4
LABELS = torch.tensor([2, 0, 3])


class Convolutional(nn.Module):
    """Smooth, with real batch norm: an attack that sets it to training mode changes its buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Linear(512, CLASSES),
        )

    def forward(self, images):
        return self.fc(torch.sigmoid(self.bn(self.conv((images - 0.5) / 0.25))).flatten(1))


@dataclass
class Scene:
    """One victim, its batch, the release and what the attacker is told."""

    model: nn.Module
    images: torch.Tensor
    release: Release
    knowledge: Knowledge


def candidates(model, images, labels):
    """The batch's first image and seven others; the attacker knows the rest of the batch."""
    others = torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(1))
    choice, classes = torch.cat([images[:1], others]), torch.cat([labels[:1], torch.arange(7) % CLASSES])
    single = [
        torch.cat([g.flatten() for g in plain_release(model, x[None], y[None]).gradients])
        for x, y in [*zip(choice, classes, strict=True), *zip(images[1:], labels[1:], strict=True)]
    ]
    return Candidates(choice, classes, torch.stack(single[:8]), sum(single[8:], torch.zeros_like(single[0])))


def scene(kind: type[Attack], batch: int, known: bool = True) -> Scene:
    torch.manual_seed(3)
    linear = kind.threat_models[0] == "malicious-linear"
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES)) if linear else Convolutional()
    model.eval()
    images, labels, more = smooth_images(batch), LABELS[:batch], {}
    if "image_generator" in kind.needs:
        latent = torch.randn(batch, Painter.latent_dim, generator=torch.Generator().manual_seed(4))
        more["image_generator"] = Painter()
        images = more["image_generator"](latent, F.one_hot(labels, CLASSES).float())
    if "public_images" in kind.needs:
        more["public_images"] = PublicImages(smooth_images(170)[10:], torch.arange(160) % CLASSES)
    if "image_statistics" in kind.needs:
        more["image_statistics"] = fit(
            (smooth_images(170)[10:] * 255).byte(), smooth_images(170)[10:].mean(0)
        )
    if "candidates" in kind.needs:
        more["candidates"] = candidates(model, images, labels)
    told = labels if known or "labels" in kind.needs else None
    more |= {"bn_stats": "exact", "statistics": statistics(model, images, "exact")}
    knowledge = know(model, told, SHAPE, CLASSES, **more)
    return Scene(model, images, plain_release(model, images, labels), knowledge)


def short(kind: type[Attack], iterations: int = 5) -> Attack:
    """The attack with its search cut short."""
    asked = {"iterations": iterations, "restarts": 2}
    return kind(**{name: value for name, value in asked.items() if name in parameters(kind)})


@pytest.fixture(params=attacks.names())
def kind(request) -> type[Attack]:
    return attacks.kind(request.param)


def only(holds: Callable[[type[Attack]], bool]) -> pytest.MarkDecorator:
    """Runs a test for the attacks whose class flags say so."""
    names = [name for name in attacks.names() if holds(attacks.kind(name))]
    return pytest.mark.parametrize("kind", names, indirect=True)


@pytest.mark.parametrize(("batch", "known"), [(1, True), (3, True), (3, False)])
def test_the_answer_is_well_formed(kind, batch, known):
    given, attack, calls = scene(kind, batch, known), short(kind), []
    found = attack(given.release, given.knowledge, seed=0, progress=lambda *call: calls.append(call))
    expected = 1 if "candidates" in kind.needs else batch  # it rebuilds the one sample it does not know
    for images in (found.images, found.start):
        assert images.shape == (expected, *SHAPE)
        assert images.dtype == torch.float32
        assert images.min() >= 0
        assert images.max() <= 1  # False for NaN
    assert found.labels.shape == (expected,)
    assert found.labels.dtype == torch.int64
    assert set(found.labels.tolist()) <= set(range(CLASSES))
    assert found.label_source in ("known", "inferred", "joint")
    assert (found.label_source == "known") <= (given.knowledge.labels is not None)
    assert 0 <= found.iterations <= attack.evaluations()
    assert found.seconds >= 0
    for done, total, _ in calls:
        assert 0 <= done <= total == attack.evaluations()


def test_the_seed_decides_everything(kind):
    given, attack, answers = scene(kind, 3, known=False), short(kind), []
    for state in (0, 1):
        torch.manual_seed(state)  # which must not matter
        answers.append(attack(given.release, given.knowledge, seed=7))
    first, second = answers
    for name in ("images", "start", "labels"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    distances = torch.tensor([first.gradient_distance, second.gradient_distance])
    assert torch.equal(*distances.nan_to_num(-1.0))


def test_the_victim_and_the_release_stay_as_they_are(kind):
    given = scene(kind, 3)
    for p in given.model.parameters():
        p.grad = torch.full_like(p, 0.5)
    before = {name: value.clone() for name, value in given.model.state_dict().items()}
    gradients = [g.clone() for g in given.release.gradients]
    short(kind)(given.release, given.knowledge, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in given.model.state_dict().items())
    assert all((p.grad == 0.5).all() and p.requires_grad for p in given.model.parameters())
    for module in given.model.modules():
        assert not module.training
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert all(torch.equal(a, b) for a, b in zip(gradients, given.release.gradients, strict=True))


@only(lambda kind: kind.rebuilds_images and "candidates" not in kind.needs)
@pytest.mark.filterwarnings("ignore:.* was given no statistics")
def test_noise_is_not_inverted_and_a_release_is(kind):
    """Floor: 1 dB above plain grey. Where a gradient is read, the release gives 3 dB more than noise does.

    Without batch-norm statistics, which would give something of the image away whatever the release.
    """
    given, attack = scene(kind, 1), short(kind, iterations=60)
    knowledge = replace(given.knowledge, bn_stats="none", statistics=())
    score = lambda r: psnr(attack(r, knowledge, seed=1).images, given.images)  # noqa: E731
    noise = score(noise_release(given.release))
    assert noise <= psnr(torch.full_like(given.images, 0.5), given.images) + 1
    if kind.noise_floor:
        assert score(given.release) > noise + 3


@only(lambda kind: "candidates" in kind.needs)
def test_candidates_are_told_apart_by_a_release_only(kind):
    """Floor: of 16 noise releases, right by chance in 2, at most 6 may be answered with the truth."""
    given, attack = scene(kind, 1), short(kind)
    right = lambda r: torch.equal(attack(r, given.knowledge, seed=1).images, given.images)  # noqa: E731
    assert right(given.release)
    assert sum(right(noise_release(given.release, seed)) for seed in range(16)) <= 6


def spoilt(release: Release, how: str) -> Release:
    first, *others = release.gradients
    if how == "shape":
        return replace(release, gradients=(first[..., None], *others))
    if how == "missing":
        return replace(release, names=release.names[1:], gradients=tuple(others))
    if how == "unnamed":
        return replace(release, names=release.names[1:])
    last = others[-1].clone()
    last.view(-1)[0] = float(how)
    return replace(release, gradients=(first, *others[:-1], last))


@pytest.mark.parametrize("how", ["nan", "inf", "shape", "missing", "unnamed"])
def test_a_release_that_cannot_be_is_refused(kind, how):
    given = scene(kind, 1)
    with pytest.raises(InputError, match=r"NaN or infinite" if how in ("nan", "inf") else r"do not fit"):
        short(kind)(spoilt(given.release, how), given.knowledge, seed=0)


@only(lambda kind: kind.needs)
def test_what_it_needs_is_asked_for(kind):
    given = scene(kind, 1)
    for name in kind.needs:
        with pytest.raises(InputError, match=rf"{kind.name}.* needs"):
            short(kind)(given.release, replace(given.knowledge, **{name: None}), seed=0)


def outside(declared: Parameter) -> list[object]:
    """Values that are no number of this kind, and the nearest ones beyond each end of the range."""
    step = (lambda x, to: x + (1 if to > 0 else -1)) if declared.kind is int else math.nextafter
    found = [math.nan, math.inf, "1", declared.above, declared.below]
    found += [None if declared.at_least is None else step(declared.at_least, -math.inf)]
    found += [None if declared.at_most is None else step(declared.at_most, math.inf)]
    return [value for value in found if value is not None]


def test_numbers_outside_their_range_are_refused_and_defaults_are_not(kind):
    assert kind().values() == {name: declared.default for name, declared in parameters(kind).items()}
    for name, declared in parameters(kind).items():
        for value in outside(declared) if declared.kind in (int, float) else []:
            with pytest.raises(InputError, match=f"`{name}`"):
                kind(**{name: value})


def other(declared: Parameter) -> object:
    """A value inside the range that is not the default."""
    if declared.choices:
        return next(word for word in declared.choices if word != declared.default)
    if declared.kind is bool:
        return not declared.default
    if declared.kind is int:
        return (declared.default or 1) + 1
    return declared.default / 2 if declared.default else 0.5


def test_attacks_are_values(kind):
    """Frozen, compared by what they hold, rebuilt from what differs from the defaults, picklable."""
    for changed in ({}, *({name: other(declared)} for name, declared in parameters(kind).items())):
        attack = kind(**changed)
        assert attack.changed() == changed
        for again in (attacks.create(kind.name, **attack.changed()), pickle.loads(pickle.dumps(attack))):
            assert again == attack
            assert hash(again) == hash(attack)
        assert (attack == kind()) is (not changed)
    with pytest.raises(AttributeError):
        attack.anything = 1


def test_nothing_stands_for_another_value_once_resolved(kind):
    resolved = kind().resolved()
    assert None not in resolved.values().values()
    assert resolved.resolved() == resolved
    assert type(resolved.evaluations()) is int
    assert resolved.evaluations() == kind().evaluations() >= 1


def test_messages_name_parameters_and_no_flags():
    files = Path(attacks.__file__).parent.rglob("*.py")
    assert [(f.name, flag) for f in files for flag in re.findall(r"--[a-z]\w+", f.read_text())] == []
