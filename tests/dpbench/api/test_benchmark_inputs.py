"""What `benchmark()` takes for images: a batch, several batches, data sets; and a folder that it resumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import dpbench
from dpbench.data import draw_disjoint, load_data
from dpbench.protocol import InputError
from dpbench.victim.networks import build

SIZE, CLASSES = 16, 4


def attack(images, labels=None, **more):
    model = build("lenet", num_classes=more.pop("classes", CLASSES), size=images_size(images))
    usual = {"attacks": "inverting-gradients", "iterations": 1, "engine": "eager", "device": "cpu"}
    return dpbench.benchmark(model, images, labels, progress=False, **(usual | more))


def images_size(images):
    if isinstance(images, dpbench.data.Dataset):
        return images.images.shape[-1]
    return SIZE


def pictures(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, SIZE, SIZE, generator=generator), torch.arange(count) % CLASSES


def test_several_batches_are_told_apart():
    batches = [pictures(2, seed) for seed in (0, 1)]
    table = attack([x for x, _ in batches], [y for _, y in batches])
    rows = table[table["attack"] == "inverting-gradients"]
    assert list(zip(rows["batch_seed"], rows["original_index"], strict=True)) == [
        (0, 0),
        (0, 1),
        (1, 2),
        (1, 3),
    ]
    alone = attack(*batches[1])
    mine = rows[rows["batch_seed"] == 1]["image_loss"].tolist()
    assert mine == alone[alone["attack"] == "inverting-gradients"]["image_loss"].tolist()


def test_a_pytorch_data_set_is_drawn_from_without_replacement():
    images, labels = pictures(6)
    table = attack(TensorDataset(images, labels), batch_size=2, batch_seed=[0, 1, 2])
    rows = table[table["attack"] == "inverting-gradients"]
    assert sorted(rows["original_index"]) == list(range(6))
    assert (rows["label"].to_numpy() == labels[rows["original_index"].to_numpy(dtype=int)].numpy()).all()
    again = attack(TensorDataset(images, labels), batch_size=2, batch_seed=1)
    chosen = again[again["attack"] == "inverting-gradients"]["original_index"].tolist()
    assert chosen == rows[rows["batch_seed"] == 1]["original_index"].tolist()


def test_a_data_set_of_dpbench():
    data = load_data("samples")
    table = attack(data, batch_size=2, batch_seed=3, classes=10)
    rows = table[table["attack"] == "inverting-gradients"]
    assert tuple(rows["original_index"]) == draw_disjoint(data, 2, 3, "random").indices


@pytest.mark.parametrize(
    ("images", "labels", "more", "match"),
    [
        (TensorDataset(*pictures(3)), None, {}, "`batch_size` with a data set"),
        (TensorDataset(*pictures(3)), None, {"batch_size": 4}, "has 3 images"),
        (pictures(2)[0], None, {}, "`labels` are missing"),
        (*pictures(2), {"batch_size": 2}, "is for a data set"),
        ([pictures(2)[0]], [], {}, "as many batches"),
        (np.zeros((2, 3, SIZE, SIZE), dtype=np.uint8), np.zeros(2, dtype=int), {}, "which one is white"),
    ],
)
def test_what_is_no_batch_is_one_sentence(images, labels, more, match):
    with pytest.raises(InputError, match=match) as caught:
        attack(images, labels, **more)
    assert "\n" not in str(caught.value)


def test_the_code_of_a_layer_within_a_model_of_pytorchs_counts():
    """Its class has no file, so what it is made of is hashed: edited, it is another cell."""
    keys = []
    for factor in (1, 1, 2):
        names = {"nn": nn, "__name__": "console without a file"}
        exec(f"class Mine(nn.Module):\n    def forward(self, x): return {factor} * x", names)
        torch.manual_seed(0)
        model = nn.Sequential(names["Mine"](), nn.Flatten(), nn.Linear(192, 3)).eval()
        table = dpbench.benchmark(
            model,
            torch.full((1, 3, 8, 8), 0.5),
            torch.tensor([1]),
            attacks="dlg",
            iterations=1,
            device="cpu",
            progress=False,
        )
        keys.append(set(table["key"]))
    assert keys[0] == keys[1]
    assert not keys[0] & keys[2]


@pytest.mark.usefixtures("bare_exports")
def test_a_folder_is_taken_up_again(tmp_path, monkeypatch):
    batch = pictures(1)
    first = attack(*batch, out=tmp_path / "run")
    assert {"results.csv", "table.md", "config.toml"} <= {path.name for path in (tmp_path / "run").iterdir()}
    monkeypatch.setattr("dpbench.cell.run.measure", None)  # whatever is run once more breaks
    second = attack(*batch, out=tmp_path / "run")
    assert second.equals(first)
    with pytest.raises(InputError, match=r"another configuration .*another folder with `out`, or"):
        attack(*batch, out=tmp_path / "run", tv=0.5)
