"""What is said while models are trained."""

import io
import re

import pytest
from rich.console import Console

from dpbench.accuracy import data, progress
from dpbench.accuracy.networks import MODELS
from dpbench.accuracy.progress import Display
from dpbench.accuracy.setting import settings
from dpbench.accuracy.trial import Trial
from dpbench.privacy import epsilon
from dpbench.privacy.rounding import up_places


@pytest.fixture
def trial(train, test):
    recipe = {"train_size": (320,), "train_batch_size": (32,), "epochs": (2.0,)}
    budget = {"delta": (1e-3,), "eps": (4.0,), "accountant": ("rdp",)}
    _, private = settings(["dp"], recipe | budget)
    return Trial(MODELS["convnet-tanh"], private, 0, data.checked(train, test), "cpu")


def test_epsilon_spent_so_far_and_the_time_left(trial, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    said = io.StringIO()
    with Display([trial, trial], Console(file=said, width=200)) as display:
        for done in range(1, 13):
            now[0] += 30
            display.step(trial, done)
    sigma = trial.setting.guarantee.noise_multiplier
    spent = epsilon(sigma, 1e-3, 0.1, 12, "rdp")
    last = said.getvalue().splitlines()[-1]
    assert last.startswith("convnet-tanh under dp")
    assert (
        f"step 12/20, ε {up_places(spent, 2)} of 4.00 spent; 0/2 trainings, about 14.0 minutes left" in last
    )


def test_features_do_not_count_for_the_time_that_trainings_take(trial, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    said = io.StringIO()
    with Display([trial], Console(file=said, width=200)) as display:
        now[0] += 3600
        display.features("scattering-linear", 5000, 50_000)
        now[0] += 30
        display.step(trial, 10)
    first, last = said.getvalue().splitlines()
    assert first == "scattering-linear: features of 5000/50000 images"
    assert re.search("about 30 s left", last)


def test_quiet_says_nothing(trial):
    said = io.StringIO()
    with Display([trial], Console(file=said, width=200), quiet=True) as display:
        display.step(trial, 20)
        display.finished(trial, {"accuracy": 0.5, "seconds": 1.0})
    assert said.getvalue() == ""
