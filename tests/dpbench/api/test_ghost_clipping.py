"""Steps of ghost clipping that were noised, and not clipped to the norm that the noise is for."""

import pytest
import torch
from opacus import GradSampleModule, PrivacyEngine
from opacus.optimizers import DPOptimizerFastGradientClipping
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dpbench
from dpbench.protocol import InputError

torch.set_num_threads(1)
pytestmark = [
    pytest.mark.filterwarnings("ignore:Secure RNG:UserWarning"),
    pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning"),
]
IMAGES, LABELS = torch.rand(24, 3, 4, 4), torch.arange(24) % 5
CRITERION = nn.CrossEntropyLoss()


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Linear(8, 5))


def private(model, **more):
    """Model, optimiser and criterion, as an engine makes them."""
    return PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=DataLoader(TensorDataset(IMAGES, LABELS), batch_size=8),
        noise_multiplier=1.0,
        max_grad_norm=1e-3,
        criterion=CRITERION,
        grad_sample_mode="ghost",
        **more,
    )[:3]


def captured(model, optimizer, criterion, images=5, forward=None):
    with dpbench.capture(model, optimizer) as found:
        criterion((forward or model)(IMAGES[:images]), LABELS[:images]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return found.release


@pytest.mark.parametrize("wrapped", [True, False])
def test_another_loss_than_that_of_opacus_clips_nothing(wrapped):
    own = network()
    model, optimizer, criterion = private(own, wrap_model=wrapped)
    forward = model if wrapped else own
    with pytest.raises(InputError, match=r"nothing was clipped .* criterion that `make_private` returns"):
        captured(own, optimizer, CRITERION, forward=forward)
    gradient = torch.cat([p.summed_grad.flatten() for p in optimizer.params])
    assert gradient.norm() > 5e-3  # longer than five samples of that norm
    optimizer.zero_grad()
    assert captured(own, optimizer, criterion, forward=forward).defense[0].name == "dp"
    for images in (5, 4):  # whatever was clipped in the step before
        with pytest.raises(InputError, match="nothing was clipped"):
            captured(own, optimizer, CRITERION, images, forward)
        optimizer.zero_grad()


def test_parameters_that_were_unfrozen_later_do_not_count_for_the_norm():
    own = network()
    own[1].requires_grad_(False)
    model, optimizer, criterion = private(own)
    assert len(captured(model, optimizer, criterion).names) == 2
    own[1].requires_grad_(True)
    with pytest.raises(InputError, match="unfrozen after Opacus wrapped the model"):
        captured(model, optimizer, criterion)


def test_a_model_that_is_not_of_ghost_clipping_clips_nothing():
    model = GradSampleModule(network())
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = DPOptimizerFastGradientClipping(
        sgd, noise_multiplier=1.0, max_grad_norm=1e-3, expected_batch_size=5
    )
    with pytest.raises(InputError, match="leaves the clipping to a model"):
        captured(model, optimizer, CRITERION)


def test_a_batch_in_parts_and_an_empty_one_are_read():
    model, optimizer, criterion = private(network())
    with dpbench.capture(model, optimizer) as found:
        for last, part in enumerate((slice(0, 3), slice(3, 5))):
            optimizer.signal_skip_step(not last)
            criterion(model(IMAGES[part]), LABELS[part]).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert len(found.steps) == 1
    assert captured(model, optimizer, criterion, images=0).defense[0].name == "dp"


def test_a_term_of_the_weights_beside_the_loss_escapes_the_clip():
    """What docs/training.md warns of, as a step does not show it: one image moves the sum by more than C."""
    model = network()
    _, optimizer, criterion = private(model, wrap_model=False)
    for term, escapes in ((0.0, False), (1.0, True)):
        weights = sum(p.square().sum() for p in model.parameters())
        (criterion(model(IMAGES[:1]), LABELS[:1]) + term * weights).backward()
        moved = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
        assert (moved > 1.01 * optimizer.max_grad_norm) == escapes
        optimizer.zero_grad()
