"""The denoiser of small colour images that dpbench trains itself (`scripts/train_denoiser.py`) and ships."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpbench.protocol import ImageStatistics, InputError
from dpbench.victim.weights import load_weights, read

SHIPPED = Path(__file__).with_name("denoiser.safetensors")


class Block(nn.Module):
    """A residual pair of 3x3 convolutions; noise level and class scale and shift what is between them."""

    def __init__(self, channels: int, told: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.affine = nn.Linear(told, 2 * channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """`x` [B, C, H, W]; `told` [B, told]."""
        scale, shift = self.affine(told)[:, :, None, None].chunk(2, 1)
        return x + self.second(F.silu(self.first(F.silu(x)) * (1 + scale) + shift))


class Denoiser(nn.Module):
    """The expected image, given the image under Gaussian noise of known level, and its class if known.

    A small U-Net on what the Wiener filter leaves: the estimate is that of the filter plus the network's
    output times the filter's own root mean squared error. Above `largest` the filter alone answers.
    Where `conditional` is False, labels are ignored: those of other data are not its classes.

    Args:
        statistics: of the images that it is trained on; their size is the one that it takes.
        means: mean image of each class, [K, C, H, W].
        widths: channels at half and at a quarter of the size.
        told: length of what the blocks are told of noise level and class.
    """

    smallest, largest = 0.01, 5.0
    """Noise levels that it is trained on, as standard deviations of pixels in [0, 1]."""

    def __init__(
        self, statistics: ImageStatistics, means: Tensor, widths: tuple[int, int] = (32, 64), told: int = 32
    ) -> None:
        super().__init__()
        self.image_shape = tuple(statistics.mean_image.shape)
        self.num_classes, self.conditional = len(means), True
        for name in ("mean_image", "colours", "spectrum"):
            self.register_buffer(name, getattr(statistics, name))
        self.register_buffer("means", means)
        channels, (fine, coarse) = self.image_shape[0], widths
        self.tell = nn.Sequential(nn.Linear(5 + self.num_classes, told), nn.SiLU())
        self.stem = nn.Conv2d(8 * channels, fine, 3, padding=1)
        self.before = nn.ModuleList(Block(fine, told) for _ in range(2))
        self.down = nn.Conv2d(fine, coarse, 2, stride=2)
        self.middle = nn.ModuleList(Block(coarse, told) for _ in range(2))
        self.up = nn.ConvTranspose2d(coarse, fine, 2, stride=2)
        self.after = nn.ModuleList(Block(fine, told) for _ in range(2))
        self.out = nn.Conv2d(fine, 4 * channels, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, noisy: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """The expected images.

        Args:
            noisy: [B, C, H, W], images in [0, 1] plus noise.
            noise: standard deviation of the noise of each image, [B], above 0.
            labels: int64 [B], -1 where the class is unknown; None where all are.

        Returns:
            [B, C, H, W], not clamped.
        """
        labels = labels if self.conditional else None
        filtered, error = self.filtered(noisy, noise, labels)
        found = self.correction(noisy, filtered, noise, labels)
        return filtered + torch.where(noise[:, None, None, None] > self.largest, 0.0, error) * found

    def filtered(self, noisy: Tensor, noise: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The Wiener filter's estimate about the class's mean image, and its expected error.

        Returns:
            [B, C, H, W], and the root mean square of its error over pixels, [B, 1, 1, 1].
        """
        mean, variance = self.mean_of(labels), noise.square()[:, None, None, None]
        gain = self.spectrum / (self.spectrum + variance)
        spectrum = torch.fft.fft2(torch.einsum("kc,bchw->bkhw", self.colours, noisy - mean), norm="ortho")
        pixels = torch.fft.ifft2(gain * spectrum, norm="ortho").real
        found = torch.einsum("kc,bkhw->bchw", self.colours, pixels) + mean
        return found, (gain * variance).mean((1, 2, 3), keepdim=True).sqrt()

    def correction(
        self, noisy: Tensor, filtered: Tensor, noise: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """What the network adds to the filter's estimate, in units of the filter's expected error."""
        y = noisy.new_zeros(len(noisy), self.num_classes)
        if labels is not None:
            y = F.one_hot(labels.clamp(min=0), self.num_classes).to(noisy) * (labels >= 0)[:, None]
        log = noise.clamp(self.smallest, self.largest).log()[:, None]
        waves = [(k * log).sin() for k in (1, 3)] + [(k * log).cos() for k in (1, 3)]
        told = self.tell(torch.cat([log / 2, *waves, y], 1))
        scale = (noise.square() + 0.0625).sqrt()[:, None, None, None]  # of a noisy pixel
        seen = torch.cat([(noisy - 0.5) / scale, 4 * (filtered - 0.5)], 1)
        h = skip = self._through(self.before, self.stem(F.pixel_unshuffle(seen, 2)), told)
        h = self._through(self.middle, self.down(h), told)
        h = self._through(self.after, self.up(h) + skip, told)
        return F.pixel_shuffle(self.out(F.silu(h)), 2).to(noisy)

    def mean_of(self, labels: Tensor | None) -> Tensor:
        """The mean images of such classes, [B, C, H, W]; of all images where the class is unknown."""
        if labels is None:
            return self.mean_image[None]
        known = (labels >= 0)[:, None, None, None]
        return torch.where(known, self.means[labels.clamp(min=0)], self.mean_image)

    @staticmethod
    def _through(blocks: nn.ModuleList, h: Tensor, told: Tensor) -> Tensor:
        for block in blocks:
            h = block(h, told)
        return h


def load_denoiser(
    image_shape: tuple[int, ...], statistics: ImageStatistics | None = None, path: Path | str = SHIPPED
) -> Denoiser | None:
    """The denoiser for images of that shape; None where there is none.

    Args:
        image_shape: (C, H, W) of the images.
        statistics: of public images like them. Labels are used where they are those of the images that the
            denoiser was trained on, and are ignored else.
        path: a file that `scripts/train_denoiser.py` wrote.

    Returns:
        The denoiser on the CPU, in float32 and evaluation mode, its weights frozen.

    Raises:
        InputError: where the file is missing, damaged, not finite, or holds another network.

    Example:
        >>> load_denoiser((3, 32, 32)).image_shape
        (3, 32, 32)
        >>> load_denoiser((3, 8, 8)) is None
        True
    """
    weights = read(path)
    state = weights.tensors
    try:
        known = ImageStatistics(*(state[name].float() for name in ("mean_image", "colours", "spectrum")))
        widths = len(state["stem.bias"]), len(state["down.bias"])
        found = Denoiser(known, state["means"].float(), widths, len(state["tell.0.bias"]))
    except (KeyError, IndexError, ValueError, RuntimeError):
        raise InputError(f"{path} holds no denoiser that scripts/train_denoiser.py wrote.") from None
    if found.image_shape != tuple(image_shape):
        return None
    found = load_weights(found, weights).eval().requires_grad_(False)
    same = statistics is not None and statistics.spectrum.shape == known.spectrum.shape
    found.conditional = same and torch.allclose(statistics.spectrum.cpu(), known.spectrum)
    return found
