"""A client of FedAvg trains for two epochs, and its update is attacked: python examples/fedavg_client.py."""

import copy

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import dpbench

torch.manual_seed(0)
samples = dpbench.data.load_data("samples")  # 20 photographs of CIFAR-10; the client's data go here
images, labels = samples.images[:4] / 255, samples.labels[:4]
server = nn.Sequential(
    nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(16 * 16 * 16, 10)
)
client = copy.deepcopy(server)
optimizer = torch.optim.SGD(client.parameters(), lr=0.01)
for _ in range(2):
    for x, y in zip(images.split(2), labels.split(2), strict=True):
        optimizer.zero_grad()
        cross_entropy(client(x), y).backward()
        optimizer.step()

release = dpbench.Release.from_update(
    server, client, lr=0.01, local_steps=4, batch_size=2, images=len(images)
)
table = dpbench.attack(
    release,
    model=server,
    originals=(images, labels),
    update=["simulate", "single-gradient"],  # unrolls the four steps; takes the update for one gradient
    iterations=100,
)
print(table.groupby(["attack", "update"], dropna=False)[["psnr", "lpips"]].mean().round(3))
