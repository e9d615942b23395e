"""A disk that is really full, and a folder that really cannot be written: nothing lost, one sentence."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dpbench.run import main
from dpbench.store import Store
from tests.helpers.sixty import SIXTY, check

pytestmark = pytest.mark.usefixtures("bare_exports")


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of its own, of 500 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def test_full(undisturbed, disk, capsys):
    folder = disk / "run"
    assert main([*SIXTY, "--out", str(folder), "--quiet"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("The disk is full: ")
    assert "give the same command again" in said[0]
    kept = Store(folder).done()
    assert 0 < len(kept) < 60
    remount(disk, "size=20m")
    assert main([*SIXTY, "--out", str(folder), "--quiet"]) == 0
    check(folder, undisturbed)


def test_read_only(undisturbed, disk, capsys):
    remount(disk, "size=20m")
    folder = disk / "run"
    assert main([*SIXTY[:-4], "--out", str(folder), "--device", "cpu", "--dry-run", "--quiet"]) == 0
    capsys.readouterr()
    remount(disk, "ro")
    assert main([*SIXTY, "--out", str(folder), "--quiet"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("Cannot write ")
    assert "name a folder that you may write to" in said
    assert "\n" not in said
