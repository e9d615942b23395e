"""What an installed package may name by an entry point, and what is said of one that is broken."""

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from dpbench.protocol import InputError
from dpbench.protocol.parameters import Declared
from dpbench.protocol.registry import Registry

GROUP = "dpbench.colours"


def registry(monkeypatch, value, name="named-by-the-entry-point", base=Declared):
    """One whose only entry point is this, of a module `shades` that registers a class when it is imported."""
    found = Registry("colour", GROUP, base=base)

    class Red(Declared):
        pass

    shades = ModuleType("shades")
    shades.Red, shades.red, shades.plain = found.register("red")(Red), "red", type("Plain", (), {})
    monkeypatch.setitem(sys.modules, "shades", shades)
    entries = [EntryPoint(name, value, GROUP)]
    monkeypatch.setattr("dpbench.protocol.registry.entry_points", lambda group: entries)
    return found


@pytest.mark.parametrize("value", ["shades", "shades:Red"])
def test_the_name_is_that_of_the_decorator(value, monkeypatch):
    found = registry(monkeypatch, value)
    assert list(found) == ["red"]
    assert found["red"].name == "red"


@pytest.mark.parametrize("value", ["shades:red", "shades:plain", "shades:blue", "shades_missing:Red"])
def test_what_cannot_be_used_is_named(value, monkeypatch):
    found = registry(monkeypatch, value)
    with pytest.raises(InputError, match=rf"'named-by-the-entry-point' of the group {GROUP} \({value}\) can"):
        found["red"]


def test_a_name_that_is_taken_is_refused(monkeypatch):
    found = registry(monkeypatch, "shades:plain", name="red", base=None)
    with pytest.raises(InputError, match="'red' is registered already"):
        list(found)
