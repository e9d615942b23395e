"""One step of DP-SGD as Opacus makes it, captured and attacked: python examples/training_step.py."""

import torch
from opacus import PrivacyEngine
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import dpbench

torch.manual_seed(0)
samples = dpbench.data.load_data("samples")  # 20 photographs of CIFAR-10; your own data set goes here
images, labels = samples.images / 255, samples.labels
model = nn.Sequential(
    nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(32 * 16 * 16, 10)
)
model, optimizer, loader = PrivacyEngine().make_private(
    module=model,
    optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
    data_loader=DataLoader(TensorDataset(images, labels), batch_size=4),
    noise_multiplier=1.0,
    max_grad_norm=1.0,
)
batch = next(batch for batch in loader if len(batch[0]))  # Poisson sampling may draw nobody
with dpbench.capture(model, optimizer) as captured:
    cross_entropy(model(batch[0]), batch[1]).backward()
    optimizer.step()

table = dpbench.attack(
    captured.release,
    model=captured.model,
    originals=batch,
    iterations=100,
    train_size=len(images),  # of your training, for its epsilon
    epochs=30,
)
print(table.groupby(["attack", "defense"], dropna=False)[["psnr", "eps", "eps_release"]].mean())
