"""What is no number, or none in range, is refused in one sentence wherever Python takes one."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import dpbench
from dpbench import privacy
from dpbench.privacy.targets import noise_for_advantage, noise_for_bound
from dpbench.protocol import InputError, Release

NO_NUMBERS = [True, "", "2", None, [1]]
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
IMAGES, LABELS = torch.rand(4, 3, 4, 4), torch.tensor([0, 1, 2, 0])
QUESTIONS = {
    "`eps`": lambda value: privacy.noise_multiplier(value, 1e-5),
    "`delta`": lambda value: privacy.noise_multiplier(1.0, value),
    "The sample rate": lambda value: privacy.noise_multiplier(1.0, 1e-5, value, 10),
    "The number of steps": lambda value: privacy.noise_multiplier(1.0, 1e-5, 0.1, value),
    "`noise_multiplier`": lambda value: privacy.epsilon(value, 1e-5),
    "The prior success kappa": lambda value: privacy.reconstruction_bound(1.0, kappa=value),
    "`target_bound`": lambda value: noise_for_bound(value, 0.1),
    "`kappa`": lambda value: noise_for_bound(0.5, value),
    "`target_advantage`": noise_for_advantage,
}


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_about_privacy(name, value):
    with pytest.raises(InputError) as error:
        QUESTIONS[name](value)
    assert str(error.value) == f"{name} must be a number, not {value!r}."


@pytest.mark.parametrize("value", [True, float("nan"), -1, 0, "", "2", 2.5])
def test_sizes_of_batches(value):
    optimizer = torch.optim.SGD(MODEL.parameters(), lr=0.1)
    with pytest.raises(InputError, match="`batch_size` must be 1 or more, a whole number, not"):
        Release.from_gradients(MODEL, batch_size=value)
    with (
        pytest.raises(InputError, match="`batch_size` must be 1 or more, a whole number, not"),
        dpbench.capture(MODEL, optimizer, batch_size=value),
    ):
        raise AssertionError("the block is entered")
    with pytest.raises(InputError, match="`batch_size` must be "):
        dpbench.benchmark(MODEL, TensorDataset(IMAGES, LABELS), batch_size=value, progress=False)


@pytest.mark.parametrize("value", [True, float("nan"), -1, 0, ""])
def test_the_learning_rate_of_an_update(value):
    with pytest.raises(InputError, match="`lr` must be a number above 0, not"):
        Release.from_update(MODEL, MODEL, lr=value, local_steps=1, batch_size=2, images=2)


@pytest.mark.parametrize("value", [True, float("nan"), -1, "", 0.5])
def test_which_batch_of_a_data_set(value):
    with pytest.raises(InputError, match="`batch_seed` must be "):
        dpbench.benchmark(
            MODEL, TensorDataset(IMAGES, LABELS), batch_size=2, batch_seed=value, progress=False
        )


def test_a_batch_seed_beside_a_batch():
    """It was left aside without a word."""
    with pytest.raises(InputError, match="`batch_seed` is for a data set"):
        dpbench.benchmark(MODEL, IMAGES, LABELS, batch_seed=3, progress=False)


def test_the_error_has_a_name_in_dpbench():
    assert dpbench.InputError is InputError
