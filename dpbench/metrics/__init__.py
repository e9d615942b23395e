"""Metrics of reconstructions, the one assignment that they share, and the floors that need no gradient.

Importing this package registers its metrics, and with them their columns of the results. A metric of your own
is a function under `metric`; a package brings it by the entry-point group `dpbench.metrics`.
"""

from __future__ import annotations

from dpbench.metrics import floors
from dpbench.metrics.base import METRICS, Metric, Scored, Values, measure, metric, registered
from dpbench.metrics.fourier import fft2d
from dpbench.metrics.gallery import GALLERY, decoys, draw_others
from dpbench.metrics.identification import identified, iip
from dpbench.metrics.labels import labels_restored
from dpbench.metrics.matching import match, matched
from dpbench.metrics.peak_signal_to_noise import psnr
from dpbench.metrics.perceptual import lpips, why_no_lpips
from dpbench.metrics.structural_similarity import ssim

__all__ = [
    "GALLERY",
    "METRICS",
    "Metric",
    "Scored",
    "Values",
    "decoys",
    "draw_others",
    "fft2d",
    "floors",
    "identified",
    "iip",
    "labels_restored",
    "lpips",
    "match",
    "matched",
    "measure",
    "metric",
    "psnr",
    "registered",
    "ssim",
    "why_no_lpips",
]
