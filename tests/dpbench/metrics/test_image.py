from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dpbench.metrics import fft2d, lpips, match, psnr, ssim
from dpbench.protocol import InputError

relaxed = settings(deadline=None)  # machines may be busy
METRICS = [psnr, ssim, fft2d]


@st.composite
def pairs(draw):
    """Two batches [B, 3, H, W] of noise, smooth, flat or stepped images, beyond [0, 1] at times."""
    shape = (draw(st.integers(1, 3)), 3, draw(st.integers(16, 48)), draw(st.integers(16, 48)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def content():
        kind = draw(st.sampled_from(["noise", "smooth", "flat", "steps", "loud"]))
        base = rng.random(shape)
        return {
            "noise": base,
            "smooth": gaussian_filter(base, (0, 0, 2, 2)),
            "flat": np.broadcast_to(base[..., :1, :1], shape),
            "steps": (base > 0.5).astype(float),
            "loud": 3 * base - 1,
        }[kind]

    images, originals = content(), content()
    mix = draw(st.sampled_from([0, 0.5, 0.99]))  # 0.99 is a good reconstruction
    images = (1 - mix) * images + mix * originals
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return torch.tensor(images, dtype=dtype), torch.tensor(originals, dtype=dtype)


def clipped(batch):
    return np.clip(batch.double().numpy(), 0, 1)


@relaxed
@given(pairs())
def test_psnr_is_scikit_images(pair):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # its own division by zero for identical images
        expected = [
            peak_signal_noise_ratio(y, x, data_range=1) for x, y in zip(*map(clipped, pair), strict=True)
        ]
    assert psnr(*pair).numpy() == pytest.approx(expected, abs=1e-5)


@relaxed
@given(pairs())
def test_ssim_is_scikit_images(pair):
    expected = [
        structural_similarity(
            y, x, channel_axis=0, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for x, y in zip(*map(clipped, pair), strict=True)
    ]
    assert ssim(*pair).numpy() == pytest.approx(expected, abs=1e-5)


@relaxed
@given(pairs())
def test_fft2d_is_numpys_and_at_most_the_squared_error(pair):
    x, y = map(clipped, pair)
    spectra = [np.abs(np.fft.fft2(batch)) / math.sqrt(batch.shape[2] * batch.shape[3]) for batch in (x, y)]
    expected = ((spectra[0] - spectra[1]) ** 2).mean((1, 2, 3))
    value = fft2d(*pair).numpy()
    assert value == pytest.approx(expected, abs=1e-10)
    assert (value <= ((x - y) ** 2).mean((1, 2, 3)) + 1e-12).all()


@pytest.mark.parametrize("metric", METRICS)
@relaxed
@given(pair=pairs())
def test_metrics_are_symmetric_and_per_image(metric, pair):
    images, originals = pair
    together = metric(images, originals)
    assert together.shape == (len(images),)
    assert together.dtype == torch.float64
    torch.testing.assert_close(together, metric(originals, images))
    alone = torch.cat([metric(x[None], y[None]) for x, y in zip(images, originals, strict=True)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize(("metric", "best"), [(psnr, math.inf), (ssim, 1.0), (fft2d, 0.0)])
def test_identical_images_score_best(metric, best):
    image = torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    assert metric(image, image).tolist() == pytest.approx([best, best])


@pytest.mark.parametrize("metric", METRICS)
def test_out_of_range_is_clamped(metric):
    generator = torch.Generator().manual_seed(1)
    loud, original = (4 * torch.rand(2, 3, 16, 16, generator=generator) - 2 for _ in range(2))
    assert metric(loud, original).equal(metric(loud.clamp(0, 1), original.clamp(0, 1)))
    assert not metric(loud, original).equal(metric(loud.clamp(0, 0.9), original.clamp(0, 1)))


def test_one_exact_image_does_not_hide_the_others():
    original = torch.full((2, 3, 16, 16), 0.25)
    images = original.clone()
    images[1] += 0.1
    assert psnr(images, original).tolist() == pytest.approx([math.inf, 20], abs=1e-4)


def test_fft2d_sees_no_phase():
    image = torch.rand(1, 3, 17, 16, generator=torch.Generator().manual_seed(2))
    moved = image.roll((5, 3), dims=(2, 3))
    assert psnr(moved, image) < 10
    assert fft2d(moved, image) < 1e-12


def test_metrics_need_no_gradient():
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    assert not any(metric(image, image.detach()).requires_grad for metric in METRICS)


GOOD = torch.zeros(2, 3, 32, 32)
BAD = {
    "no batch": (GOOD[0], GOOD[0], r"\[B, 3, H, W\].*\(3, 32, 32\)"),
    "two channels": (GOOD[:, :2], GOOD[:, :2], r"\[B, 3, H, W\]"),
    "channels last": (GOOD.movedim(1, -1), GOOD.movedim(1, -1), r"\[B, 3, H, W\]"),
    "empty": (GOOD[:0], GOOD[:0], r"\[B, 3, H, W\]"),
    "broadcast": (GOOD[:1], GOOD, "same shape"),
    "sizes": (GOOD, GOOD[..., :31], "same shape"),
    "bytes": (GOOD, GOOD.byte(), "divide by 255"),
    "nan": (GOOD + torch.nan, GOOD, "^images hold NaN"),
    "infinite": (GOOD, GOOD + torch.inf, "^originals hold NaN"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("metric", [*METRICS, lpips, match])
def test_bad_input_is_one_clear_sentence(metric, case):
    images, originals, sentence = BAD[case]
    with pytest.raises(InputError, match=sentence):
        metric(images, originals)


@pytest.mark.parametrize("metric", METRICS)
def test_a_grey_image_scores_as_one_of_three_equal_channels(metric):
    grey, other = GOOD[:, :1], GOOD[:, 1:2]
    assert torch.allclose(metric(grey, other), metric(*(x.expand(-1, 3, -1, -1) for x in (grey, other))))


def test_ssim_refuses_images_smaller_than_its_window():
    assert ssim(GOOD[..., :11, :11], GOOD[..., :11, :11]).tolist() == [1, 1]
    with pytest.raises(InputError, match="at least 11 x 11 px; these are 11 x 10"):
        ssim(GOOD[..., :11, :10], GOOD[..., :11, :10])
