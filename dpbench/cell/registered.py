"""All registered parts, other people's included, and the columns that they bring."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable

import attacks
import defenses
from dpbench import metrics
from dpbench.cell import threats
from dpbench.privacy import Budget
from dpbench.protocol import InputError
from dpbench.store.columns import add_parameters
from dpbench.system.paths import expanded, open_file


def load(plugins: Iterable[str] = ()) -> None:
    """Import other people's modules, and add the columns of every part.

    Args:
        plugins: modules by name (`package.module`), or files (`defence.py`).

    Raises:
        InputError: for a module that cannot be imported, or a part whose parameters clash with a column.
    """
    for name in plugins:
        _import(name)
    try:
        _add_columns()
    except TypeError as error:
        raise InputError(str(error)) from error
    metrics.registered()


def _add_columns() -> None:
    for part in (*attacks.attacks.values(), *threats.threat_models.values()):
        add_parameters(part, "attack")
    for part in (Budget, *defenses.defenses_registry.values()):
        add_parameters(part, "defence")


def _import(name: str) -> None:
    try:
        if not name.endswith(".py"):
            importlib.import_module(name)
            return
        path = expanded(name).resolve()
        open_file(path).close()  # a pipe would be waited for
        if known := sys.modules.get(path.stem):
            if getattr(known, "__file__", None) == str(path):
                return
            raise InputError(f"The plugin {name} has the name of the module {path.stem}: rename the file.")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[path.stem]
            raise
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # whatever its author got wrong
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"The plugin {name} cannot be imported ({reason}).") from error
