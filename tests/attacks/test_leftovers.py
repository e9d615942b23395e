"""A compiler that was killed left half a library behind: it is removed, not loaded."""

import os
import sys
from pathlib import Path

import numpy

from attacks.engine import leftovers


def libraries(folder):
    """A whole library, and what a killed compiler may leave of it: all of them old, and a fresh one."""
    whole = next(Path(numpy.__file__).parent.rglob("*.so")).read_bytes()
    left = {"whole": whole, "cut": whole[:-1], "start": whole[:40], "empty": b"", "blank": bytes(len(whole))}
    for name, content in left.items():
        (folder / f"{name}.so").write_bytes(content)
        os.utime(folder / f"{name}.so", (0, 0))
    (folder / "at-work.so").write_bytes(whole[:100])


def test_only_whole_libraries_and_those_at_work_remain(tmp_path):
    (tmp_path / "ab").mkdir()
    libraries(tmp_path / "ab")
    leftovers.remove_unfinished(tmp_path)
    assert sorted(file.stem for file in tmp_path.rglob("*.so")) == ["at-work", "whole"]


def test_the_interpreters_own_libraries_are_whole():
    found = list(Path(sys.prefix).rglob("*.so"))[:50]
    assert found
    assert all(leftovers.finished(library) for library in found)


def test_a_folder_that_is_not_there_is_no_error(tmp_path):
    leftovers.remove_unfinished(tmp_path / "missing")
