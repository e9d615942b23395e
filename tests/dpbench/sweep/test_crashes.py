"""kill -9 of whatever runs a sweep: once resumed, every cell is there once and whole, the table the same."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time

import pytest

from dpbench.run import main
from dpbench.store import Store
from dpbench.sweep.status import describe
from tests.helpers.kills import wait_for_the_end_of, with_kills
from tests.helpers.sixty import SIXTY, check

pytestmark = pytest.mark.usefixtures("bare_exports")


@pytest.mark.parametrize("moments", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_workers(undisturbed, tmp_path, moments):
    words = [*SIXTY, "--executor", "workers", "--workers", "2"]
    assert with_kills(words, tmp_path / "run", moments, seed=moments) == moments
    check(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("moments", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_driver(undisturbed, tmp_path, moments):
    words = [sys.executable, "-m", "dpbench.run", *SIXTY, "--quiet"]
    words += ["--executor", "workers", "--workers", "2"]
    generator = random.Random(moments)
    for moment in range(moments):
        folder = tmp_path / str(moment)
        driver = subprocess.Popen([*words, "--out", str(folder)])
        enough = generator.randrange(55)
        while len(list(folder.glob("cells/*.safetensors"))) < enough and driver.poll() is None:
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.05))
        driver.kill()
        assert driver.wait() == -signal.SIGKILL
        said = describe(folder)
        assert " 0 running" in said, said  # the kernel has let go of what it had in hand
        logs = [log.read_text() for log in folder.glob("logs/*.log")]
        for worker in {int(pid) for log in logs for pid in re.findall(r"process (\d+):", log)}:
            wait_for_the_end_of(worker)  # nobody goes on in the dead one's name
        assert main(["--resume", "--out", str(folder), "--quiet"]) == 0
        check(folder, undisturbed)


def test_sigterm_ends_in_order(instant, tmp_path):
    folder = tmp_path / "run"
    words = [*SIXTY, "--executor", "workers", "--out", str(folder)]
    driver = subprocess.Popen(
        [sys.executable, "-m", "dpbench.run", *words], stderr=subprocess.PIPE, text=True
    )
    while len(list(folder.glob("cells/*.safetensors"))) < 5:
        assert driver.poll() is None
        time.sleep(0.01)
    driver.send_signal(signal.SIGTERM)
    said = driver.communicate()[1].splitlines()[-1]
    assert driver.returncode == 130
    kept = len(Store(folder).done())
    assert said.startswith(f"Interrupted: {kept} of 60 cells kept in {folder}; go on with: python -m")
    assert not (folder / "running").exists()
    assert f"{60 - kept} left" in describe(folder)


def test_a_second_signal_ends_at_once(instant, tmp_path):
    script = """
import os, signal, sys, time
from dpbench.system import interrupts
with interrupts.in_order():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except KeyboardInterrupt:
        print("stopping", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (130, "stopping\n")


def test_handlers_are_put_back():
    from dpbench.system import interrupts

    before = signal.getsignal(signal.SIGTERM)
    with interrupts.in_order():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_during_imports_leaves_no_traceback(tmp_path):
    """A package of that name stands in for PyTorch, which takes seconds to import."""
    (tmp_path / "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from dpbench.run import main; sys.exit(main([]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "Interrupted before anything was run.\n")
