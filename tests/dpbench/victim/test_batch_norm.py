"""What is told of batch-norm layers: of our own networks and of anybody's."""

import pytest
import torch
import torchvision
from torch import nn

from attacks.engine.watch import batch_norms, watching
from dpbench.protocol import InputError
from dpbench.victim.batch_norm import batch_norm_layers, statistics
from dpbench.victim.networks import build

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def resnet():
    return torchvision.models.resnet18(weights=None, num_classes=5)


def flat():
    """BatchNorm1d on vectors and on sequences, BatchNorm3d."""
    return nn.Sequential(
        nn.Flatten(2),
        nn.BatchNorm1d(3),
        nn.Unflatten(2, (4, 16, 16)),
        nn.BatchNorm3d(3),
        nn.Flatten(),
        nn.Linear(3072, 7),
        nn.BatchNorm1d(7),
    )


def nested():
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4))), nn.BatchNorm2d(4)
    )


def frozen():
    return build("resnet20")


MODELS = {make.__name__: make for make in (resnet, flat, nested, frozen)}


@pytest.fixture(params=MODELS)
def model(request):
    """In evaluation mode, with running statistics as after a little training."""
    torch.manual_seed(0)
    model = MODELS[request.param]().train()
    for _ in range(2):
        model(torch.rand(4, 3, 32, 32))
    return model.eval()


def expected(model, images):
    """The layers' inputs by hand: one hook each, no helper of the program."""
    seen = []
    for layer in model.modules():
        if hasattr(layer, "running_mean"):
            layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(images)
    return [x.transpose(0, 1).flatten(1) for x in seen]


def test_running_statistics_are_the_buffers(model):
    told = statistics(model, IMAGES, "running")
    layers = [layer for layer in model.modules() if hasattr(layer, "running_mean")]
    assert len(told) == len(layers) == len(batch_norms(model)) > 1
    for (mean, variance), layer in zip(told, layers, strict=True):
        assert torch.equal(mean, layer.running_mean)
        assert torch.equal(variance, layer.running_var)


def test_exact_statistics_are_those_of_the_batch(model):
    told = statistics(model, IMAGES, "exact")
    for (mean, variance), x in zip(told, expected(model, IMAGES), strict=True):
        assert torch.allclose(mean, x.mean(1), atol=1e-5)
        assert torch.allclose(variance, x.var(1, correction=0), rtol=1e-4, atol=1e-6)


def test_recovered_statistics_are_the_exact_ones(model):
    pairs = zip(statistics(model, IMAGES, "exact"), statistics(model, IMAGES, "recovered"), strict=True)
    for exact, recovered in pairs:
        for one, other in zip(exact, recovered, strict=True):
            assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def test_the_model_is_left_as_it_was(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for source in ("running", "exact", "recovered"):
        statistics(model, IMAGES, source)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(layer._forward_pre_hooks for layer in model.modules())


@pytest.mark.parametrize("source", ["running", "exact", "recovered"])
def test_layers_that_cannot_be_used_are_named(source):
    model = resnet().eval()
    model.layer2[0].bn1 = nn.BatchNorm2d(128, track_running_stats=False).eval()
    with pytest.raises(
        InputError, match=r"layer layer2\.0\.bn1 keeps no running statistics.*`bn_stats` to none"
    ):
        statistics(model, IMAGES, source)
    model = resnet().eval()
    model.layer3[1].bn2.train()
    with pytest.raises(InputError, match=r"layer layer3\.1\.bn2 is in training mode.*model\.eval\(\)"):
        statistics(model, IMAGES, source)
    assert statistics(model, IMAGES, "none") == ()


def test_a_frozen_layer_does_not_mind_its_mode():
    assert len(batch_norm_layers(build("resnet20").train())) == 21


def test_a_model_without_batch_norm_tells_nothing():
    for source in ("running", "exact", "recovered"):
        assert statistics(build("convnet"), IMAGES, source) == ()


class Twice(nn.Module):
    """One layer, used at two sizes."""

    def __init__(self):
        super().__init__()
        self.bn, self.fc = nn.BatchNorm2d(3), nn.Linear(3, 2)

    def forward(self, images):
        return self.fc(self.bn(nn.functional.avg_pool2d(self.bn(images), 2) ** 2).mean((2, 3)))


def test_a_layer_that_runs_twice_is_told_of_both_inputs():
    model = Twice().eval()
    ((mean, variance),) = statistics(model, IMAGES, "exact")
    both = torch.cat(expected(model, IMAGES), 1)
    assert torch.allclose(mean, both.mean(1), atol=1e-5)
    assert torch.allclose(variance, both.var(1, correction=0), rtol=1e-4)


def test_an_update_of_a_layer_that_runs_twice_tells_nothing_exact():
    with pytest.raises(InputError, match=r"layer bn runs 2 times.*`bn_stats` to exact"):
        statistics(Twice().eval(), IMAGES, "recovered")


def test_a_single_value_has_no_unbiased_variance():
    model = resnet().eval()
    with pytest.raises(InputError, match=r"layer layer4\.0\.bn1 sees one value per channel"):
        statistics(model, IMAGES[:1], "recovered")
    assert len(statistics(model, IMAGES[:1], "exact")) == 20


def test_inputs_are_seen_in_four_dimensions_and_gradients_flow_through_them():
    model, images = flat().eval(), IMAGES.clone().requires_grad_()
    with watching(model) as seen:
        model(images)
    assert [x.shape for x in seen] == [(4, 3, 1024, 1), (4, 3, 1024, 1), (4, 7, 1, 1)]
    (gradient,) = torch.autograd.grad(sum(x.square().sum() for x in seen), images)
    assert gradient.abs().min() > 0


class Overwrites(nn.Module):
    """Adds in place to what its batch norm has read."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, images):
        h = self.conv(images)
        normed = self.bn(h)
        h += 5 * normed
        return h.mean((2, 3))


def test_statistics_are_of_what_the_layer_read_and_not_of_what_came_after():
    model = Overwrites().eval()
    expected = model.conv(IMAGES).transpose(0, 1).flatten(1)
    for source in ("exact", "recovered"):
        ((mean, variance),) = statistics(model, IMAGES, source)
        assert torch.allclose(mean, expected.mean(1), atol=1e-4)
        assert torch.allclose(variance, expected.var(1, correction=0), rtol=1e-3, atol=1e-4)


def test_a_layer_that_takes_no_part_is_named():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)).eval()
    model[1].unused = nn.BatchNorm1d(3).eval()
    with pytest.raises(InputError, match=r"layer 1\.unused took no part"):
        statistics(model, IMAGES, "exact")
