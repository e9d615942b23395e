"""A model is read as a chain by what it computes, not by its name."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attacks.exact.layers import Activation, Affine, read
from dpbench.victim.networks import FrozenBatchNorm2d, build

SHAPE = (3, 8, 8)
FUNCTIONS = {"relu": F.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}


def computed(chain, image):
    """What the chain makes of an image, flat."""
    values = after(chain.head, image.double().flatten())
    for block in chain.blocks:
        values = after(block.pointwise, block.layer(values.view(1, *block.layer.input_shape)).flatten())
    return values


def after(steps, values):
    for step in steps:
        values = step_of(step, values)
    return values


def step_of(step, values):
    if isinstance(step, Affine):
        return step.gain * values + step.offset
    if step.kind == "leaky_relu":
        return F.leaky_relu(values, step.slope)
    return FUNCTIONS[step.kind](values)


class Functional(nn.Module):
    """Written as people write models."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3, 2, 1), FrozenBatchNorm2d(4), nn.Linear(64, 5)
        self.norm.running_mean.uniform_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, images):
        h = F.leaky_relu(self.norm(self.conv((images - 0.5) / 0.25)), 0.2)
        return self.fc(torch.tanh(h).view(h.size(0), -1))


def sequential(*middle, features=64):
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), *middle, nn.Flatten(), nn.Linear(features, 5))


WHOLE = {
    "functional": Functional(),
    "convnet": build("convnet", size=8),
    "frozen": build("convnet", norm="frozen-bn", size=8),
    "lenet": build("lenet", size=8),
    "in place": sequential(nn.ReLU(inplace=True), nn.Dropout(0.5)),
    "slanted": nn.Sequential(
        nn.Conv2d(3, 6, (3, 5), padding="same", dilation=(2, 1), groups=3), nn.Tanh(), nn.Flatten()
    ),
    "batch norm": sequential(nn.BatchNorm2d(4), nn.Sigmoid()),
    "perceptron": nn.Sequential(nn.Flatten(), nn.Linear(192, 7), nn.ReLU(), nn.Linear(7, 5)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_chain_computes_what_its_model_does(name):
    model, image = WHOLE[name].eval(), torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(1))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    chain = read(model, SHAPE)
    assert chain.end == ""
    assert chain.blocks
    with torch.no_grad():
        expected = model(image).flatten().double()
    assert torch.allclose(computed(chain, image), expected, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["functional", "slanted", "lenet"])
def test_a_layer_knows_its_transpose_and_its_taps(name):
    (layer, *_) = [block.layer for block in read(WHOLE[name].eval(), SHAPE).blocks]
    x = torch.rand(1, *layer.input_shape, dtype=torch.float64, requires_grad=True)
    outputs = layer(x)
    delta = torch.randn_like(outputs)
    (expected,) = torch.autograd.grad(outputs, x, delta)
    assert torch.allclose(layer.transposed(delta), expected)
    size = layer.weight.shape[1]
    padded = torch.cat([x.detach()[0].flatten(1), x.new_zeros(len(x[0]), 1)], 1)[:size, layer.taps()]
    first = torch.einsum("ck,ckp->p", layer.weight[0].flatten(1), padded)
    assert torch.allclose(first + layer.bias[0], outputs.detach()[0, 0].flatten())


class Skip(Functional):
    def forward(self, images):
        h = self.conv(images)
        return self.fc((h + torch.relu(h)).flatten(1))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images):
        return self.conv(torch.relu(self.conv(images))).flatten(1)


class Halved(Functional):
    def forward(self, images):
        left, right = self.conv(images).chunk(2, 1)
        return self.fc(torch.cat([left, right], 1).flatten(1))


class Branching(Functional):
    def forward(self, images):
        return super().forward(images if images.sum() > 0 else -images)


ENDS = {
    "pooling": (sequential(nn.MaxPool2d(2), features=16), 1, "the layer `1` (MaxPool2d)"),
    "averages": (sequential(nn.ReLU(), nn.AvgPool2d(2), features=16), 1, "the layer `2` (AvgPool2d)"),
    "a skip": (Skip(), 1, "the layer `conv` (Conv2d), which goes to more than one place"),
    "shared weights": (Twice(), 0, "the layer `conv` (Conv2d), whose weights serve more than once"),
    "group norm": (sequential(nn.GroupNorm(2, 4)), 1, "the layer `1` (GroupNorm)"),
    "batch statistics": (sequential(nn.BatchNorm2d(4).train()), 1, "the layer `1` (BatchNorm2d)"),
    "GELU": (sequential(nn.GELU()), 1, "the layer `1` (GELU)"),
    "reflection": (
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")),
        0,
        "the layer `0` (Conv2d) with `padding_mode` reflect",
    ),
    "parts": (Halved(), 1, "the operation `chunk`"),
    "control flow": (Branching(), 0, "Branching, which `torch.fx` cannot trace"),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_chain_says_where_it_ends(name):
    model, blocks, end = ENDS[name]
    chain = read(model, SHAPE)
    assert (len(chain.blocks), chain.end) == (blocks, end)


def test_weights_that_are_not_trained_are_told_apart():
    model = sequential(nn.LeakyReLU(0.3))
    model[0].requires_grad_(False)
    conv, fc = read(model, SHAPE).blocks
    assert (conv.layer.trained, fc.layer.trained) == (False, True)
    assert (conv.layer.dense, fc.layer.dense) == (False, True)
    assert conv.pointwise == (Activation("leaky_relu", 0.3),)
