"""What runs in the second process of `decide --run` in tests: each is called as `costs._backwards` is."""

import fcntl
import os
import signal
from pathlib import Path

import torch

from dpbench.accuracy import command
from dpbench.accuracy.networks import MODELS
from dpbench.decide import costs


def tiny() -> None:
    """CIFAR-10 with 60 images of 8 pixels a side, and a model that is trained in milliseconds."""
    images = torch.randint(
        0, 256, (60, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    for module in (costs, command):
        module.cifar10 = lambda split: (images, torch.arange(60) % 2)
    command.MODELS = {"convnet-tanh": MODELS["convnet-tanh"]}
    command.SEEDS = (0, 1)


def trained(*given) -> None:
    """Does the trainings, tiny ones, and then waits."""
    tiny()
    costs._backwards(*given)
    signal.pause()


def endless(*given) -> None:
    """Trains for ever, and holds the file `LOCK` of its environment meanwhile."""
    costs.planned = lambda *given: []
    costs.session.table_of = lambda *given: signal.pause()
    with Path(os.environ["LOCK"]).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        costs._backwards(*given)
