"""A model that is trained in part: which gradients tell the labels, and what is said where none does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm

from attacks import labels
from attacks.exact.last_layer import last_layer
from attacks.output_layer import output_layer
from dpbench.protocol import InputError, PublicImages, Stage
from tests.helpers.attacks import know, plain_release

CLASSES, SHAPE = 5, (3, 4, 4)


class LoRA(nn.Module):
    """A frozen linear layer with a trained product of rank r beside it (Hu et al. 2022)."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class Adapter(LoRA):
    """Behind the frozen layer, with a bottleneck and biases (Houlsby et al. 2019)."""

    def __init__(self, base: nn.Linear, width: int) -> None:
        super().__init__(base, width)
        self.down = nn.Linear(base.out_features, width)

    def forward(self, x):
        h = self.base(x)
        return h + self.up(torch.tanh(self.down(h)))


def network(part=None, width=CLASSES, head=True, classes=CLASSES):
    """Two hidden layers and a head behind layer norm, so that features are of either sign."""
    torch.manual_seed(0)
    hidden = nn.Linear(48, 16)
    model = nn.Sequential(
        nn.Flatten(), hidden, nn.GELU(), nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, classes)
    )
    if part is not None:
        model.requires_grad_(False)
        model[1] = part(hidden, width)
        model[3] = part(model[3], width)
        model[5].requires_grad_(head)
    return model


def only(model, chosen):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(chosen(name))
    return model


def of(model, label, count=1):
    images = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))
    truth = torch.full((count,), label)
    return plain_release(model, images, truth), know(model, shape=SHAPE, classes=model[-1].out_features)


@pytest.mark.parametrize("part", [LoRA, Adapter])
def test_a_trained_head_beside_adapters_of_as_many_rows_tells_the_label(part):
    model = network(part)
    for label in range(CLASSES):
        release, told = of(model, label)
        assert labels.infer(release, told).tolist() == [label]
        assert last_layer(release, told) == ("5.weight", "5.bias")


@pytest.mark.parametrize("part", [LoRA, Adapter])
@pytest.mark.parametrize(("classes", "width"), [(5, 5), (2, 1), (2, 2)])
def test_an_adapter_is_not_taken_for_a_frozen_head(part, classes, width):
    release, told = of(network(part, width, head=False, classes=classes), 1)
    with pytest.raises(InputError, match=r"^No trained layer that adds to the logits with \d outputs"):
        labels.infer(release, told)
    with pytest.raises(InputError, match=r"^No gradients of a last, fully connected"):
        last_layer(release, told)


@pytest.mark.parametrize("noise", [(), (Stage("noise", {"noise_std": 1e-6}),)], ids=["exact", "noisy"])
def test_the_bias_of_the_last_layer_tells_the_label_alone(noise):
    """BitFit (Ben Zaken et al. 2022): biases are trained, and no weight."""
    model = only(network(), lambda name: name.endswith("bias"))
    public = PublicImages(torch.rand(50, *SHAPE), torch.arange(50) % CLASSES)
    for label in range(CLASSES):
        release, told = of(model, label)
        assert output_layer(release, told) == (None, "5.bias")
        for images in (None, public):
            knowledge = replace(told, public_images=images)
            assert labels.infer(replace(release, defense=noise), knowledge).tolist() == [label]


def test_counts_are_read_off_the_bias_alone():
    model = only(network(), lambda name: name.endswith("bias"))
    images, truth = torch.rand(4, *SHAPE), torch.tensor([1, 1, 1, 4])
    with torch.no_grad():
        model[-1].weight.mul_(0.01)  # nearly even outputs, as the rule assumes
        model[-1].bias.zero_()
    release = plain_release(model, images, truth)
    told = know(model, shape=SHAPE, classes=CLASSES)
    assert sorted(labels.infer(release, told).tolist()) == truth.tolist()


def test_of_a_head_that_has_lora_itself_the_trained_matrix_tells_the_label():
    model = network().requires_grad_(False)
    model[5] = LoRA(model[5], 3)
    model[5].out_features = CLASSES
    for label in range(CLASSES):
        release, told = of(model, label)
        assert output_layer(release, told) == ("5.up.weight", None)
        assert labels.infer(release, told).tolist() == [label]


def test_without_a_bias_features_of_either_sign_tell_the_label():
    """Behind layer norm a row of features sums to zero, and says nothing of its sign."""
    model = network()
    model[5] = nn.Linear(16, CLASSES, bias=False)
    assert [labels.infer(*of(model, label)).tolist() for label in range(CLASSES)] == [
        [label] for label in range(CLASSES)
    ]


class Gated(nn.Module):
    """A head that is listed before another layer of as many outputs, which scales features or is idle."""

    def __init__(self, used: bool, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.used = nn.Linear(16, classes), used
        self.hidden, self.gate = nn.Linear(48, 16), nn.Linear(16, classes)

    def forward(self, x):
        h = torch.relu(self.hidden(x.flatten(1)))
        scale = self.gate(h).sigmoid().mean(1, keepdim=True)
        return self.head(h * (scale if self.used else 1 + 0 * scale))


@pytest.mark.parametrize("classes", [5, 2])
@pytest.mark.parametrize("used", [True, False], ids=["gate", "idle"])
def test_a_later_layer_of_as_many_outputs_is_not_taken_for_the_head(used, classes):
    model = Gated(used, classes)
    told = know(model, shape=SHAPE, classes=classes)
    for label in range(classes):
        image = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(label))
        release = plain_release(model, image, torch.tensor([label]))
        assert labels.infer(release, told).tolist() == [label]
        assert last_layer(release, told) == ("head.weight", "head.bias")


def test_where_no_layer_adds_to_the_logits_the_last_one_of_as_many_rows_is_read():
    model = nn.Sequential(network(), nn.Linear(CLASSES, CLASSES), nn.Tanh())
    images = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(1))
    release = plain_release(model, images, torch.tensor([2]))
    assert output_layer(release, know(model, shape=SHAPE, classes=CLASSES)) == ("1.weight", "1.bias")


@pytest.mark.parametrize("normalised", [spectral_norm, parametrizations.spectral_norm])
def test_of_a_weight_that_is_computed_from_another_the_bias_tells_the_label(normalised):
    model = network()
    normalised(model[5])
    model.eval()
    for label in range(CLASSES):
        release, told = of(model, label)
        assert output_layer(release, told) == (None, "5.bias")
        assert labels.infer(release, told).tolist() == [label]
