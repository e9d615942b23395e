"""Image metrics, the one assignment they share, and the no-gradient floors."""

from __future__ import annotations

from dpbench.metrics import floors
from dpbench.metrics.identification import identified, iip
from dpbench.metrics.image import fft2d, psnr, ssim
from dpbench.metrics.matching import match, score
from dpbench.metrics.perceptual import lpips, why_no_lpips
from dpbench.metrics.restored_labels import labels_restored

__all__ = [
    "fft2d",
    "floors",
    "identified",
    "iip",
    "labels_restored",
    "lpips",
    "match",
    "psnr",
    "score",
    "ssim",
    "why_no_lpips",
]
