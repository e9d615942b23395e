"""What a notebook shows of a release and of an answer: a few lines, whatever the size of the model."""

import torch
from torch import nn

from dpbench.protocol import Reconstruction, Release


def test_tensors_are_not_printed():
    model = nn.Linear(4000, 10)
    model(torch.ones(1, 4000)).sum().backward()
    release = Release.from_gradients(model, batch_size=1)
    images = torch.zeros(1, 3, 64, 64)
    answer = Reconstruction(images, torch.tensor([3]), "known", 0.0, images, 1, 0.5)
    assert "names=('weight', 'bias'), batch_size=1" in repr(release)
    assert "labels=tensor([3]), label_source='known'" in repr(answer)
    assert max(len(repr(release)), len(repr(answer))) < 500
