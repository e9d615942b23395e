"""Steps of Opacus that clipped other gradients than those that their images have alone."""

import pytest
import torch
from opacus import GradSampleModule, PrivacyEngine
from opacus.optimizers import DPOptimizer
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader, TensorDataset

import dpbench
from attacks.base import Attack, attack
from dpbench.api.lengths import doubt
from dpbench.protocol import InputError, Release
from tests.helpers.registries import as_in_a_new_process

torch.set_num_threads(1)
pytestmark = [
    pytest.mark.filterwarnings("ignore:Secure RNG:UserWarning"),
    pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning"),
    pytest.mark.filterwarnings("ignore:How the batches of this training:UserWarning"),
]
DRAWN = torch.Generator().manual_seed(0)
IMAGES = torch.rand(24, 3, 4, 4, generator=DRAWN) * torch.rand(24, 1, 1, 1, generator=DRAWN)
LABELS = torch.arange(24) % 5
MODES = ("hooks", "functorch", "ew")


def contrastive(outputs, _):
    """Each image is to lie near the next one, and far from all others of the batch."""
    rows = normalize(outputs, dim=1)
    alike = rows @ rows.T / 0.1 - 1e4 * torch.eye(len(rows))
    return cross_entropy(alike, (torch.arange(len(rows)) + 1) % len(rows))


def weighted(outputs, labels):
    """PyTorch divides by the weights of the labels that are in the batch."""
    return cross_entropy(outputs, labels, weight=torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]))


def summed(outputs, labels):
    return cross_entropy(outputs, labels, reduction="sum")


class Focal(nn.CrossEntropyLoss):
    """For ghost clipping: a loss for each image, divided by the mean of the batch."""

    def forward(self, outputs, labels):
        each = super().forward(outputs, labels)
        return each * (each / each.mean()).detach() ** 4


class Centred(nn.Module):
    """It takes the batch's mean off, in training alone."""

    def forward(self, x):
        return 3 * (x - x.mean(0)) if self.training else 3 * x


def private(mode="hooks", criterion=None, between=nn.Tanh, **more):
    """Model, optimiser and loss of a training whose noise hides its signal."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), between(), nn.Linear(16, 5))
    model, optimizer, *rest = PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=DataLoader(TensorDataset(IMAGES, LABELS), batch_size=4),
        noise_multiplier=4.0,
        max_grad_norm=1.0,
        grad_sample_mode=mode,
        **more | ({} if criterion is None else {"criterion": criterion}),
    )
    return model, optimizer, rest[0] if mode == "ghost" else cross_entropy


def told(found, recwarn, count=5):
    recwarn.clear()
    dpbench.attack(
        found.release,
        model=found.model,
        originals=(IMAGES[:count], LABELS[:count]),
        attacks="label-restoration",
        progress=False,
        delta=1e-3,
    )
    return [str(each.message) for each in recwarn if "that this step clipped" in str(each.message)]


def captured(model, optimizer, loss, parts=(slice(0, 5),)):
    with dpbench.capture(model, optimizer) as found:
        for i, part in enumerate(parts, 1):
            optimizer.signal_skip_step(i < len(parts))
            loss(model(IMAGES[part]), LABELS[part]).backward()
            optimizer.step()
            optimizer.zero_grad()
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loss", [contrastive, weighted])
def test_a_loss_in_which_images_meet_is_told(mode, loss, recwarn):
    """The noise hid it, and the table had an epsilon without a word."""
    model, optimizer, _ = private(mode)
    (said,) = told(captured(model, optimizer, loss), recwarn)
    assert "images meet in the loss" in said


@pytest.mark.parametrize("mode", MODES)
def test_a_layer_in_which_images_meet_in_training_alone_is_told(mode, recwarn):
    """In evaluation mode, in which releases are computed, they do not."""
    (said,) = told(captured(*private(mode, between=Centred)), recwarn)
    assert "images meet in the loss" in said


def test_such_a_loss_is_told_under_ghost_clipping_too(recwarn):
    (said,) = told(captured(*private("ghost", criterion=Focal())), recwarn)
    assert "images meet in the loss" in said


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("loss", "reduction", "factor"), [(summed, "mean", "5"), (cross_entropy, "sum", "0.2")]
)
def test_a_sum_that_was_taken_for_a_mean_is_told(mode, loss, reduction, factor, recwarn):
    model, optimizer, _ = private(mode, loss_reduction=reduction)
    (said,) = told(captured(model, optimizer, loss), recwarn)
    assert f"are {factor} times as long" in said
    assert "`loss_reduction` must say" in said
    assert "nothing that is computed from the batch may scale it" in said


@pytest.mark.parametrize("parts", [(slice(0, 5),), (slice(0, 3), slice(3, 5))])
@pytest.mark.parametrize("mode", [*MODES, "ghost"])
def test_a_sound_step_is_not_doubted(mode, parts, recwarn):
    criterion = nn.CrossEntropyLoss() if mode == "ghost" else None
    found = captured(*private(mode, criterion=criterion), parts)
    assert len(found.release.clipped) == len(range(*parts[-1].indices(24)))
    assert told(found, recwarn) == []


def test_learning_rate_momentum_and_decay_of_the_weights_come_after_the_noise(recwarn):
    model, optimizer, loss = private()
    for group in optimizer.param_groups:
        group.update(lr=3.0, momentum=0.9, weight_decay=0.1)
    captured(model, optimizer, loss)
    assert told(captured(model, optimizer, loss), recwarn) == []


def test_several_rows_of_an_image_are_told(recwarn):
    model, optimizer, _ = private()
    crops = torch.cat([IMAGES[:5], IMAGES[:5].flip(-1)])
    with dpbench.capture(model, optimizer) as found:
        cross_entropy(model(crops), LABELS[:5].repeat(2)).backward()
        optimizer.step()
    recwarn.clear()
    given = {"attacks": "label-restoration", "progress": False, "delta": 1e-3}
    dpbench.attack(found.release, model=found.model, originals=(IMAGES[:5], LABELS[:5]), **given)
    assert any("clipped 10 gradients, and `originals` has 5 images" in str(each.message) for each in recwarn)


def test_no_attack_is_given_the_lengths():
    seen = []
    with as_in_a_new_process():

        @attack("nosy")
        class Nosy(Attack):
            def run(self, task):
                seen.append(task.release.clipped)
                raise RuntimeError

        found = captured(*private())
        assert len(found.release.clipped) == 5
        given = {"originals": (IMAGES[:5], LABELS[:5]), "attacks": "nosy", "progress": False, "delta": 1e-3}
        with pytest.raises(InputError, match="Nothing that was asked for could be run"):
            dpbench.attack(found.release, model=found.model, **given)
    assert set(seen) == {()}


@pytest.mark.parametrize("count", [0, 5])
def test_parameters_without_dimensions_and_batches_without_images_are_read(count):
    class Warm(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.heat = nn.Linear(48, 5), nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return self.heat * self.layer(x.flatten(1))

    model = GradSampleModule(Warm())
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = DPOptimizer(sgd, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=5)
    found = captured(model, optimizer, summed, [slice(0, count)])
    assert len(found.release.clipped) == count


def test_they_are_not_printed():
    assert "clipped=" not in repr(Release((), (), 1, clipped=(1.0,)))


def test_the_length_of_a_gradient_that_all_but_vanishes_is_rounding():
    assert doubt([1e-9, 1.0], [1e-8, 1.0]) == ""
    assert "other lengths" in doubt([0.5, 1.0, 1.0], [1.0, 1.0, 1.0])
    assert "other lengths" in doubt([2.0], [1.0, 4.0])
