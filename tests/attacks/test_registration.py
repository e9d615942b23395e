"""Photographs moved by a known amount and brought back; what cannot be registered stays as it is."""

import copy
import math

import pytest
import torch
from skimage import data
from torch import nn
from torch.nn import functional as F

from attacks import registration
from attacks.features import network_features
from attacks.registration import consensus, lazy, register
from dpbench.protocol import InputError
from dpbench.victim.networks import build

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
MOVES = [(0.0, 0.06, -0.04), (8.0, 0.0, 0.0), (-10.0, 0.05, 0.08)]


def view(name, size, degrees=0.0, right=0.0, down=0.0):
    """The middle of a photograph as a camera sees it that turns and moves, in parts of what it sees.

    The photograph goes on around it, so there are no black borders.
    """
    whole = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1).float()[None] / 255
    side = min(whole.shape[2:])
    top, left = ((length - side) // 2 for length in whole.shape[2:])
    whole = whole[:, :, top : top + side, left : left + side]
    sharp = F.interpolate(whole, round(3 * size / 0.7), mode="bilinear", antialias=True)
    turn = math.radians(degrees)
    sine, cosine = 0.7 * math.sin(turn), 0.7 * math.cos(turn)
    camera = torch.tensor([[[cosine, -sine, 1.4 * right], [sine, cosine, 1.4 * down]]])
    grid = F.affine_grid(camera, [1, 3, 3 * size, 3 * size], align_corners=False)
    seen = F.grid_sample(sharp, grid, padding_mode="reflection", align_corners=False)
    return F.avg_pool2d(seen, 3)[0]


def mse(images, originals):
    return (images - originals).square().flatten(1).mean(1)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def features():
    return network_features(build("resnet20"), (3, 32, 32))


@pytest.mark.parametrize("size", [32, 64, 224])
def test_a_known_shift_and_rotation_are_undone(features, size):
    originals = torch.stack([view(name, size) for name in PHOTOGRAPHS])
    for move in MOVES if size < 224 else MOVES[2:]:
        moved = torch.stack([view(name, size, *move) for name in PHOTOGRAPHS])
        back = register(moved, originals, features)
        assert (mse(back, originals) < 0.05 * mse(moved, originals)).all()


@pytest.mark.parametrize("size", [32, 64])
def test_seeds_moved_apart_agree_on_more_than_their_plain_mean(features, size):
    originals = torch.stack([view(name, size) for name in PHOTOGRAPHS])
    moves = [(4.0, 0.03, -0.02), (-3.0, -0.04, 0.01), (2.0, -0.01, -0.03), (-3.0, 0.02, 0.04)]
    seeds = torch.stack([torch.stack([view(name, size, *move) for name in PHOTOGRAPHS]) for move in moves])
    plain = mse(lazy(seeds), originals)
    found = mse(consensus(seeds, features), originals)
    assert (found < plain).all()
    assert found.mean() < 0.6 * plain.mean()
    noisy = seeds + 0.1 * torch.randn(seeds.shape, generator=torch.Generator().manual_seed(0))
    assert (mse(consensus(noisy.clamp(0, 1), features), originals) < mse(lazy(noisy), originals)).all()


def test_noise_stays_as_it_is(features):
    images = noise(6, 3, 32, 32)
    assert register(images, noise(6, 3, 32, 32, seed=1), features).equal(images)
    assert register(images, view("coffee", 32).expand(6, -1, -1, -1), features).equal(images)
    seeds = noise(4, 2, 3, 32, 32)
    assert consensus(seeds, features).equal(lazy(seeds))


def test_an_image_in_its_place_stays_and_so_does_a_flat_one(features):
    images = torch.stack([view(name, 64) for name in PHOTOGRAPHS])
    torch.testing.assert_close(register(images, images, features), images, atol=1e-3, rtol=0)
    flat = torch.full_like(images, 0.4)
    assert register(flat, images, features).equal(flat)
    assert register(images, flat, features).equal(images)


def test_what_the_moved_image_does_not_cover_is_the_reference(features):
    original, moved = view("coffee", 64), view("coffee", 64, 0.0, 0.2, 0.0)
    back = register(moved[None], original[None], features)[0]
    assert back[:, :, :12].equal(original[:, :, :12])  # the camera went right by 12.8 px
    assert not back[:, :, 14:].equal(original[:, :, 14:])
    assert mse(back[None, :, :, 14:], original[None, :, :, 14:]) < 0.003


@pytest.mark.parametrize(
    "fold",
    [[-1.0, 1.0, 1.0], [3.0, 3.0, 1.0], [0.3, 0.3, 1.0], [math.nan, 1.0, 1.0]],
    ids=["mirror", "far out", "far in", "nan"],
)
def test_a_homography_that_cannot_be_true_is_not_used(features, monkeypatch, fold):
    original = view("astronaut", 32)[None]
    monkeypatch.setattr(registration, "_homography", lambda *_: torch.diag(torch.tensor(fold)))
    monkeypatch.setattr(registration, "refine", lambda images, references, found: found)
    # a reference that the false homography would fit
    reference, _ = registration.warp(original, torch.diag(torch.tensor(fold))[None].nan_to_num(1.0))
    assert register(original, reference, features).equal(original)


def test_too_few_matches_move_nothing(features, monkeypatch):
    original, moved = view("astronaut", 32)[None], view("astronaut", 32, *MOVES[2])[None]
    assert not register(moved, original, features).equal(moved)
    points = torch.rand(registration.FEWEST - 1, 2)
    monkeypatch.setattr(registration, "matches", lambda *_: (points, points))
    assert register(moved, original, features).equal(moved)


def test_same_seed_same_result_whatever_else_is_drawn_or_registered(features):
    images = torch.stack([view(name, 32, *MOVES[1]) for name in PHOTOGRAPHS])
    references = torch.stack([view(name, 32) for name in PHOTOGRAPHS])
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = register(images, references, features, seed=3)
    assert torch.get_rng_state().equal(state)
    torch.rand(7)
    assert register(images, references, features, seed=3).equal(first)
    alone = register(images[1:2], references[1:2], features, seed=3)
    torch.testing.assert_close(alone[0], first[1], atol=1e-4, rtol=0)


def test_matches_are_mutual_nearest_neighbours():
    generator = torch.Generator().manual_seed(0)
    a, b = (F.normalize(torch.randn(5, 4, 6, generator=generator), dim=0) for _ in range(2))
    found = {tuple(map(tuple, pair)) for pair in torch.stack(registration.matches(a, b), 1).tolist()}
    place = [((2 * (i % 6) + 1) / 6 - 1, (2 * (i // 6) + 1) / 4 - 1) for i in range(24)]
    p, q = a.flatten(1).T, b.flatten(1).T
    expected = [
        (place[i], place[j])
        for i in range(24)
        for j in range(24)
        if all(p[i] @ q[j] >= p[i] @ other for other in q) and all(p[i] @ q[j] >= other @ q[j] for other in p)
    ]
    assert len(found) == len(expected) > 3
    for pair in expected:
        off = [(torch.tensor(pair) - torch.tensor(other)).abs().max() for other in found]
        assert min(off) < 1e-6


def test_without_features_the_consensus_is_lazy_and_it_has_no_gradient():
    seeds = noise(3, 2, 3, 32, 32).requires_grad_()
    assert consensus(seeds).equal(seeds.detach().mean(0))
    assert not consensus(seeds).requires_grad


def test_bad_input(features):
    with pytest.raises(InputError, match=r"\[S, B, C, H, W\]"):
        consensus(noise(2, 3, 32, 32), features)
    with pytest.raises(InputError, match="one shape"):
        register(noise(2, 3, 32, 32), noise(1, 3, 32, 32), features)
    with pytest.raises(InputError, match=r"maps \[N, D, h, w\]"):
        register(noise(1, 3, 32, 32), noise(1, 3, 32, 32), lambda images: images.flatten(1))


class Wrapped(nn.Module):
    """Layers named as in a ResNet, the way people wrap theirs."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)


@pytest.mark.parametrize(
    ("model", "size", "expected"),
    [
        ("resnet20", 32, (64, 8)),
        ("resnet18", 32, (512, 4)),
        ("resnet18", 224, (128, 28)),
        ("convnet", 32, (96, 4)),
    ],
)
def test_features_are_the_deepest_map_of_an_eighth_of_the_image(model, size, expected):
    network = build(model, size=size)
    channels, side = expected
    for wrapped in (network, Wrapped(network)):
        features = network_features(wrapped, (3, size, size))
        assert features(noise(2, 3, size, size)).shape == (2, channels, side, side)
        assert features(noise(1, 3, 2 * size, 2 * size)).shape == (1, channels, 2 * side, 2 * side)


def test_features_are_the_layers_own_and_leave_the_model_alone():
    network = build("resnet20", norm="bn").train()
    before, images = copy.deepcopy(network.state_dict()), noise(2, 3, 32, 32)
    features = network_features(network, (3, 32, 32))
    found = features(images)
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
    network.eval()
    seen = []
    network.layer3.register_forward_hook(lambda *args: seen.append(args[2]))
    network(images)
    torch.testing.assert_close(found, seen[0])
    assert not found.requires_grad


def test_a_network_without_maps_is_refused():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4))
    with pytest.raises(InputError, match="`terms` lazy"):
        network_features(flat, (3, 8, 8))
