"""A vision transformer with a learned position embedding gives its image back."""

from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import attacks
import defenses
from attacks.exact import embedding, patches
from attacks.exact.explained import CERTAIN, unexplained
from attacks.exact.peel import ROUNDED
from attacks.gaussian_prior import Whitening
from dpbench.data import load_data
from dpbench.protocol import ImageStatistics
from dpbench.victim import load
from dpbench.victim.networks import build
from tests.helpers.attacks import know, photograph, plain_release, psnr

SIZE = 16
SHAPE = (3, SIZE, SIZE)


class Small(nn.Module):
    """A transformer of one block on patches of 4 x 4 pixels."""

    def __init__(self, width=32, embed=None, position=None, first=0, bias=True):
        super().__init__()
        torch.manual_seed(1)
        self.embed = embed or nn.Conv2d(3, width, 4, stride=4)
        self.position = position if position is not None else nn.Parameter(0.1 * torch.randn(16, width))
        self.block = nn.TransformerEncoderLayer(width, 2, 2 * width, 0, F.gelu, batch_first=True)
        self.head = nn.Linear(width, 10, bias=bias)
        self.first = first

    def tokens(self, images):
        return self.embed((images - 0.5) / 0.25).flatten(2).mT

    def forward(self, images):
        return self.head(self.block(self.tokens(images) + self.position[self.first :]).square().mean(1))


class Linear(Small):
    """Patches are cut out by reshaping and embedded by a fully connected layer."""

    def __init__(self):
        super().__init__(embed=nn.Linear(48, 32))

    def tokens(self, images):
        cut = images.unflatten(3, (4, 4)).unflatten(2, (4, 4)).permute(0, 2, 4, 3, 5, 1)
        return self.embed(cut.flatten(3).flatten(1, 2))


class Planes(Small):
    """The position embedding is added to feature maps."""

    def __init__(self):
        super().__init__(position=nn.Parameter(torch.randn(1, 32, 4, 4)))

    def forward(self, images):
        planes = self.embed(images) + self.position
        return self.head(self.block(planes.flatten(2).mT).square().mean(1))


def library():
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(SIZE, 4, 2, 2, 32, 64, num_classes=10)
    nn.init.normal_(model.heads.head.weight, std=0.3)
    return model


TRANSFORMERS = {
    "convolution": Small,
    "overlapping patches": lambda: Small(embed=nn.Conv2d(3, 32, 6, stride=4, padding=1)),
    "fully connected": Linear,
    "feature maps": Planes,
    "other tokens first": lambda: Small(position=nn.Parameter(torch.randn(18, 32)), first=2),
    "torchvision": library,
}


@pytest.fixture
def picture():
    images, labels = photograph(3)
    return F.interpolate(images, SIZE, mode="area"), labels


def answer(model, release, size=SIZE, **more):
    knowledge = know(model, None, (3, size, size), **more)
    return attacks.create("peel", iterations=2, engine="eager")(release, knowledge, seed=0)


