from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dpbench import assets
from dpbench.metrics import lpips, psnr, why_no_lpips
from dpbench.metrics.perceptual import CHUNK, SMALLEST, LpipsEmbedding, embed
from dpbench.protocol import InputError

PICTURES = Path(__file__).parents[4] / "shared" / "data" / "lpips"
# Machines may be busy, and the fixtures that hand out trunks change nothing between examples.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NETS = ["alex", "vgg"]


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("net", NETS)
@settings(relaxed, max_examples=8)
@given(st.integers(32, 50), st.integers(32, 50), st.integers(0, 2**32 - 1), st.sampled_from([0, 0.5, 0.95]))
def test_lpips_is_the_packages_own_forward(net, random_trunks, height, width, seed, mix):
    images, originals = noise(2, 2, 3, height, width, seed=seed)
    images = (1 - mix) * images + mix * originals
    expected = random_trunks[net](images, originals, normalize=True).flatten()
    torch.testing.assert_close(lpips(images, originals, net).float(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("net", NETS)
def test_lpips_clamps_and_identical_images_score_zero(net, random_trunks):
    loud = 3 * noise(2, 3, 32, 32) - 1
    assert lpips(loud, loud.clamp(0, 1), net).tolist() == [0, 0]
    assert (lpips(loud, noise(2, 3, 32, 32, seed=1), net) > 0.001).all()


def test_batches_beyond_one_chunk_keep_their_order(random_trunks):
    images, originals = noise(2, CHUNK + 2, 3, 32, 32)
    together = lpips(images, originals)
    torch.testing.assert_close(together[-1:], lpips(images[-1:], originals[-1:]), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(together[:1], lpips(images[:1], originals[:1]), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("net", NETS)
def test_smallest_sizes_are_the_trunks_own(net, random_trunks):
    side = SMALLEST[net]
    image = noise(1, 3, side, side + 5)
    assert lpips(image, image, net).shape == (1,)
    assert why_no_lpips(side, side + 5, net) is None
    small = image[:, :, :-1]
    with pytest.raises(RuntimeError, match="too small"):
        random_trunks[net](small, small)
    with pytest.raises(
        InputError, match=rf"at least {side} x {side} px; these are {side - 1} x {side + 5}\."
    ):
        lpips(small, small, net)
    assert str(side) in why_no_lpips(side - 1, side + 5, net)


@pytest.mark.parametrize(
    "call", [lambda net: lpips(*noise(2, 1, 3, 32, 32), net), lambda net: why_no_lpips(32, 32, net)]
)
def test_unknown_net_lists_the_known_ones(call):
    with pytest.raises(InputError, match="'squeeze'; known: alex, vgg"):
        call("squeeze")


def test_without_a_trunk_there_is_no_lpips(no_trunks):
    image = noise(1, 3, 32, 32)
    with pytest.raises(assets.AssetUnavailable, match="no source answered"):
        lpips(image, image)
    assert "no source answered" in why_no_lpips(32, 32)  # the reason of the first refusal, not "not here"
    assert no_trunks == [("lpips-alex", True), ("lpips-alex", False)]  # the network is asked once a process


def test_a_trunk_that_arrives_later_is_used(no_trunks, packages, monkeypatch):
    assert why_no_lpips(32, 32) is not None
    monkeypatch.setattr(assets, "path", lambda name, fetch=True: packages[1]["alex"])
    assert why_no_lpips(32, 32) is None


def test_an_incomplete_trunk_is_refused():
    with pytest.raises(KeyError, match=r"features\.0\.weight"):
        LpipsEmbedding("alex", {"features.3.weight": torch.zeros(192, 64, 5, 5)})


def test_building_draws_no_random_numbers_and_warns_of_nothing(packages):
    from safetensors.torch import load_file

    trunk, state = load_file(packages[1]["alex"]), torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LpipsEmbedding("alex", trunk)
    assert torch.get_rng_state().equal(state)


def test_a_trunk_in_half_precision_serves(packages):
    """`assets export --half` writes one."""
    from safetensors.torch import load_file

    trunk = load_file(packages[1]["alex"])
    half = {name: tensor.half() for name, tensor in trunk.items()}
    images = noise(2, 3, 32, 32)
    vectors, exact = (LpipsEmbedding("alex", state).eval()(images) for state in (half, trunk))
    assert vectors.dtype == torch.float32
    assert 0 < (vectors - exact).norm() < 1e-2 * exact.norm()


def test_embeddings_are_detached_and_flags_are_restored(random_trunks):
    before = torch.backends.cudnn.allow_tf32
    assert not embed(noise(1, 3, 32, 32).requires_grad_()).requires_grad
    assert torch.backends.cudnn.allow_tf32 == before


def real(net):
    """The true trunk, or skip: its values are the ones that the published pictures are for."""
    if reason := why_no_lpips(64, 64, net):
        pytest.skip(reason)


def picture(name):
    if not PICTURES.is_dir():
        pytest.skip("The pictures with known LPIPS (shared/data/lpips beside the repository) are not here.")
    pixels = np.array(Image.open(PICTURES / f"{name}.png").convert("RGB"))
    return torch.tensor(pixels).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize(("net", "expected"), [("alex", [0.7219, 0.1376]), ("vgg", [0.5686, 0.4217])])
def test_published_pictures_have_their_published_distance(net, expected):
    reference, *others = (picture(name) for name in ("ex_ref", "ex_p0", "ex_p1"))
    real(net)
    assert lpips(torch.cat(others), reference.expand(2, -1, -1, -1), net).tolist() == pytest.approx(
        expected, abs=1e-3
    )


def test_lpips_and_psnr_rank_blur_and_noise_differently():
    """What LPIPS is for: a photograph's blur has the better PSNR and the worse LPIPS beside faint noise."""
    reference = picture("ex_ref")
    real("alex")
    blurred = torch.nn.functional.avg_pool2d(reference, 5, 1, 2, count_include_pad=False)
    noisy = reference + 1.2 * (blurred - reference).std() * torch.randn(
        reference.shape, generator=torch.Generator().manual_seed(0)
    )
    assert psnr(blurred, reference) > psnr(noisy, reference)
    assert lpips(blurred, reference) > lpips(noisy, reference)


def test_importing_the_metrics_imports_no_slow_package():
    """Their imports take seconds; a command that measures nothing should not pay."""
    import subprocess

    slow = {"lpips", "torchmetrics", "torchvision", "matplotlib"}
    code = f"import sys, dpbench.metrics; print({slow} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
