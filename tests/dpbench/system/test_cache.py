from __future__ import annotations

import errno
import json
import os

import pytest

from dpbench.protocol import InputError
from dpbench.system import cache


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DPBENCH_CACHE", str(tmp_path))
    return tmp_path / "privacy"


def test_a_result_is_computed_once(folder):
    answers = iter([1.5, 2.5, 3.5])
    assert [cache.remember("kind", {"a": 1.0}, lambda: next(answers)) for _ in range(2)] == [1.5, 1.5]
    assert cache.remember("kind", {"a": 2.0}, lambda: next(answers)) == 2.5
    assert cache.remember("other", {"a": 1.0}, lambda: next(answers)) == 3.5
    assert len(list(folder.iterdir())) == 3


def test_infinity_is_remembered():
    assert cache.remember("kind", {}, lambda: float("inf")) == float("inf")
    assert cache.remember("kind", {}, lambda: 1.0) == float("inf")


@pytest.mark.parametrize("value", [None, "1.0", True, [1.0], float("nan")])
def test_an_entry_that_is_no_number_is_computed_again(folder, value):
    cache.remember("kind", {}, lambda: 1.5)
    (entry,) = folder.iterdir()
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {"value": value}))
    assert cache.remember("kind", {}, lambda: 2.5) == 2.5


def test_results_of_other_code_or_libraries_are_not_used(monkeypatch):
    """A cache of a wrong version kept its sigmas."""
    cache.remember("kind", {}, lambda: 1.5)
    monkeypatch.setattr(cache, "_code", lambda: "another")
    assert cache.remember("kind", {}, lambda: 2.5) == 2.5


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_nothing_behind(folder, monkeypatch, failing):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    if failing == "write":
        monkeypatch.setattr("pathlib.Path.write_text", full)
    else:
        monkeypatch.setattr(os, failing, full)
    assert cache.remember("kind", {}, lambda: 1.5) == 1.5
    assert list(folder.iterdir()) == []


def test_a_place_that_cannot_be_written_or_found_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DPBENCH_CACHE", str(tmp_path / "file"))
    assert cache.remember("kind", {}, lambda: 1.5) == 1.5
    monkeypatch.delenv("DPBENCH_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", homeless)
    assert cache.remember("kind", {}, lambda: 2.5) == 2.5
    with pytest.raises(InputError, match="set DPBENCH_CACHE"):  # of what must be kept, as accuracies
        cache.folder()


CODE = '''
"""Docstring."""
LIMIT = 3
"""What it limits."""

def double(x):
    """Twice x."""
    return 2 * x
'''


@pytest.mark.parametrize(
    ("edited", "same"),
    [
        (CODE.replace("Twice x.", "Two times x."), True),
        (CODE.replace("What it limits.", "Limit."), True),
        (CODE + "\n# a comment\n", True),
        (CODE.replace("2 * x", "2*x"), True),
        (CODE.replace("2 * x", "3 * x"), False),
        (CODE.replace("LIMIT = 3", "LIMIT = 4"), False),
        (CODE.replace("double", "twice"), False),
    ],
)
def test_the_hash_of_code_is_of_what_it_does(tmp_path, edited, same):
    found = []
    for name, text in (("before", CODE), ("after", edited)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.py").write_text(text)
        found.append(cache.code_hash(tmp_path / name))
    assert (found[0] == found[1]) == same
