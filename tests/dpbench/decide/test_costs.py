"""The second process of `decide --run`, which trains beside the frontier."""

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dpbench.accuracy import command
from dpbench.decide import costs
from dpbench.decide.choices import Training, choices
from tests.helpers import trainings

ROOT = Path(__file__).parents[3]
TRAINING = Training(train_size=60, train_batch_size=20, epochs=1, delta=1e-3)
GIVEN = TRAINING, choices(TRAINING, eps=[1]), (1,), "cpu"


def until(condition):
    """Waits for what another process does."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_trains_what_is_asked_for_and_is_killed_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setenv("DPBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(costs, "_backwards", trainings.trained)
    for module, name in ((costs, "cifar10"), (command, "cifar10"), (command, "MODELS"), (command, "SEEDS")):
        monkeypatch.setattr(module, name, getattr(module, name))  # what `tiny` sets is taken back
    trainings.tiny()
    planned = costs.planned(*GIVEN)
    assert len(planned) == 4  # two seeds without a defence, and two with the noise
    with costs.beside(*GIVEN):
        (other,) = multiprocessing.active_children()
        until(lambda: all(trial.kept() for trial in planned))
        assert other.is_alive()
    assert other.exitcode == -signal.SIGKILL
    assert all(trial.kept()["accuracy"] >= 0 for trial in planned)


PARENT = """
import signal
from dpbench.decide import costs
from dpbench.decide.choices import Training, choices
from tests.helpers import trainings
costs._backwards = trainings.endless
training = Training(train_size=60, train_batch_size=20, epochs=1, delta=1e-3)
with costs.beside(training, choices(training, eps=[1]), (1,), "cpu"):
    signal.pause()
"""


def test_it_ends_with_its_parent_even_if_that_is_killed(tmp_path):
    lock = tmp_path / "lock"
    environment = os.environ | {"LOCK": str(lock), "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], env=environment, cwd=ROOT)
    until(lambda: parent.poll() is None and lock.exists() and not free(lock))
    parent.kill()
    parent.wait()
    until(lambda: free(lock))


def free(lock):
    """Whether nobody holds the file: a process that ended does not, whoever collects it."""
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
