"""Residual networks: patterns behind pooling, features block by block, and where they are not to be had."""

import pytest
import torch
from torch import nn

import attacks
from attacks.exact import pooled, residual
from attacks.exact.layers import Layer
from attacks.exact.places import arranged, pattern
from dpbench.victim.resnet import BasicBlock, ResNet
from tests.helpers.attacks import know, plain_release, psnr

CLASSES = 10


def layer(out, channels, size):
    weight = torch.randn(out, channels, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    shapes = (channels, size, size), (out, size, size)
    return Layer("last", weight, None, True, False, *shapes, padding=(1, 1, 1, 1))


def behind_pooling(active, features, conv):
    """The weight gradient, and what each channel's units get from pooling."""
    evenly = torch.randn(len(active), generator=torch.Generator().manual_seed(1)).double()
    patches = torch.nn.functional.unfold(features[None], 3, padding=1)[0]
    gradient = evenly[:, None] * (active.flatten(1).double() @ patches.T)
    return gradient.view(conv.weight.shape), evenly


@pytest.fixture
def scene():
    generator, conv = torch.Generator().manual_seed(2), layer(24, 12, 4)
    features = torch.randn(12, 4, 4, generator=generator).double().sub(0.8).relu()
    return conv, features, torch.rand(24, 4, 4, generator=generator) < 0.5


def test_the_pattern_behind_pooling_is_found(scene):
    conv, features, active = scene
    gradient, evenly = behind_pooling(active, features, conv)
    found = pattern(conv, gradient, evenly, torch.Generator().manual_seed(0), 1024)
    assert torch.equal(found, active)


def test_a_pattern_with_less_rank_than_places_is_not_made_up(scene):
    conv, features, active = scene
    active[:, 0, 0] = active[:, 0, 1]  # two places with the same units: only their sum is in the gradient
    gradient, evenly = behind_pooling(active, features, conv)
    assert pattern(conv, gradient, evenly, torch.Generator().manual_seed(0), 256) is None


def test_patches_find_their_places(scene):
    conv, features, _ = scene
    patches = torch.nn.functional.unfold(features[None], 3, padding=1)[0].T.unflatten(1, (12, 9))
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    found = arranged(patches[order], conv.taps(), centre=4)
    assert order[found].tolist() == list(range(16))


def network(norm="frozen-bn"):
    torch.manual_seed(0)
    model = ResNet(BasicBlock, (1, 1), 24, CLASSES, norm, 8, (0.5,) * 3, (0.25,) * 3)
    for name, parameter in model.named_parameters():
        if "bn" in name:
            nn.init.normal_(parameter, float(name.endswith("weight")), 0.2)
    return model.eval()


def passed(model, images):
    """The inputs of both ReLUs of each block, the outer ones from what leaves the block."""
    inner, outer = {}, {}
    for name, module in model.named_modules():
        if isinstance(module, BasicBlock):
            module.bn1.register_forward_hook(lambda m, given, out, n=name: inner.update({n: out.detach()[0]}))
            module.register_forward_hook(lambda m, given, out, n=name: outer.update({n: out.detach()[0]}))
    model(images)
    return inner, outer


def test_blocks_are_read_with_their_shortcuts():
    blocks = residual.read(network(), (3, 8, 8))
    assert [block.name for block in blocks] == ["layer1.0", "layer2.0"]
    assert [block.shortcut is None for block in blocks] == [True, False]


def test_a_network_of_other_parts_has_no_blocks():
    assert residual.read(network("gn"), (3, 8, 8)) == ()
    assert residual.read(nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES)), (3, 8, 8)) == ()


def test_a_network_that_computes_something_else_has_no_blocks():
    model = network()
    model.layer2[0].register_forward_hook(lambda module, given, output: 2 * output)
    assert residual.read(model, (3, 8, 8)) == ()


class Faulty(nn.Module):
    """Raises on what is not float32."""

    def __init__(self, error):
        super().__init__()
        self.fc, self.error = nn.Linear(192, CLASSES), error

    def forward(self, x):
        if x.dtype != torch.float32:
            raise self.error
        return self.fc(x.flatten(1))


@pytest.mark.parametrize("error", [RuntimeError(), TypeError(), ValueError(), AssertionError()])
def test_a_network_that_takes_no_float64_has_no_blocks(error):
    assert residual.read(Faulty(error), (3, 8, 8)) == ()


@pytest.mark.parametrize("error", [KeyError("features"), AttributeError("feature"), ZeroDivisionError()])
def test_a_fault_is_not_taken_for_another_network(error):
    with pytest.raises(type(error)):
        residual.read(Faulty(error), (3, 8, 8))


def solvable():
    """A network, an image, its release, and the pattern behind pooling."""
    model = network()
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    release = plain_release(model, image, torch.tensor([3]))
    _, outer = passed(model, image)
    return model, image, release, outer["layer2.0"] > 0


def test_features_follow_block_by_block_from_the_pattern():
    model, image, release, active = solvable()
    gradients = {n: g.double() for n, g in zip(release.names, release.gradients, strict=True)}
    evenly = model.fc.weight.detach().double().T @ gradients["fc.bias"] / active[0].numel()
    level = residual.descend(residual.read(model, (3, 8, 8)), evenly[:, None, None] * active, gradients)
    inner, outer = passed(model, image)
    assert level.block.name == "layer1.0"
    assert torch.allclose(level.inner.clamp_min(0).float(), inner["layer1.0"].relu(), atol=1e-3)
    assert torch.allclose(level.outer.clamp_min(0).float(), outer["layer1.0"], atol=1e-3)


def test_peel_searches_for_the_image_from_its_features(monkeypatch):
    model, image, release, active = solvable()
    monkeypatch.setattr("attacks.exact.pooled.pattern", lambda *given: active)
    found = attacks.create("peel", iterations=600)(release, know(model, None, (3, 8, 8), CLASSES), seed=0)
    assert "features of `layer1.0` follow" in found.note
    assert psnr(found.images, image) > 60


def test_without_the_pattern_there_is_no_image(monkeypatch):
    model, image, release, _ = solvable()
    monkeypatch.setattr("attacks.exact.pooled.pattern", lambda *given: None)
    gradients = {n: g.double() for n, g in zip(release.names, release.gradients, strict=True)}
    blocks, generator = residual.read(model, (3, 8, 8)), torch.Generator().manual_seed(0)
    knowledge = know(model, None, (3, 8, 8), CLASSES)
    found, why = pooled.image(knowledge, blocks, gradients, generator, image.double(), 1, lambda *_: None)
    assert found is None
    assert "told apart" in why
