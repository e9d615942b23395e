"""Images of your own, grey like many medical ones, in three forms: `python examples/own_data.py`."""

import tempfile
from pathlib import Path

from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.functional import rgb_to_grayscale

import dpbench

samples = dpbench.data.load_data("samples")  # 20 photographs, made grey as MedMNIST's images are:
pixels = rgb_to_grayscale(samples.images)[:, 0, 2:30, 2:30].numpy()  # uint8 [20, 28, 28], 0 ... 255
labels = samples.labels.numpy()[:, None]  # [20, 1]


def network(num_classes, size):
    """Takes one channel; a network of three channels would get the grey one three times."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.Tanh(), nn.Flatten(), nn.Linear(4 * size**2, num_classes)
    )


if __name__ == "__main__":
    settings = {"iterations": 50, "defense": "clip"}
    model = dpbench.victim.networks.build(f"{__file__}:network", num_classes=10, size=28)
    arrays = dpbench.benchmark(model, pixels[:1], labels[:1], **settings)
    loader = DataLoader(TensorDataset(samples.images / 255, samples.labels), batch_size=1, shuffle=True)
    drawn = dpbench.benchmark(dpbench.victim.networks.build("lenet"), loader, batch_seed=[0, 1], **settings)
    with tempfile.TemporaryDirectory() as home:  # a sub-folder for each class, or a labels.csv
        for i, image in enumerate(pixels):
            (place := Path(home) / str(labels[i, 0])).mkdir(exist_ok=True)
            Image.fromarray(image).resize((64, 48)).save(place / f"{i}.png")
        folder = dpbench.data.load_data(f"folder:{home}", size=28)
        found = dpbench.benchmark(model, folder, batch_size=1, **settings)
    for table in (arrays, drawn, found):
        print(table.groupby(["attack", "defense"], dropna=False)["psnr"].mean().round(1))
