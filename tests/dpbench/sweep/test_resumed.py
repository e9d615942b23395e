"""Runs taken up again after files that they name have moved, or from another folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import dpbench
from dpbench.run import main
from dpbench.system.paths import read_toml
from dpbench.victim.networks import build
from tests.helpers.registries import as_in_a_new_process

PLUGIN = """
from defenses import PostProcessor, defense

@defense("mauve-half")
class Half(PostProcessor):
    def process(self, gradients, generator):
        return tuple(g / 2 for g in gradients)
"""
SMALL = ["--attack", "idlg", "--iterations", "1", "--batch-size", "1"]

pytestmark = pytest.mark.usefixtures("bare_exports")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder that a run was started from, with a plug-in named by a relative path; it is in `out`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mineplugin.py").write_text(PLUGIN)
    assert start("mineplugin.py") == 0
    return tmp_path


def call(*words: str) -> int:
    with as_in_a_new_process():
        return main([*words, "--quiet"])


def start(plugin: str) -> int:
    return call("--plugin", plugin, "--defense", "mauve-half", *SMALL, "--out", "out")


def cells(home: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (home / "out" / "cells").iterdir()}


def test_from_another_folder_the_sentence_says_where_to_go(home, monkeypatch, capsys):
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    assert call("--resume", "--out", "../out") == 2
    said = capsys.readouterr().err.strip()
    assert said == (
        "../out/config.toml names the plug-in mineplugin.py, and there is no such file in "
        f"{Path.cwd()}: give "
        "its new place with --plugin, or go to the folder that the run was started from."
    )
    before = cells(home)
    assert call("--resume", "--out", "../out", "--plugin", "../mineplugin.py") == 0
    assert cells(home) == before


def test_a_plugin_that_has_moved_is_given_once(home):
    before = cells(home)
    (home / "parts").mkdir()
    (home / "mineplugin.py").rename(home / "parts" / "mineplugin.py")
    assert call("--resume", "--out", "out") == 2
    assert call("--resume", "--out", "out", "--plugin", "parts/mineplugin.py") == 0
    assert read_toml(home / "out" / "config.toml")["plugin"] == ["parts/mineplugin.py"]
    assert call("--resume", "--out", "out") == 0
    assert cells(home) == before


def test_the_same_command_with_the_new_name_goes_on_in_the_same_folder(home):
    before = cells(home)
    (home / "mineplugin.py").rename(home / "minehalf.py")
    assert start("minehalf.py") == 0
    assert read_toml(home / "out" / "config.toml")["plugin"] == ["minehalf.py"]
    assert cells(home) == before
    (home / "minehalf.py").rename(home / "mine2.py")
    assert call("--resume", "--out", "out", "--plugin", "mine2.py") == 0
    assert cells(home) == before


def test_another_plugin_beside_the_first_is_another_configuration(home, capsys):
    (home / "mineother.py").write_text(PLUGIN.replace("/ 2", "/ 3"))
    assert start("mineother.py") == 2
    assert (
        "holds a run of another configuration (plugin is ['mineplugin.py'] there" in capsys.readouterr().err
    )
    assert read_toml(home / "out" / "config.toml")["plugin"] == ["mineplugin.py"]


def test_images_and_a_model_that_are_not_here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for shade in range(3):
            Image.new("RGB", (8, 8), (80 * shade,) * 3).save(tmp_path / "pictures" / name / f"{shade}.png")
    (tmp_path / "minenet.py").write_text(
        "from torch import nn\n\n"
        "def make(num_classes, size):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, num_classes))\n"
    )
    words = [
        "--data",
        "folder:pictures",
        "--image-size",
        "8",
        "--model",
        "minenet.py:make",
        "--defense",
        "none",
    ]
    assert call(*words, *SMALL, "--out", "out") == 0
    (tmp_path / "pictures").rename(tmp_path / "photos")
    assert call("--resume", "--out", "out") == 2
    assert "names pictures for --data, and there is nothing of that name in" in capsys.readouterr().err
    (tmp_path / "minenet.py").unlink()
    assert call("--resume", "--out", "out") == 2
    assert "names minenet.py for --model" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--resume", "--out", "out"], ["--suite", "out/config.toml"]])
def test_a_run_from_python_is_no_run_of_options(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = {"iterations": 1, "device": "cpu", "progress": False, "out": "out"}
    dpbench.benchmark(build("lenet", 5, size=16), torch.rand(1, 3, 16, 16), torch.tensor([3]), **given)
    assert call(*words) == 2
    said = "out/config.toml is of a run that was made in Python: repeat its call, with the same "
    assert said in capsys.readouterr().err


def test_a_dry_run_of_a_part_that_breaks_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mineplugin.py").write_text(PLUGIN.replace("return", "raise KeyError('no')\n        return"))
    assert call("--plugin", "mineplugin.py", "--defense", "mauve-half", *SMALL, "--dry-run") == 2
    assert "on mauve-half fails (KeyError: 'no'): run it, and its log has the" in capsys.readouterr().err
