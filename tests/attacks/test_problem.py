"""One iteration's gradient against a plain autograd reference that knows no closed forms."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attacks.engine.problem import Problem
from attacks.objectives import Cosine, FittedScale, LayerL2, SquaredL2
from attacks.regularisers import L2, TotalVariation
from dpbench.data.channels import CIFAR10_MEAN, CIFAR10_STD
from dpbench.protocol import Knowledge
from dpbench.victim.networks import build
from tests.helpers.attacks import Tiny, know, plain_release, smooth_images

REFERENCE = {
    SquaredL2: lambda g, t: (g - t).square().sum(),
    Cosine: lambda g, t: 1 - F.cosine_similarity(g, t, dim=0),
    FittedScale: lambda g, t: t @ t - (g @ t) ** 2 / (g @ g),
}


@pytest.mark.parametrize("objective", REFERENCE)
@pytest.mark.parametrize("regularisers", [(), (TotalVariation(0.2), L2(0.1))], ids=["none", "tv+l2"])
@pytest.mark.parametrize(("arch", "norm"), [("lenet", "none"), ("convnet", "gn"), ("resnet20", "frozen-bn")])
def test_gradient_is_the_plain_double_backward(objective, regularisers, arch, norm):
    model = build(arch, norm=norm, size=16).double()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 16, 16, generator=generator, dtype=torch.float64)
    labels = torch.tensor([1, 7])
    release = plain_release(model, images, labels)
    knowledge = Knowledge(model, F.cross_entropy, (3, 16, 16), 10, CIFAR10_MEAN, CIFAR10_STD)
    z = torch.randn(images.shape, generator=generator, dtype=torch.float64, requires_grad=True)
    soft = torch.randn(2, 10, generator=generator, dtype=torch.float64, requires_grad=True)
    problem = Problem(knowledge, release.gradients, objective(), regularisers)
    distance, total, gradients = problem.gradient([z, soft], soft.softmax(1))

    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (CIFAR10_MEAN, CIFAR10_STD))
    loss = F.cross_entropy(model(z * std + mean), soft.softmax(1))
    trial = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    expected = REFERENCE[objective](
        torch.cat([g.flatten() for g in trial]), torch.cat([g.flatten() for g in release.gradients])
    )
    whole = expected + sum(p(z) for p in regularisers)
    reference = torch.autograd.grad(whole, [z, soft])
    assert float(distance) == pytest.approx(float(expected), rel=1e-8)
    assert float(total) == pytest.approx(float(whole), rel=1e-8)
    for found, truth in zip(gradients, reference, strict=True):
        assert float((found - truth).norm() / truth.norm()) < 1e-8


def test_a_limit_holds_each_images_pull_to_the_regularisers():
    """Between the two images' ratios: one is held back, the other is left as it is."""
    model = build("convnet", norm="gn", size=16).double()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 16, 16, generator=generator, dtype=torch.float64)
    labels, regularisers = torch.tensor([1, 7]), (TotalVariation(0.2), L2(0.1))
    release = plain_release(model, images, labels)
    knowledge = Knowledge(model, F.cross_entropy, (3, 16, 16), 10, CIFAR10_MEAN, CIFAR10_STD)
    z = torch.randn(images.shape, generator=generator, dtype=torch.float64, requires_grad=True)

    def pull(regularisers, limit=None):
        problem = Problem(knowledge, release.gradients, Cosine(), regularisers, limit=limit)
        return problem.gradient([z], labels)[2][0]

    matching, whole = pull(()), pull(regularisers)
    ratios = [float(d.norm() / b.norm()) for d, b in zip(matching, whole - matching, strict=True)]
    middle = sum(ratios) / 2
    found = pull(regularisers, middle)
    for i, ratio in enumerate(ratios):
        expected = matching[i] * min(1, middle / ratio) + whole[i] - matching[i]
        assert torch.allclose(found[i], expected, rtol=1e-8, atol=1e-12)
    assert not torch.allclose(found, whole)
    assert torch.equal(pull(regularisers, 2 * max(ratios)), pull(regularisers, 1e30))
    assert torch.allclose(pull(regularisers, 1e30), whole)
    assert not pull([L2(0.0)], 2.0).any()


class Auxiliary(Tiny):
    """With a head that is used in training only."""

    def __init__(self):
        super().__init__()
        self.auxiliary = nn.Linear(512, 4)


@pytest.mark.parametrize("objective", [SquaredL2, Cosine, LayerL2, FittedScale])
def test_a_parameter_that_the_loss_does_not_use_changes_nothing(objective):
    torch.manual_seed(3)
    victim = Auxiliary()
    plain = Tiny()
    plain.load_state_dict(victim.state_dict(), strict=False)
    images, labels, z = smooth_images(), torch.tensor([1, 2]), torch.randn(2, 3, 8, 8)
    release = plain_release(plain, images, labels)
    found = []
    for model, more in ((plain, ()), (victim, (torch.zeros(4, 512), torch.zeros(4)))):
        knowledge = know(model, labels, (3, 8, 8), 4)
        problem = Problem(knowledge, (*release.gradients, *more), objective(), [TotalVariation(0.1)])
        found.append(problem.gradient([z.requires_grad_()], labels))
    assert float(found[0][0]) == pytest.approx(float(found[1][0]), rel=1e-6)
    torch.testing.assert_close(found[0][2][0], found[1][2][0], rtol=1e-6, atol=1e-9)
