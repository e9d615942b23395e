"""Trains the small CIFAR-10 generator that dpbench ships: python scripts/train_generator.py.

Writes dpbench/generators/cifar10.safetensors (half precision) after every epoch and generators.json at the
end. It uses CIFAR-10's training images only. The generator is a VAE/GAN (Larsen et al. 2016). First comes a
variational auto-encoder whose reconstruction error is measured in pixels and in features of a classifier.
Then a discriminator is added, which sees images of random latents drawn from where the encoder puts real
images. The record says how well the shipped weights fit test images that no reported result uses.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from dpbench.data import cifar10
from dpbench.generators import ConvGenerator, load_generator
from dpbench.metrics import lpips, psnr
from dpbench.victim.networks import build

HOME = Path(__file__).parents[1] / "dpbench" / "generators"
VICTIMS = HOME.with_name("victim") / "shipped"
BATCH, PIXELS, CLASSES = 32, 3 * 32 * 32, 10
VAE_EPOCHS, GAN_STEPS = 2, 750
VAE_RATE, GAN_RATE, CRITIC_RATE = 1e-3, 3e-4, 8e-4
KL_WEIGHT, GAN_WEIGHT = 2.0, 1.0
AVERAGING = 0.998
HELD_OUT = slice(5000, 5050)


class Encoder(nn.Sequential):
    """Images [B, 3, 32, 32] in [0, 1] -> mean and log variance of z, [B, 2 * latent_dim]."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__(
            nn.Conv2d(3, 48, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(48, 96, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(96, 192, 4, 2, 1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(192 * 16, 2 * latent_dim),
        )


class Critic(nn.Module):
    """A spectrally normalised discriminator with a class projection (Miyato et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            spectral_norm(nn.Conv2d(3, 64, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(64, 128, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(128, 256, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        self.real = spectral_norm(nn.Linear(256 * 16, 1))
        self.classes = spectral_norm(nn.Linear(256 * 16, CLASSES, bias=False))

    def forward(self, images: Tensor, y: Tensor) -> Tensor:
        """[B]: high for images that look real and of class `y`."""
        h = self.body(2 * images - 1)
        return self.real(h).squeeze(1) + (self.classes(h) * y).sum(1)


class Features(nn.Module):
    """The three feature maps of the shipped, trained ConvNet: a perceptual distance that is not LPIPS."""

    def __init__(self) -> None:
        super().__init__()
        self.net = build("convnet").requires_grad_(False)
        stored = load_file(VICTIMS / "convnet-none-trained.safetensors")
        self.net.load_state_dict({name: tensor.float() for name, tensor in stored.items()})

    def forward(self, images: Tensor) -> list[Tensor]:
        """Before the ReLUs, fine to coarse."""
        maps, h = [], self.net.normalise(images)
        for conv in (self.net.conv1, self.net.conv2, self.net.conv3):
            maps.append(conv(h))
            h = F.relu(maps[-1])
        return maps


def half_log(a: Tensor, b: Tensor) -> Tensor:
    """Gaussian negative log-likelihood per entry at the variance that suits it best (Rybkin et al. 2021)."""
    return (a.float() - b.float()).square().mean().log() / 2


@torch.no_grad()
def latents(encoder: Encoder, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Where real images lie: each class's mean [K, L] and a root [L, L] of the covariance about them."""
    mean, log_variance = torch.cat([encoder(part.float() / 255) for part in images.split(1000)]).chunk(2, 1)
    means = torch.stack([mean[labels == k].mean(0) for k in range(CLASSES)])
    covariance = torch.cov((mean - means[labels]).T) + log_variance.exp().mean(0).diag()
    return means, torch.linalg.cholesky(covariance)


@torch.no_grad()
def whitened(model: ConvGenerator, means: Tensor, root: Tensor) -> ConvGenerator:
    """The same generator behind z -> root z + mean of the class: standard normal z lie where images do.

    Fitting the latents' distribution after the training is Ghosh et al. (2020)'s; a first layer that is
    linear in z and y takes it in without a trace.
    """
    model = copy.deepcopy(model)
    on_z, on_y = model.fc.weight.split([model.latent_dim, CLASSES], 1)
    model.fc.weight.copy_(torch.cat([on_z @ root, on_y + on_z @ means.T], 1))
    return model


def search(generator: nn.Module, images: Tensor, y: Tensor, iterations: int = 300) -> Tensor:
    """The nearest images in pixels that Adam finds from z = 0, [B, 3, H, W]."""
    z = torch.zeros(len(images), generator.latent_dim, requires_grad=True)
    optimizer = torch.optim.Adam([z], 0.1)
    for _ in range(iterations):
        optimizer.zero_grad()
        (generator(z, y) - images).square().sum().backward()
        optimizer.step()
    return generator(z, y).detach()


def evaluate() -> dict[str, float]:
    """How well the shipped weights fit test images; how often a classifier knows what random ones show."""
    generator = load_generator("cifar10", num_classes=CLASSES, size=32)
    images, labels = cifar10("test")
    images, y = images[HELD_OUT].float() / 255, F.one_hot(labels[HELD_OUT], CLASSES).float()
    nearest = search(generator, images, y)
    judge = build("resnet20")
    stored = load_file(VICTIMS / "resnet20-frozen-bn-trained.safetensors")
    judge.load_state_dict({name: tensor.float() for name, tensor in stored.items()})
    z = torch.randn(1000, generator.latent_dim, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(1000) % CLASSES
    with torch.no_grad():
        guesses = judge(generator(z, F.one_hot(classes, CLASSES).float())).argmax(1)
    return {
        "agreement_with_resnet20": (guesses == classes).float().mean().item(),
        "search_lpips_alex": lpips(nearest, images).mean().item(),
        "search_psnr": psnr(nearest, images).mean().item(),
    }


def train(seed: int = 0) -> None:
    """Ships the weights, averaged over the last steps, after every epoch."""
    torch.manual_seed(seed)
    draws = torch.Generator().manual_seed(seed)
    images, labels = cifar10("train")
    model = ConvGenerator()
    encoder, critic, features = Encoder(model.latent_dim), Critic(), Features()
    for network in (model, encoder, critic, features):
        network.to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    vae_steps = len(images) // BATCH
    weights = [*model.parameters(), *encoder.parameters()]
    optimizer = torch.optim.Adam(weights, VAE_RATE)
    # half a cycle: the GAN steps, at a lower rate and averaged, do the cooling
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, VAE_RATE, total_steps=2 * VAE_EPOCHS * vae_steps
    )
    for epoch in range(VAE_EPOCHS + 1):
        adversarial, sums = epoch == VAE_EPOCHS, {}
        steps = GAN_STEPS if adversarial else vae_steps
        if adversarial:
            means, root = latents(encoder, images, labels)
            optimizer = torch.optim.Adam(weights, GAN_RATE, betas=(0.5, 0.99))
            opponent = torch.optim.Adam(critic.parameters(), CRITIC_RATE, betas=(0.0, 0.99))
        order = torch.randperm(len(images), generator=draws).split(BATCH)[:steps]
        for index in track(order, f"epoch {epoch + 1}/{VAE_EPOCHS + 1}"):
            x = images[index].float() / 255
            x = torch.where(torch.rand(BATCH, 1, 1, 1, generator=draws) < 0.5, x, x.flip(3))
            x = x.contiguous(memory_format=torch.channels_last)
            y = F.one_hot(labels[index], CLASSES).float()
            noise, z = torch.randn(2, BATCH, model.latent_dim, generator=draws)
            losses = {}
            with torch.autocast("cpu", torch.bfloat16):
                some = x[: BATCH // 2] if adversarial else x  # time for more steps
                mean, log_variance = encoder(some).float().chunk(2, 1)
                rebuilt = model(mean + noise[: len(some)] * (log_variance / 2).exp(), y[: len(some)])
                losses["pixels"] = half_log(rebuilt, some)
                pairs = list(zip(features(rebuilt), features(some), strict=True))
                losses["features"] = sum(half_log(a, b) for a, b in pairs) / len(pairs)
                kl = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
                losses["kl"] = KL_WEIGHT * kl / PIXELS
                if adversarial:
                    dreamt = model(z @ root.T + means[labels[index]], y)
                    losses["critic"] = -GAN_WEIGHT * critic.requires_grad_(False)(dreamt, y).mean()
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            if not adversarial:
                schedule.step()
            if adversarial:
                critic.requires_grad_(True)
                with torch.autocast("cpu", torch.bfloat16):
                    real, fake = critic(x, y).float(), critic(dreamt.detach(), y).float()
                losses["hinge"] = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
                opponent.zero_grad()
                losses["hinge"].backward()
                opponent.step()
            with torch.no_grad():
                for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                    slow.lerp_(fast, 1 - AVERAGING)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.item() / steps
        print(epoch + 1, {name: round(total, 4) for name, total in sums.items()}, flush=True)
        final = whitened(average, *latents(encoder, images, labels)).state_dict()
        save_file(
            {name: tensor.half().contiguous() for name, tensor in final.items()}, HOME / "cifar10.safetensors"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    train()
    record = evaluate() | {
        "averaging": AVERAGING,
        "batch_size": BATCH,
        "bfloat16": True,
        "data": "CIFAR-10, the 50,000 training images, mirrored at random",
        "gan_steps": GAN_STEPS,
        "held_out": f"CIFAR-10 test images {HELD_OUT.start}-{HELD_OUT.stop - 1}",
        "seed": 0,
        "torch": torch.__version__,
        "vae_epochs": VAE_EPOCHS,
    }
    (HOME / "generators.json").write_text(json.dumps({"cifar10": record}, indent=2, sort_keys=True) + "\n")
    print(record)
