"""Fetching that is interrupted leaves no client, no folder, nothing half-written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dpbench.assets.working import LOCK, PREFIX, working_folder
from dpbench.system import locks, supervised

PROGRAM = """
import sys
from dpbench.assets import __main__, clients
clients.sys.executable = sys.argv[1]  # in place of the pip of this Python
clients.CLIENTS["torchvision"] = lambda *_: (_ for _ in ()).throw(clients.SourceFailed("not here"))
sys.exit(__main__.main(["fetch", "lpips-alex"]))
"""
CLIENT = """#!/bin/sh
# stands in for pip: answers the first question, then downloads for ever with the help of another process
case "$*" in *index*) exit 0;; esac
mkfifo never
(exec 3>&-; read line < never) &
echo $$ $! > {pids}.new
mv {pids}.new {pids}
wait
"""


def alive(pid):
    """Whether the process runs; a zombie that nobody has collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition):
    """Looks again until it holds; the test's own time limit ends a wait in vain."""
    pause = subprocess.run
    for _ in range(300):
        if condition():
            return True
        pause(["sleep", "0.1"], check=True)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_killed_fetch_leaves_neither_client_nor_folder(tmp_path, number):
    pids, fake, home = tmp_path / "pids", tmp_path / "python", tmp_path / "assets"
    fake.write_text(CLIENT.format(pids=pids))
    fake.chmod(0o755)
    environment = {**os.environ, "DPBENCH_ASSETS": str(home)}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(fake)], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert wait_for(pids.exists), "the client was never started"
        assert any(entry.name.startswith(PREFIX) for entry in home.iterdir())
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    if number != signal.SIGKILL:
        assert said.splitlines()[-1] == "Interrupted; what was fetched before is kept."
    assert wait_for(lambda: not any(map(alive, pids.read_text().split()))), "a client still runs"
    assert wait_for(lambda: not list(home.iterdir())), "a folder is left"


HANGS = """
import pathlib, sys, threading
from dpbench.assets import __main__, clients
def hangs(source, work, line):
    (work / "part").write_bytes(b"x" * 1000)
    pathlib.Path(sys.argv[1]).touch()
    threading.Event().wait()
clients.CLIENTS["torchvision"] = hangs
clients._address = lambda item: ""
sys.exit(__main__.main(["fetch", "lpips-alex"]))
"""


def test_a_kill_during_a_plain_download_leaves_no_folder(tmp_path):
    home, begun = tmp_path / "assets", tmp_path / "begun"
    environment = {**os.environ, "DPBENCH_ASSETS": str(home)}
    process = subprocess.Popen([sys.executable, "-c", HANGS, str(begun)], env=environment)
    try:
        assert wait_for(begun.exists), "the download never began"
        assert list(home.iterdir())
    finally:
        process.kill()
        process.wait()
    assert wait_for(lambda: not list(home.iterdir())), "a folder is left"


def test_a_supervised_command_gives_its_status_and_output(tmp_path):
    def run(asker, *command):
        script = [sys.executable, "-I", supervised.__file__, str(asker), str(tmp_path / "work")]
        return subprocess.run([*script, *command], capture_output=True, text=True)

    (tmp_path / "work").mkdir()
    done = run(os.getpid(), "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert (tmp_path / "work").exists()
    assert run(1, "cat", "/dev/zero").returncode == 1  # another process asked, and it is not our parent
    assert not (tmp_path / "work").exists()


def test_folders_that_killed_processes_left_are_removed(tmp_path):
    left, busy, young = (tmp_path / f"{PREFIX}{name}" for name in ("left", "busy", "young"))
    for folder in (left, busy, young):
        (folder / "work").mkdir(parents=True)
    for folder in (left, busy):
        (folder / LOCK).touch()
    (tmp_path / "toy.safetensors").touch()
    descriptor = os.open(busy / LOCK, os.O_RDWR)
    try:
        assert locks.lock(descriptor)
        with working_folder(tmp_path) as work:
            assert list(work.iterdir()) == []
            names = {entry.name for entry in tmp_path.iterdir()}
            assert names == {busy.name, young.name, "toy.safetensors", work.parent.name}
            with working_folder(tmp_path) as other:  # side by side
                assert work.exists()
                assert other != work
        assert not work.parent.exists()
        os.utime(young, (0, 0))
        with working_folder(tmp_path):
            assert not young.exists()
            assert busy.exists()
    finally:
        os.close(descriptor)
