"""The options of a run that is taken up again, from the `config.toml` in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dpbench.cell import registered
from dpbench.protocol import InputError
from dpbench.sweep import suite
from dpbench.sweep.axes import options
from dpbench.sweep.options import Options, checked, defaults
from dpbench.system.paths import absolute, expanded, kind_of

_PLUGIN = "plugin"


def from_configuration(stored: Mapping[str, Any], given: Options) -> Options:
    """The options a run's `config.toml` holds, shown the way `given` says.

    Args:
        stored: what the file holds.
        given: the command line's, its own plug-ins imported already; they stand in place of the run's, whose
            files may lie somewhere else by now.

    Raises:
        InputError: where `given` says anything else, `stored` holds what is no option of this version, or
            files that it names are not there.
    """
    said, usual = (each.configuration() for each in (given, checked(defaults())))
    if said | {_PLUGIN: ()} != usual | {_PLUGIN: ()}:
        raise InputError(
            "`resume` takes what is run from the folder: give nothing but `out`, `executor`, `quiet`, and "
            "`plugin` for files that have moved."
        )
    file = f"{given.out}/config.toml"
    if given.plugin:
        stored = {**stored, _PLUGIN: list(given.plugin)}
    held = {name: value for name, value in stored.items() if name == _PLUGIN}
    plugins = suite.fitting(held, _deciding(), file).get(_PLUGIN, ())
    for name in plugins:
        if name.endswith(".py") and _is_lost(name):
            raise InputError(
                f"{file} names the plug-in {name}, and there is no such file{_here(name)}: give its new "
                f"place with `plugin`{_or_go_there(name)}."
            )
    registered.load(plugins)
    values = suite.fitting(stored, _deciding(), file)
    for option, path in _paths(values):
        if _is_lost(path):
            raise InputError(
                f"{file} names {path} for `{option}`, and there is nothing of that name{_here(path)}: "
                f"put it back{_or_go_there(path)}."
            )
    shown = {name: given[name] for name, each in options().items() if not each.decides}
    return checked(defaults().replaced(**values, **shown))


def _paths(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is the path of a file or a folder beyond doubt, each with its option."""
    for model in values.get("model", ()):
        home = model.rpartition(":")[0]
        if home.endswith(".py"):
            yield "model", home
    kind, _, path = (values.get("data") or "").partition(":")
    if kind == "folder":
        yield "data", path


def _is_lost(path: str) -> bool:
    return kind_of(expanded(path)) is None


def _here(path: str) -> str:
    return "" if expanded(path).is_absolute() else f" in {absolute('.')}"


def _or_go_there(path: str) -> str:
    return "" if expanded(path).is_absolute() else ", or go to the folder that the run was started from"


def _deciding() -> dict[str, Any]:
    return {name: each for name, each in options().items() if each.decides}