@pytest.mark.parametrize("defense", ["none", "clip"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_transformer_gives_its_image_back(name, defense, picture):
    model = TRANSFORMERS[name]().eval()
    values = {"max_grad_norm": 0.01} if defense == "clip" else {}
    release = defenses.create(defense, **values).release(model, F.cross_entropy, *picture, seed=0)
    found = answer(model, release)
    assert found.note == ""
    assert found.certified.tolist() == [True]
    assert float(found.residual) <= CERTAIN
    assert psnr(found.images, picture[0]) > 60
    assert torch.equal(found.labels, picture[1])


@pytest.mark.parametrize("training", ["early", "trained"])
def test_the_shipped_transformer_gives_a_photograph_back(training):
    images, labels = photograph(2)
    model = load("vit", "none", training, None, load_data("samples"), 32).model
    found = answer(model, plain_release(model, images, labels), size=32)
    assert found.certified.tolist() == [True]
    assert psnr(found.images, images) > 60


@pytest.mark.parametrize("training", ["early", "trained"])
def test_the_certificate_refutes_a_wrong_image(training):
    images, labels = photograph(2)
    model = load("vit", "none", training, None, load_data("samples"), 32).model
    release, knowledge = plain_release(model, images, labels), know(model)
    wrong = images.clone()
    wrong[0, 1, 5, 5] += 0.02
    assert unexplained(release, knowledge, "fc", images, ROUNDED) < CERTAIN / 2
    assert unexplained(release, knowledge, "fc", wrong, ROUNDED) > 2 * CERTAIN
    assert unexplained(release, knowledge, "fc", photograph(5)[0], ROUNDED) > 100 * CERTAIN


def test_how_far_it_is_is_told_while_open_patches_are_filled_in(picture):
    model, told = Small(width=14).eval(), []
    release = plain_release(model, *picture)
    cut = embedding.read(model, SHAPE)
    gradients = {n: g.double() for n, g in zip(release.names, release.gradients, strict=True)}
    generator = torch.Generator().manual_seed(0)
    patches.solved(
        cut, gradients, Whitening(statistics()).double(), generator, lambda *each: told.append(each)
    )
    done, whole, values = zip(*told, strict=True)
    assert done[0] == 0
    assert list(done) == sorted(done)
    assert len(set(done)) > 10
    assert set(whole) == {600}
    assert max(done) < 600
    assert all(value >= 0 for value in values)


def test_fewer_dimensions_than_patches_leave_the_image_open(picture):
    model = Small(width=14).eval()
    found = answer(model, plain_release(model, *picture))
    assert found.certified.tolist() == [False]
    assert psnr(found.images, picture[0]) > 15
    assert "unexplained" in found.note or "so may others" in found.note


def test_pixels_outside_all_patches_are_not_certified(picture):
    """Patches of 3 x 3 leave a column and a row of 16 x 16 pixels out; nothing in the release shows them."""
    embed, position = nn.Conv2d(3, 32, 3, stride=3), nn.Parameter(torch.randn(25, 32))
    model = Small(embed=embed, position=position).eval()
    found = answer(model, plain_release(model, *picture))
    assert found.certified.tolist() == [False]
    assert float(found.residual) <= CERTAIN
    assert found.note.startswith("The image explains the release, and so may others")
    assert psnr(found.images[..., :15, :15], picture[0][..., :15, :15]) > 60


def test_a_gradient_that_is_no_number_is_left_to_the_search(picture):
    model = Small().eval()
    cut, release = embedding.read(model, SHAPE), plain_release(model, *picture)
    gradients = {n: g.double() for n, g in zip(release.names, release.gradients, strict=True)}
    gradients[cut.position] = gradients[cut.position] * torch.nan
    prior = Whitening(statistics()).double()
    assert patches.solved(cut, gradients, prior, torch.Generator().manual_seed(0)) is None


def test_a_position_embedding_that_does_not_train_leaves_it_to_the_search(picture):
    model = Small().eval()
    model.position.requires_grad_(False)
    found = answer(model, defenses.create("none").release(model, F.cross_entropy, *picture, seed=0))
    assert found.note.startswith("The closed form did not apply, because")
    assert found.certified.tolist() == [False]


def test_noise_is_refused_and_undeclared_noise_noticed(picture):
    model = Small().eval()
    release = defenses.create("noise", noise_std=1e-6).release(model, F.cross_entropy, *picture, seed=0)
    assert "it needs exact gradients, and noise changes them" in answer(model, release).note
    release = plain_release(model, *picture)
    noisy = tuple(g + 1e-3 * g.norm() * torch.randn_like(g) for g in release.gradients)
    found = answer(model, replace(release, gradients=noisy))
    assert found.certified.tolist() == [False]
    assert float(found.residual) > CERTAIN


def test_without_a_bias_of_the_last_layer_nothing_is_certified(picture):
    model = Small(bias=False).eval()
    found = answer(model, plain_release(model, *picture))
    assert psnr(found.images, picture[0]) > 60
    assert found.certified.tolist() == [False]
    assert "was not checked" in found.note


@pytest.mark.parametrize("name", ["convnet", "resnet20", "lenet", "mlp"])
def test_other_networks_have_no_patches(name):
    assert embedding.read(build(name), (3, 32, 32)) is None


def test_a_model_that_mixes_pixels_before_its_patches_is_none():
    class Blurred(Small):
        def tokens(self, images):
            return super().tokens(F.avg_pool2d(images, 3, 1, 1))

    assert embedding.read(Blurred().eval(), SHAPE) is None


def test_patches_and_image_are_each_other_s_inverse():
    found = embedding.read(TRANSFORMERS["overlapping patches"]().eval(), SHAPE)
    image = torch.rand(SHAPE, dtype=torch.float64)
    assert torch.allclose(found.image(found.values(image), torch.zeros_like(image)), image)


def statistics():
    spectrum = 1 / (0.1 + torch.fft.fftfreq(SIZE)[:, None] ** 2 + torch.fft.fftfreq(SIZE) ** 2)
    return ImageStatistics(torch.full(SHAPE, 0.5), torch.eye(3), 0.003 * spectrum.expand(SHAPE))


def drawn(prior, generator):
    return prior.inverse(torch.randn(1, *SHAPE, dtype=torch.float64, generator=generator))[0]


def test_what_the_gradients_leave_open_is_the_prior_s_conditional_mean():
    """Against dense algebra: 12 of 16 combinations known."""
    cut = embedding.read(Small().eval(), SHAPE)
    prior = Whitening(statistics()).double()
    generator = torch.Generator().manual_seed(0)
    image = drawn(prior, generator)
    basis = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64, generator=generator))[0]
    known = basis[:, :12]
    found = patches._filled(cut, (known, basis[:, 12:]), known.T @ cut.values(image), prior)
    count = image.numel()
    each = torch.eye(count, dtype=torch.float64).view(count, *SHAPE)
    whiten = torch.stack([prior((prior.mean_image + x)[None]).flatten() for x in each], 1)
    covariance = torch.linalg.inv(whiten.T @ whiten)
    seen = torch.stack([(known.T @ (cut.values(x) - cut.offset)).flatten() for x in each], 1)
    gain = covariance @ seen.T @ torch.linalg.inv(seen @ covariance @ seen.T)
    expected = prior.mean_image.flatten() + gain @ seen @ (image - prior.mean_image).flatten()
    assert torch.allclose(found.flatten(), expected, atol=1e-5)


def test_the_expected_error_is_the_error(picture):
    """Root mean square over 8 images drawn from the prior; 14 dimensions for 16 patches."""
    model, prior = Small(width=14).eval(), Whitening(statistics()).double()
    cut, generator = embedding.read(model, SHAPE), torch.Generator().manual_seed(0)
    errors, claimed = [], []
    for _ in range(8):
        image = drawn(prior, generator)
        release = plain_release(model, image[None].float(), picture[1])
        gradients = {n: g.double() for n, g in zip(release.names, release.gradients, strict=True)}
        found = patches.solved(cut, gradients, prior, generator)
        errors.append(float((found.image - image).square().mean()))
        claimed.append(found.expected**2)
    assert not found.determined
    assert 0.5 < sum(errors) / sum(claimed) < 2


@pytest.mark.parametrize("trained", [("head",), ("embed", "head"), ("position", "head")])
def test_the_note_says_which_embedding_was_kept_frozen(picture, trained):
    model = Small().eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(trained))
    release = plain_release(model, *picture)
    found = answer(model, release)
    missing = "embed.weight" if trained[0] == "position" else "position"
    assert f"and the gradient of `{missing}` was not released; the search took over" in found.note
