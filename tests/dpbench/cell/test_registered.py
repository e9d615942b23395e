"""Other people's modules, by name and by file."""

from __future__ import annotations

import sys

import pytest

import defenses
from dpbench.cell import registered
from dpbench.cell.rows import conditions
from dpbench.cell.run import run_cell
from dpbench.protocol import InputError
from dpbench.store.columns import columns
from tests.helpers.cells import cell, part

PLUGIN = """
from defenses import PostProcessor, defense
from dpbench.protocol import parameter


@defense("shrink")
class Shrink(PostProcessor):
    '''Multiplies by a number.'''

    shrunk_to: float = parameter(0.5, "what every entry is multiplied by", symbol="f", above=0)

    def process(self, gradients, generator):
        return tuple(self.shrunk_to * g for g in gradients)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder on the path with the plugin in it; what it registers is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "shrinking.py").write_text(PLUGIN)
    for module, name in (("dpbench.protocol.parameters", "_MEANINGS"), ("dpbench.store.columns", "_columns")):
        monkeypatch.setattr(sys.modules[module], name, dict(getattr(sys.modules[module], name)))
    yield tmp_path
    defenses.defenses_registry._items.pop("shrink", None)
    for name in ("shrinking", "broken", "box", "box.shrinking"):
        sys.modules.pop(name, None)


def test_by_name(folder):
    registered.load(["shrinking"])
    assert defenses.create("shrink").release is not None
    assert columns()["shrunk_to"].role == "defence"


def test_by_file_and_twice(folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(folder)])
    for _ in range(2):
        registered.load([str(folder / "shrinking.py")])
    assert sys.modules["shrinking"].Shrink is defenses.defenses_registry["shrink"]


def test_by_the_name_of_a_module_in_a_package(folder):
    box = folder / "box"
    box.mkdir()
    (box / "__init__.py").write_text("")
    (folder / "shrinking.py").rename(box / "shrinking.py")
    registered.load(["box.shrinking"])
    assert "shrink" in defenses.defenses_registry


def test_home_is_found(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    registered.load(["~/shrinking.py"])
    assert "shrink" in defenses.defenses_registry


def test_a_cell_runs_with_what_its_plugin_brings(folder):
    given = cell(
        part("dlg", iterations=1), part("shrink", shrunk_to=0.25), plugins=(str(folder / "shrinking.py"),)
    )
    row = run_cell(given).rows[0]
    assert (row["status"], row["defense"], row["shrunk_to"]) == ("ok", "shrink", 0.25)
    assert conditions(cell("dlg", "shrink"))["shrunk_to"] == 0.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("this is no Python", "SyntaxError"),
        ("raise RuntimeError('oh')", "RuntimeError: oh"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (PLUGIN.replace('"shrink"', '"clip"'), "The defense 'clip' is registered already"),
        (PLUGIN.replace("shrunk_to", "eps"), "TypeError: Parameter eps"),
    ],
)
@pytest.mark.parametrize("by", ["name", "file"])
def test_a_broken_plugin_is_one_sentence(folder, text, said, by):
    file = folder / "broken.py"
    file.write_text(text)
    name = "broken" if by == "name" else str(file)
    with pytest.raises(InputError) as error:
        registered.load([name])
    assert str(error.value).startswith(f"The plugin {name} cannot be imported (")
    assert said in str(error.value)
    assert str(error.value).endswith(").")
    assert "\n" not in str(error.value)
    assert "broken" not in sys.modules


def test_a_file_that_is_not_there(folder):
    with pytest.raises(InputError, match=r"There is no file"):
        registered.load([str(folder / "nowhere.py")])
    with pytest.raises(InputError, match=r"cannot be imported.*ModuleNotFoundError"):
        registered.load(["nowhere_at_all"])


@pytest.mark.parametrize("name", ["attacks", "json"])
def test_a_file_with_the_name_of_another_module_is_refused(folder, name):
    """It would be taken for that module, and what it registers would be missing without a word."""
    file = folder / f"{name}.py"
    file.write_text(PLUGIN)
    with pytest.raises(InputError, match=f"has the name of the module {name}: rename the file"):
        registered.load([str(file)])


def test_a_parameter_that_clashes_with_a_column_is_one_sentence(folder):
    (folder / "shrinking.py").write_text(PLUGIN.replace("shrunk_to", "psnr"))
    with pytest.raises(InputError, match=r"Column psnr holds float64 .* needs another name\."):
        registered.load(["shrinking"])


def test_two_files_of_one_name_are_refused(folder):
    other = folder / "other"
    other.mkdir()
    (other / "shrinking.py").write_text("")
    registered.load([str(folder / "shrinking.py")])
    with pytest.raises(InputError, match="rename the file"):
        registered.load([str(other / "shrinking.py")])


def test_columns_of_every_part_are_known():
    registered.load()
    known = columns()
    for name in ("noise_std", "prune_ratio", "eps", "tv", "candidates", "trials", "inclusion", "releases"):
        assert name in known
    assert known["inclusion"].role == known["candidates"].role == "attack"
    assert known["eps"].role == known["noise_std"].role == "defence"
    assert not known["trials"].condition
