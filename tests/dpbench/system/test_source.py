"""What changes the hash of the code behind a result, and what does not."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import attacks
from attacks import Attack
from attacks.dlg import DLG
from dpbench.protocol import parameter
from dpbench.system import source

PACKAGE = {
    "__init__.py": "",
    "steps.py": '"""Steps."""\n\nSIZE = 3\n',
    "unused.py": "NOTHING = 1\n",
    "blur.py": '''
"""An attack."""

from dpbench.protocol import parameter
from greyhouse.steps import SIZE


class Blur:
    """Blurs."""

    radius: float = parameter(1.0, "radius of the blur", unit="px", symbol="r", at_least=0)

    def run(self, task):
        """See `Attack`."""
        return task * SIZE  # every one


def network(classes):
    """A function that makes a victim."""
    return classes
''',
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes the package with some words replaced, and returns its module `blur`."""
    folder = tmp_path / "greyhouse"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))

    def written(file="blur.py", old="", new="") -> ModuleType:
        for name, text in PACKAGE.items():
            if name == file and old:
                assert old in text
                text = text.replace(old, new)
            (folder / name).write_text(text)
        forget()
        return importlib.import_module("greyhouse.blur")

    yield written
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "greyhouse"]:
        del sys.modules[name]
    for cached in (source._closure, source._file, source._published, source._distributions):
        cached.cache_clear()
    importlib.invalidate_caches()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""An attack."""', '"""A kind attack."""'),
        ('"""Blurs."""', '"""Blurs more than it has to."""'),
        ('        """See `Attack`."""\n', ""),
        ("  # every one", "  # all"),
        ('"radius of the blur"', '"how far it blurs"'),
        ('unit="px"', 'unit="pixels"'),
        ('symbol="r"', 'symbol="R"'),
        ("task * SIZE", "(task   *   SIZE)"),
    ],
)
def test_what_only_people_read_does_not_count(package, old, new):
    before = source.digest(package().Blur)
    assert source.digest(package("blur.py", old, new).Blur) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("blur.py", "task * SIZE", "task + SIZE"),
        ("blur.py", "parameter(1.0,", "parameter(2.0,"),
        ("blur.py", "at_least=0", "above=0"),
        ("blur.py", "return classes", "return classes + 1"),
        ("steps.py", "SIZE = 3", "SIZE = 4"),
    ],
)
def test_code_counts_and_that_of_imported_modules(package, file, old, new):
    before = package()
    found = source.digest(before.Blur), source.digest(before.network)
    after = package(file, old, new)
    assert source.digest(after.Blur) != found[0]
    assert source.digest(after.network) != found[1]


def test_modules_that_nothing_imports_do_not_count(package):
    before = source.digest(package().Blur)
    assert source.digest(package("unused.py", "NOTHING = 1", "NOTHING = 2").Blur) == before


@pytest.mark.parametrize("line", ["from . import steps", "import greyhouse.steps", "from .steps import SIZE"])
def test_every_way_to_import_is_followed(package, line):
    found = []
    for size in (3, 4):
        module = package("steps.py", "SIZE = 3", f"SIZE = {size}")
        written = PACKAGE["blur.py"].replace("from greyhouse.steps import SIZE", line)
        Path(module.__file__).write_text(written)
        found.append(source.digest(module.Blur))
    assert found[0] != found[1]


def test_modules_of_other_packages_are_not_imported(package, tmp_path):
    """To find a module within a package, Python imports the package: that would be Opacus, say."""
    (tmp_path / "whitehouse").mkdir()
    for name in ("__init__.py", "room.py"):
        (tmp_path / "whitehouse" / name).write_text("")
    inside = "def later():\n    import whitehouse.room\n    from whitehouse.room import wall\n\n\nclass Blur:"
    source.digest(package("blur.py", "class Blur:", inside).Blur)
    assert "whitehouse" not in sys.modules


def installed(folder, version, *, local):
    """What an installer writes beside the package in `folder`."""
    for old in folder.glob("greyhouse-*"):
        shutil.rmtree(old)
    info = folder / f"greyhouse-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: greyhouse\nVersion: {version}\n")
    (info / "RECORD").write_text("greyhouse/__init__.py,,\ngreyhouse/blur.py,,\n")
    if local:
        (info / "direct_url.json").write_text('{"url": "file:///greyhouse", "dir_info": {}}')


@pytest.mark.parametrize(
    ("local", "version", "line", "same"),
    [
        (
            False,
            "1.0",
            "task + SIZE",
            True,
        ),  # nobody edits a library, and hashing all of PyTorch takes minutes
        (False, "1.1", "task * SIZE", False),
        (True, "1.0", "task + SIZE", False),
        (True, "1.1", "task * SIZE", True),
    ],
)
def test_a_library_counts_by_its_version_unless_it_was_installed_from_a_folder(
    package, tmp_path, local, version, line, same
):
    installed(tmp_path, "1.0", local=local)
    before = source.digest(package().Blur)
    installed(tmp_path, version, local=local)
    after = package("blur.py", "task * SIZE", line)
    assert (source.digest(after.Blur) == before) is same


def test_a_folder_with_the_name_of_a_library_is_no_library(package, tmp_path):
    (tmp_path / "library").mkdir()
    installed(tmp_path / "library", "1.0", local=False)
    sys.path.insert(0, str(tmp_path / "library"))
    try:
        before = source.digest(package().Blur)
        assert source.digest(package("blur.py", "task * SIZE", "task + SIZE").Blur) != before
    finally:
        sys.path.remove(str(tmp_path / "library"))


def test_torch_is_a_library():
    assert source._published("torch.nn").startswith("torch ")


CONSOLE = """
class Mine(Attack):
    '''An attack.'''
    def run(self, task):
        return {}
