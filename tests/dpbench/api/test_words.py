"""Words and devices that Python callers may get wrong are refused before anything is computed."""

import pytest
import torch
from torch import nn

import dpbench
from dpbench.system import devices

MODEL = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
IMAGES, LABELS = torch.rand(2, 3, 4, 4), torch.tensor([0, 1])


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (devices.chosen(None), devices.chosen("cpu")) == ("cpu", "cpu")
    with pytest.raises(dpbench.InputError, match="`device` is cuda, and PyTorch finds no graphics card"):
        devices.chosen("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (devices.chosen(None), devices.chosen("cuda:1")) == ("cuda", "cuda:1")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"device": "tpu"}, "`device` must be cpu or cuda, not 'tpu'"),
        ({"labels_known": "no"}, "`labels_known` must be True or False, not 'no'"),
        ({"victim": 3}, "`victim` must be a word, not 3"),
        ({"labels": 3, "images": IMAGES[:1]}, "one for the image, not torch.int64"),
    ],
)
def test_one_sentence(given, said):
    with pytest.raises(dpbench.InputError, match=said):
        dpbench.benchmark(**{"model": MODEL, "images": IMAGES, "labels": LABELS, "progress": False} | given)
