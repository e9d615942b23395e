"""Doubts about a release name what it is that makes it another one."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import dpbench

torch.set_num_threads(1)
IMAGES, LABELS = torch.rand(3, 3, 4, 4), torch.arange(3)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_named_where_it_was_on(training):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.Dropout(0.5), nn.Linear(32, 3)).train(training)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with dpbench.capture(model, optimizer, batch_size=3) as captured:
        cross_entropy(model(IMAGES), LABELS).backward()
        optimizer.step()
    given = {"originals": (IMAGES, LABELS), "attacks": "label-restoration", "progress": False}
    if training:
        with pytest.warns(UserWarning, match=r"differs by .* Or it is 2 \(Dropout\), whose random mask"):
            dpbench.attack(captured.release, model=captured.model, **given)
    nn.init.normal_(captured.model[1].weight)
    with pytest.warns(UserWarning, match="images as it got them.$"):
        dpbench.attack(captured.release, model=captured.model.eval(), **given)
