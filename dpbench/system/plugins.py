"""Other people's code, by the name of a module or the path of a file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

from dpbench.protocol import InputError
from dpbench.system.paths import expanded, open_file


def imported(name: str, what: str = "plugin") -> ModuleType:
    """The module, imported once however often it is asked for.

    Args:
        name: of a module (`package.module`), or of a file (`defence.py`).
        what: what it is called in messages.

    Raises:
        InputError: for a module that cannot be imported, or a file that has the name of another module.

    Example:
        >>> imported("json").__name__
        'json'
    """
    try:
        if not name.endswith(".py"):
            return importlib.import_module(name)
        path = expanded(name).resolve()
        open_file(path).close()  # a pipe would be waited for
        if known := sys.modules.get(path.stem):
            if getattr(known, "__file__", None) == str(path):
                return known
            raise InputError(f"The {what} {name} has the name of the module {path.stem}: rename the file.")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[path.stem]
            raise
        return module
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # whatever its author got wrong
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"The {what} {name} cannot be imported ({reason}).") from error
