"""Warps against scikit-image, slopes against finite differences, a known homography found again."""

import numpy as np
import pytest
import torch
from skimage import data, transform

from attacks import photometric
from attacks.photometric import refine, warp

TILT = torch.tensor([[0.95, 0.10, 0.05], [-0.08, 1.05, -0.04], [0.06, -0.03, 1.0]])


def photograph(size):
    whole = transform.resize(data.astronaut(), (size, size), anti_aliasing=True)
    return torch.from_numpy(whole).permute(2, 0, 1)[None]


@pytest.mark.parametrize("shape", [(24, 24), (20, 33)])
def test_warp_is_scikit_images(shape):
    image = photograph(40)[:, :, : shape[0], : shape[1]]
    height, width = shape
    pixels = np.array([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]])
    ours, inside = warp(image, TILT[None].double())
    map_of_pixels = np.linalg.inv(pixels) @ TILT.double().numpy() @ pixels
    theirs = transform.warp(
        image[0].permute(1, 2, 0).numpy(), transform.ProjectiveTransform(map_of_pixels), order=1, mode="edge"
    )
    np.testing.assert_allclose(ours[0].permute(1, 2, 0).numpy(), theirs, atol=1e-6)
    ones = transform.warp(np.ones(shape), transform.ProjectiveTransform(map_of_pixels), order=0, cval=0)
    assert (inside[0, 0].numpy() != (ones > 0.5)).mean() < 0.02


def test_slope_and_curvature_are_those_of_the_error():
    # Smooth waves, whose slopes bilinear interpolation keeps well.
    y, x = torch.meshgrid(torch.linspace(0, 4, 64), torch.linspace(0, 5, 64), indexing="ij")
    image = torch.stack([torch.sin(x + y), torch.cos(2 * x - y)])[None].double()
    reference = torch.stack([torch.cos(y), torch.sin(x)])[None].double()
    down, right = torch.gradient(image, dim=(2, 3))
    stack = torch.cat([image, right * 32, down * 32], 1)
    shrunk = (TILT * torch.tensor([[0.6], [0.6], [1.0]]))[None].double()  # covers the whole reference

    def residual(h):
        return (warp(image, h)[0] - reference).flatten()

    found = photometric._linearised(stack, reference, shrunk)
    step = 1e-2
    columns = []
    for i in range(8):
        delta = step * torch.eye(9, dtype=torch.float64)[i].view(1, 3, 3)
        columns.append((residual(shrunk + delta) - residual(shrunk - delta)) / (2 * step))
    jacobian = torch.stack(columns, 1)
    assert found.error.item() == pytest.approx(residual(shrunk).square().sum().item() / 64**2)
    for ours, theirs in (
        (found.slope[0], jacobian.T @ residual(shrunk)),
        (found.curvature[0], jacobian.T @ jacobian),
    ):
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


def test_a_known_homography_is_found_again_and_an_error_never_grows():
    image = photograph(64).float()
    near = torch.eye(3)[None] + 0.6 * (TILT - torch.eye(3))
    reference, _ = warp(image, TILT[None])
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    images, references = torch.cat([image, image]), torch.cat([reference, noise])
    start = near.repeat(2, 1, 1)
    found = refine(images, references, start)
    corners = torch.tensor([[-1.0, 1, -1, 1], [-1, -1, 1, 1], [1, 1, 1, 1]])

    def ends(h):
        return (h @ corners)[:2] / (h @ corners)[2:]

    assert (ends(near[0]) - ends(TILT)).abs().max() > 0.05
    assert (ends(found[0]) - ends(TILT)).abs().max() < 0.005

    def error(h):
        moved, inside = warp(images, h)
        return ((moved - references).square() * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3))

    assert (error(found) <= error(start)).all()
