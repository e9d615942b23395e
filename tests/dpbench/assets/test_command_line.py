"""python -m dpbench.assets."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dpbench import assets
from dpbench.assets import cache, clients
from dpbench.assets.__main__ import main
from dpbench.assets.records import Asset, Source
from tests.helpers.assets import SHA256, convert, damage_bit


def test_list_shows_what_is_here(home, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assets.path("toy")
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in ("lpips-alex", "lpips-vgg", "cifar10", "resnet50-imagenet", "toy"):
        assert name in text
    assert text.count(" no ") == 4
    assert " 0 MB " in text


def test_fetch_and_verify(home, capsys):
    assert main(["fetch", "toy"]) == 0
    assert main(["verify"]) == 0
    out = capsys.readouterr().out
    assert "toy: good" in out
    assert "cifar10: not on this machine" in out
    damage_bit(cache.location("toy"))
    assert main(["verify"]) == 2
    assert "assets fetch toy" in capsys.readouterr().err
    assert main(["fetch", "toy"]) == 0
    assert main(["verify"]) == 0


def test_fetch_goes_on_after_a_failure(home, capsys, monkeypatch):
    lost = Asset("lost", "", "", (Source("dead", "a", SHA256, 10, convert),))
    monkeypatch.setitem(assets.ASSETS, "lost", lost)
    assert main(["fetch", "lost", "toy"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "lost is not on this machine" in captured.err
    assert "toy: " in captured.out


@pytest.mark.parametrize(
    ("arguments", "text"), [(["fetch"], "Name at least one"), (["fetch", "x"], "Unknown asset 'x'")]
)
def test_names_are_needed_and_known(home, capsys, arguments, text):
    assert main(arguments) == 2
    assert text in capsys.readouterr().err


def test_export_in_half_precision_keeps_statistics_and_verifies_elsewhere(
    home, tmp_path, capsys, monkeypatch
):
    assets.path("toy")
    away = tmp_path / "away"
    assert main(["export", "--half", str(away)]) == 0
    assert "cifar10: not on this machine, left out" in capsys.readouterr().out
    monkeypatch.setenv("DPBENCH_ASSETS", str(away))
    monkeypatch.setattr(clients, "CLIENTS", {})  # no network over there
    tensors = load_file(assets.path("toy"))
    assert tensors["layer.weight"].dtype == torch.float16
    assert tensors["layer.running_var"].dtype == torch.float32
    assert tensors["layer.running_var"].isfinite().all()  # 1e6 would be infinite in half precision
    assert cache.facts(assets.path("toy"))["half"] is True


def test_export_in_full(home, tmp_path):
    original = assets.path("toy")
    assert main(["export", str(tmp_path / "away"), "--names", "toy"]) == 0
    assert cache.digest(load_file(tmp_path / "away" / "toy.safetensors")) == cache.digest(load_file(original))


def test_export_never_overwrites_the_cache(home, tmp_path, capsys):
    file = assets.path("toy")
    before = file.read_bytes()
    assert main(["export", "--half", str(tmp_path / "assets" / ".." / "assets")]) == 2
    assert "export to another folder" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_export_to_where_nothing_can_be_written(home, tmp_path, capsys):
    assets.path("toy")
    (tmp_path / "file").write_text("")
    assert main(["export", str(tmp_path / "file")]) == 2
    assert "Cannot write to" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_export_to_a_full_disk(home, tmp_path, capsys, monkeypatch):
    assets.path("toy")
    (tmp_path / "there").mkdir()

    def full(*_, **__):
        (tmp_path / "there" / "file").symlink_to("/dev/full")
        return os.open("/dev/null", os.O_RDONLY), str(tmp_path / "there" / "file")

    monkeypatch.setattr("tempfile.mkstemp", full)
    assert main(["export", str(tmp_path / "there")]) == 2
    assert "Cannot write to" in capsys.readouterr().err
