"""What tests of files of weights share."""

import pytest
import torch

from dpbench.protocol import InputError
from dpbench.victim.networks import build
from dpbench.victim.weights import load_weights

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def other(norm="frozen-bn"):
    """A network whose every weight and statistic differs from a fresh one's."""
    model = build("resnet20", norm=norm, seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, tensor in model.state_dict().items():
        if "running" in name:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model


def refused(file, match, model=None):
    model = model or build("resnet20", seed=9)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(InputError, match=match) as error:
        load_weights(model, file)
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