"""


def in_a_console(text: str) -> type:
    names = {"Attack": Attack, "DLG": DLG, "parameter": parameter, "__name__": "console without a file"}
    exec(text, names)
    return names["Mine"]


def test_a_class_without_a_file_has_a_hash_of_its_own():
    first, same, other = (in_a_console(CONSOLE.format(each)) for each in ("task", "task", "task + 1"))
    assert source.digest(first) == source.digest(same) != source.digest(other)
    assert len(source.digest(first)) == 16


@pytest.mark.parametrize("changed", ["'''Another.'''", "'''An attack.'''  # quick"])
def test_docstrings_of_a_class_without_a_file_do_not_count(changed):
    text = CONSOLE.format("task")
    assert source.digest(in_a_console(text)) == source.digest(
        in_a_console(text.replace("'''An attack.'''", changed))
    )


@pytest.mark.parametrize(
    "line",
    [
        "    speed = {}",
        "    speed: int = parameter({}, 'speed')",
        "    @property\n    def a(self): return {}",
        "    @staticmethod\n    def a(): return {}",
        "    def a(self, b={}): return b",
        "    def a(self): return lambda: {}",
        "    sizes = (1, {})",
    ],
)
def test_all_of_a_class_without_a_file_counts(line):
    names = [source.digest(in_a_console(CONSOLE.format("task") + line.format(*[n] * 2))) for n in (1, 1, 2)]
    assert names[0] == names[1] != names[2]


def test_what_a_class_without_a_file_inherits_counts():
    texts = [f"class Base(Attack):\n    speed = {speed}\nclass Mine(Base): pass" for speed in (1, 2)]
    one, two = (source.digest(in_a_console(text)) for text in texts)
    assert one != two
    plain, search = (source.digest(in_a_console(f"class Mine({base}): pass")) for base in ("Attack", "DLG"))
    assert plain != search


def test_libraries_are_not_read():
    """All of PyTorch took minutes."""
    read = source._parsed.cache_info().misses
    assert source.digest(torch.nn.Sequential) != source.digest(torch.nn.Linear)
    assert source._parsed.cache_info().misses == read


def test_the_order_of_parts_and_their_number_do_not_count():
    other = attacks.kind("inverting-gradients")
    assert source.digest(DLG, other) == source.digest(other, DLG, DLG) != source.digest(DLG)
