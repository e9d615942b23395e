"""The code of a user counts as far as nobody installed it: files beside a plug-in, too."""

from __future__ import annotations

import importlib
import sys

import pytest

from dpbench.system import source
from dpbench.system.plugins import imported

PLUGIN = "{line}\n\n\nclass Part:\n    def run(self):\n        return {used}\n"
FILES = {
    "pinkhelper.py": "LEVEL = 1\n",
    "pinkhouse/__init__.py": "DOOR = 1\n",
    "pinkhouse/room.py": "from pinkhouse.wall import LEVEL\n",
    "pinkhouse/wall.py": "LEVEL = 1\n",
}


@pytest.fixture
def hashed(tmp_path, monkeypatch):
    """The hash of a class in the plug-in `pinkplugin.py`, with other files beside it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "pinkhouse").mkdir()

    def found(line: str, used: str, changes: dict[str, str]) -> str:
        files = FILES | {"pinkplugin.py": PLUGIN.format(line=line, used=used)} | changes
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        forget()
        return source.digest(imported(str(tmp_path / "pinkplugin.py")).Part)

    yield found
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.startswith("pink")]:
        del sys.modules[name]
    for cached in (source._closure, source._file, source._published):
        cached.cache_clear()
    importlib.invalidate_caches()


@pytest.mark.parametrize(
    ("line", "used", "file", "text"),
    [
        ("from pinkhelper import LEVEL", "LEVEL", "pinkhelper.py", "LEVEL = 22\n"),
        ("from pinkhelper import *", "LEVEL", "pinkhelper.py", "LEVEL = 22\n"),
        ("import pinkhelper", "pinkhelper.LEVEL", "pinkhelper.py", "LEVEL = 22\n"),
        ("from pinkhouse import room", "room.LEVEL", "pinkhouse/wall.py", "LEVEL = 22\n"),
        ("from pinkhouse.room import LEVEL", "LEVEL", "pinkhouse/wall.py", "LEVEL = 22\n"),
        ("import pinkhouse.room", "pinkhouse.DOOR", "pinkhouse/__init__.py", "DOOR = 22\n"),
    ],
)
def test_a_file_beside_a_plugin_counts_where_it_is_imported(hashed, line, used, file, text):
    before = hashed(line, used, {})
    assert hashed(line, used, {}) == before
    assert hashed(line, used, {file: text}) != before
    assert hashed(line, used, {file: FILES[file] + "# a comment\n"}) == before


def test_files_that_change_places_count_as_they_are_imported_by_name(hashed):
    line, used = "import pinkhelper, pinkother", "pinkhelper.LEVEL - pinkother.LEVEL"
    one, two = "LEVEL = 1\n", "LEVEL = 2\n"
    assert hashed(line, used, {"pinkhelper.py": one, "pinkother.py": two}) != hashed(
        line, used, {"pinkhelper.py": two, "pinkother.py": one}
    )


def test_files_beside_a_plugin_that_it_does_not_import_do_not_count(hashed):
    given = ("from pinkhelper import LEVEL", "LEVEL")
    assert hashed(*given, {"pinkhouse/wall.py": "LEVEL = 22\n"}) == hashed(*given, {})


def test_constants_that_a_file_is_read_for_count(hashed, tmp_path):
    line = (
        f"import json, pathlib\nLEVELS = json.loads(pathlib.Path({str(tmp_path)!r}, 'pink.json').read_text())"
    )
    found = [
        hashed(line, "LEVELS", {"pink.json": text}) for text in ('{"a": [1]}', '{"a": [1]}', '{"a": [2]}')
    ]
    assert found[0] == found[1] != found[2]


def test_an_import_that_fails_is_no_error(hashed):
    line = "try:\n    import pinkbroken\nexcept SyntaxError:\n    pass"
    found = [hashed(line, "1", {"pinkbroken.py": text}) for text in ("print 1\n", "print 2\n")]
    assert found[0] != found[1]
