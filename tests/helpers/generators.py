"""What tests of generators share."""

import pytest
import torch

from dpbench.generators import load_generator
from dpbench.protocol import InputError


def latents(b=2, n=128, seed=0):
    return torch.randn(b, n, generator=torch.Generator().manual_seed(seed))


def refused(match, spec, num_classes=10, size=32):
    with pytest.raises(InputError, match=match) as error:
        load_generator(spec, num_classes=num_classes, size=size)
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
