"""Whatever a user gives as a path: one sentence, no traceback, and nobody waits for a pipe."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

import dpbench
from dpbench.protocol import InputError
from dpbench.run import main
from dpbench.system.paths import absolute, expanded, kind_of, listed, open_file, read_toml

QUICK = ["--defense", "none", "--batch-size", "1", "--dry-run"]
LONG = "a" * 256


@pytest.fixture
def odd(tmp_path) -> dict[str, str]:
    """Paths that are no run's folder and no file of options."""
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "piped").mkdir()
    os.mkfifo(tmp_path / "piped" / "config.toml")
    return {
        "no user": "~nosuchuser/x.py",
        "long": f"./{LONG}.py",
        "deep": "/" + "a/" * 3000 + "x.py",
        "zero": "./a\0b.py",
        "other encoding": os.fsdecode(bytes(tmp_path) + b"/caf\xe9.py"),
        "pipe": f"{tmp_path}/pipe.py",
        "below a file": f"{tmp_path}/file/x.py",
        "folder": f"{tmp_path}/folder.py",
        "pipe within": f"{tmp_path}/piped",
        "empty": "",
        "escapes": f"{tmp_path}/\x1b[31mred.py",
    }


@pytest.mark.parametrize("option", ["--status", "--resume --out", "--suite", "--plugin"])
def test_a_path_that_cannot_be_used_is_one_sentence(odd, option, capfd):
    for name, path in odd.items():
        if option == "--plugin" and not path.endswith(".py"):
            continue  # a module's name
        assert main([*option.split(), path, *(QUICK if option == "--plugin" else [])]) == 2, name
        out, error = capfd.readouterr()
        assert out == "", name
        assert error.endswith(".\n"), name
        assert len(error.splitlines()) == 1, name
        assert "\x1b" not in error, name
        assert "Error" not in error, name


def test_loading_what_is_no_run_is_one_sentence(odd):
    for name, path in odd.items():
        with pytest.raises(InputError, match=r"^[^\n]*\.$"):
            pytest.fail(f"{name}: {dpbench.load(path)}")


def test_a_folder_for_results_that_cannot_be(odd, capfd):
    for name in ("no user", "long", "deep", "zero", "pipe", "below a file", "pipe within", "empty"):
        assert main(["--out", odd[name], *QUICK[:-1], "--iterations", "1", "--quiet"]) == 2, name
        error = capfd.readouterr().err
        assert len(error.strip().splitlines()) == 1, (name, error)


def test_a_folder_for_ones_own_run_that_cannot_be(odd):
    from dpbench.victim.networks import build

    model, images = build("lenet", num_classes=5, size=16), torch.rand(1, 3, 16, 16)
    for name in ("no user", "long", "zero", "pipe", "below a file", "empty"):
        with pytest.raises(InputError, match=r"^[^\n]*\.$"):
            dpbench.benchmark(
                model, images, torch.tensor([3]), out=odd[name], iterations=1, progress=False, device="cpu"
            )


def test_no_home(monkeypatch):
    def gone(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", gone)
    with pytest.raises(InputError, match="give the path in full"):
        expanded("~/x")


def test_the_current_folder_is_gone(monkeypatch):
    def gone():
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", gone)
    with pytest.raises(InputError, match="current folder is gone"):
        absolute("x")
    assert absolute("/x") == Path("/x")


@pytest.mark.parametrize(
    ("call", "use"), [("stat", kind_of), ("listdir", listed), ("open", open_file), ("open", read_toml)]
)
def test_what_is_closed_to_us_is_neither_missing_nor_empty(tmp_path, monkeypatch, call, use):
    def closed(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, call, closed)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
        use(tmp_path / "x")


def test_kinds(tmp_path, odd):
    assert [kind_of(tmp_path / name) for name in ("file", "folder.py", "pipe.py", "none", "file/x")] == [
        "file",
        "folder",
        "other",
        None,
        None,
    ]
    assert listed(tmp_path / "none") == []
    with pytest.raises(InputError, match="file where a folder belongs"):
        listed(tmp_path / "file")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a=" + b"[" * 100_000, "is damaged, or no TOML"),
        (b"a=" + b"9" * 5000, "is damaged, or no TOML"),
        (b"\xff", "is damaged, or no TOML"),
        (b"a = ", "is damaged, or no TOML"),
        (b"#" * 1_000_001, "is larger than 1000000 bytes"),
    ],
)
def test_toml_of_any_kind(tmp_path, content, said):
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_toml(tmp_path / "x.toml")


def test_toml_written_on_windows(tmp_path):
    """A mark at the beginning and carriage returns at the ends of lines."""
    (tmp_path / "x.toml").write_bytes(b'\xef\xbb\xbfdata = "samples"\r\neps = [1.0]\r\n')
    assert read_toml(tmp_path / "x.toml") == {"data": "samples", "eps": [1.0]}


@pytest.mark.parametrize("path", [None, 3, b"folder", ["a", "b"]])
def test_what_is_no_path_is_said(path):
    with pytest.raises(InputError, match=r"^A path must be text or a Path, not .*\.$"):
        dpbench.load(path)
