"""Sigma and C of the step that was made, where Opacus' schedulers change those of the optimiser."""

import pytest
import torch
from opacus import GradSampleModule, PrivacyEngine
from opacus.optimizers import DPOptimizer
from opacus.schedulers import ExponentialGradClip, ExponentialNoise
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dpbench
from dpbench.protocol import InputError, Release
from dpbench.protocol.sent import bare

torch.set_num_threads(1)
pytestmark = [
    pytest.mark.filterwarnings("ignore:Secure RNG:UserWarning"),
    pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning"),
]
IMAGES, LABELS = torch.rand(64, 3, 4, 4), torch.arange(64) % 5
CRITERION = nn.CrossEntropyLoss()


def private(mode="hooks", sigma=1.0, **more):
    """Model, optimiser and criterion, as an engine makes them."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    ghost = {"criterion": CRITERION, "grad_sample_mode": "ghost"} if mode == "ghost" else {}
    model, optimizer, *criterion, _ = PrivacyEngine().make_private(
        module=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        data_loader=DataLoader(TensorDataset(IMAGES, LABELS), batch_size=8),
        noise_multiplier=sigma,
        max_grad_norm=1.0,
        **ghost,
        **more,
    )
    return model, optimizer, *(criterion or [CRITERION])


def step(model, optimizer, criterion):
    criterion(bare(model)(IMAGES[:5]), LABELS[:5]).backward()
    optimizer.step()


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
@pytest.mark.parametrize("scheduler", [ExponentialNoise, ExponentialGradClip])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_a_release_that_is_read_after_the_scheduler_has_another_noise_than_the_step(mode, scheduler, gamma):
    model, optimizer, criterion = private(mode)
    change = scheduler(optimizer, gamma=gamma)
    step(model, optimizer, criterion)
    change.step()
    with pytest.raises(InputError, match=r"added .* times the noise|clips to"):
        Release.from_optimizer(optimizer, model)


def test_of_several_processes_the_accountant_shows_that_the_scheduler_came_first():
    """The noise of the step cannot be measured there."""
    model, optimizer, criterion = private()
    step(model, optimizer, criterion)
    optimizer.world_size = 2
    assert Release.from_optimizer(optimizer, model).defense[0].parameters["noise_multiplier"] == 1.0
    optimizer.noise_multiplier = 4.0
    with pytest.raises(InputError, match="counted the step with sigma 1, and the optimiser has 4 now"):
        Release.from_optimizer(optimizer, model)


@pytest.mark.parametrize("sigma", [1e-6, 1e-3, 1.0, 100.0])
@pytest.mark.parametrize("mode", ["hooks", "ghost"])
def test_noise_of_any_size_is_that_of_the_step(mode, sigma):
    model, optimizer, criterion = private(mode, sigma)
    step(model, optimizer, criterion)
    assert Release.from_optimizer(optimizer, model).defense[0].parameters["noise_multiplier"] == sigma


def test_correct_steps_are_not_refused():
    torch.manual_seed(0)
    model = GradSampleModule(nn.Sequential(nn.Flatten(), nn.Linear(48, 1, bias=False)))
    sgd = torch.optim.SGD(model.parameters(), lr=0.0)
    optimizer = DPOptimizer(sgd, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=5)
    for _ in range(300):
        optimizer.zero_grad()
        model(IMAGES[:5]).mean().backward()
        optimizer.step()
        Release.from_optimizer(optimizer, model)


@pytest.mark.parametrize("wrapped", [True, False])
def test_ghost_clipping_goes_on_with_the_old_norm(wrapped):
    """The scheduler changes the noise only, and samples still move the sum by up to 1."""
    torch.manual_seed(0)
    model, optimizer, criterion = private("ghost", wrap_model=wrapped)
    change = ExponentialGradClip(optimizer, gamma=0.01)
    change.step()
    optimizer.noise_multiplier = 1e-9
    with pytest.raises(InputError, match=r"clips to 1 .* for 0\.01"), dpbench.capture(model, optimizer):
        step(model, optimizer, criterion)
    gradient = torch.cat([p.summed_grad.flatten() for p in optimizer.params])
    assert gradient.norm() > 0.05  # more than 5 samples clipped to 0.01 make
    with pytest.raises(InputError, match="give the `model`"):
        Release.from_optimizer(optimizer)


def test_plain_clipping_follows_the_scheduler():
    model, optimizer, criterion = private()
    change = ExponentialGradClip(optimizer, gamma=0.5)
    change.step()
    with dpbench.capture(model, optimizer) as found:
        step(model, optimizer, criterion)
    assert found.release.defense[0].parameters["max_grad_norm"] == 0.5


def test_a_norm_that_falls_within_a_batch_leaves_too_little_noise():
    """The first part was clipped to 1, and the noise is for 0.01; the step looked like any other."""
    model, optimizer, criterion = private()
    change = ExponentialGradClip(optimizer, gamma=0.01)

    def batch():
        for last in (False, True):
            optimizer.signal_skip_step(not last)
            step(model, optimizer, criterion)
            optimizer.zero_grad()
            change.step()

    said = r"became 0\.01 inside the block, and was 1 before"
    with pytest.raises(InputError, match=said), dpbench.capture(model, optimizer):
        batch()
    gradient = torch.cat([p.summed_grad.flatten() for p in optimizer.params])
    assert gradient.norm() > 0.1  # more than 10 samples clipped to 0.01 make


def test_a_norm_that_changes_between_the_steps_of_a_block_is_read():
    model, optimizer, criterion = private()
    change = ExponentialGradClip(optimizer, gamma=0.5)
    with dpbench.capture(model, optimizer) as found:
        for _ in range(2):
            step(model, optimizer, criterion)
            optimizer.zero_grad()
            change.step()
    assert [release.defense[0].parameters["max_grad_norm"] for _, release in found.steps] == [1.0, 0.5]


def test_a_training_that_has_made_more_steps_than_its_epochs_has_spent_more():
    model, optimizer, criterion = private()
    for _ in range(9):  # an epoch has 8
        with dpbench.capture(model, optimizer) as found:
            step(model, optimizer, criterion)
        optimizer.zero_grad()
    given = {"model": found.model, "originals": (IMAGES[:5], LABELS[:5]), "attacks": "label-restoration"}
    given |= {"train_size": 64, "delta": 1e-3, "progress": False}
    with pytest.raises(InputError, match=r"counted 9 steps .* makes 8"):
        dpbench.attack(found.release, epochs=1, **given)
    table = dpbench.attack(found.release, epochs=1.125, **given)
    assert set(table["steps"].dropna()) == {9}
