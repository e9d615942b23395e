"""A hash of the code that decides a result: what was computed by other code is not taken for this one's.

Only what runs counts: the syntax tree is hashed, without comments, docstrings and the help texts of declared
parameters. From dpbench's own code, imports within the same package are followed; from a user's, those of
everything that nobody installed, such as a file beside it. What a library computes is recorded by version.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import Field
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from types import CodeType, NoneType
from typing import Any

OWN = ("attacks", "defenses", "dpbench")
"""Packages of dpbench."""
SHARED = ("dpbench.protocol",)
"""Packages that are followed from everywhere."""
_PLAIN = (bool, int, float, str, bytes, NoneType)
"""What is written the same in every process."""


def digest(*parts: type | Callable) -> str:
    """16 hexadecimal digits of the code behind classes and functions, in whatever order they come.

    Example:
        >>> from attacks.dlg import DLG
        >>> digest(DLG) == digest(DLG, DLG)
        True
    """
    modules: set[str] = set()
    others: set[str] = set()
    given = {part.__module__ for part in parts}
    for part in (each for start in parts for each in _lineage(start)):
        if part.__module__ is None:  # of a class that a program wrote, as torch.export does
            others.add(_compiled(part))
        elif version := _published(part.__module__):
            others.add(f"{part.__module__}.{part.__qualname__} {version}")
        elif _file(part.__module__) is None:  # made in a notebook or a console
            others.add(_compiled(part))
        else:
            modules |= _closure(part.__module__)
    found = hashlib.sha256()
    for text in sorted(_described(name, given) for name in modules):
        found.update(text.encode())
    for text in sorted(others):
        found.update(text.encode())
    return found.hexdigest()[:16]


def _described(module: str, given: Container[str]) -> str:
    """What a module does, under its name, by which others import it.

    Of a user's file that is `given` the name does not count: nothing tells its parts apart but their own.
    """
    if _within(module, OWN):
        return f"{module} {of_file(_file(module))} "
    name = "" if module in given else module
    return f"{name} {of_file(_file(module))} {_constants(module)}"


def of_file(path: Path) -> str:
    """The hash of what a Python file does: its comments, layout, docstrings and help texts do not count."""
    return _parsed(path.read_bytes())[1]


def _constants(module: str) -> str:
    """The values of a module's constants, which it may have read from a file: then its text has none."""
    held = vars(sys.modules[module]) if module in sys.modules else {}
    return " ".join(f"{name}={_member(value)} " for name, value in sorted(held.items()) if name.isupper())


@cache
def _published(module: str) -> str:
    """The installed library that a module is of, with its version; `Python` for what comes with that.

    Empty for code that changes without a version.

    That is dpbench's own, what nobody installed, and what was installed from a folder or a repository, which
    installers note in `direct_url.json` (PEP 610).
    """
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names:
        return "Python"
    file = _file(module)
    for name in () if package in OWN or file is None else _distributions().get(package, ()):
        found = metadata.distribution(name)
        here = Path(found.locate_file("")).resolve() in file.resolve().parents
        if here and found.read_text("direct_url.json") is None:
            return f"{name} {found.version}"
    return ""


@cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


@cache
def _closure(start: str) -> frozenset[str]:
    """`start` and all modules that it imports, directly or not, and that are followed from it."""
    home = ".".join(start.split(".")[:2]) if start.startswith("dpbench.") else start.split(".")[0]
    reached, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += _imported(name, home)
    return frozenset(reached)


def _followed(name: str, home: str) -> bool:
    """Whether there is a module of that name with a file that counts where code of `home` imports it."""
    if _within(name, (home, *SHARED)):
        return _file(name) is not None
    package = name.partition(".")[0]
    if _within(home, OWN) or package in OWN or package in sys.stdlib_module_names:
        return False
    return _file(name) is not None and not _published(name)


def _joined(package: str, name: str) -> str:
    return f"{package}.{name}"


def _within(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _imported(name: str, home: str) -> Iterable[str]:
    """The modules that a module imports, as far as they are followed from the package `home`."""
    path = _file(name)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    # `python -m package.module` calls the module `__main__`
    package = getattr(sys.modules.get(name), "__package__", None) or package
    for node in _parsed(path.read_bytes())[0]:
        if isinstance(node, ast.Import):
            # `import a.b` makes the names of `a` usable, too
            names = (name for alias in node.names for name in accumulate(alias.name.split("."), _joined))
            yield from (name for name in names if _followed(name, home))
        else:
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join(filter(None, [*parents[: len(parents) - node.level + 1], base]))
            for alias in node.names:
                # a module of that name, or else a name that the package's own file makes
                inner = _joined(base, alias.name)
                yield from [each for each in (inner, base) if _followed(each, home)][:1]


@cache
def _file(name: str) -> Path | None:
    """The Python file of a module; None where there is none."""
    origin = getattr(sys.modules.get(name), "__file__", None)
    if origin is None:
        try:
            origin = getattr(_spec(name), "origin", None)
        except (ImportError, AttributeError, ValueError):
            return None
    path = Path(origin) if origin else None
    return path if path and path.suffix == ".py" and path.is_file() else None


def _spec(name: str) -> ModuleSpec | None:
    """Where a module would be imported from. Nothing is imported, not even the packages that it is in."""
    package, *inner = name.split(".")
    found = find_spec(package)
    for part in inner:
        if found is None or found.submodule_search_locations is None:
            return None
        package = _joined(package, part)
        found = PathFinder.find_spec(package, found.submodule_search_locations)
    return found


@cache
def _parsed(text: bytes) -> tuple[tuple[ast.Import | ast.ImportFrom, ...], str]:
    """The import statements of a file's text, and the hash of what it does."""
    try:
        tree = ast.parse(text)
    except SyntaxError:  # an import that its author expects to fail
        return (), hashlib.sha256(text).hexdigest()
    imports = tuple(node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
    return imports, hashlib.sha256(ast.dump(_Essential().visit(tree)).encode()).hexdigest()


class _Essential(ast.NodeTransformer):
    """Takes out what only people read."""

    def _without_docstring(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        # a string by itself does nothing, be it a docstring or an attribute's description
        node.body = [
            each
            for each in node.body
            if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
        ] or [ast.Pass()]
        return node

    visit_Module = visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _without_docstring  # noqa: N815

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "parameter":
            node.args = node.args[:1]
            node.keywords = [k for k in node.keywords if k.arg not in ("help", "symbol", "unit")]
        return node


def _lineage(part: type | Callable) -> Iterable[type | Callable]:
    """`part`, and the classes it inherits from that are of dpbench or made in a console."""
    if not isinstance(part, type) or _file(part.__module__) is not None:  # its imports are followed
        return [part]
    bases = (base for base in part.__mro__[1:] if base.__module__ != "builtins")
    return [part, *(b for b in bases if _file(b.__module__) is None or _within(b.__module__, OWN))]


def _compiled(part: type | Callable) -> str:
    """The code and the plain values of a function or class."""
    if not isinstance(part, type):
        return f"{part.__qualname__} {_member(part)}"
    # names with underscores on both sides are the interpreter's, and differ between its versions
    own = {k: v for k, v in vars(part).items() if not k.startswith("__") or hasattr(v, "__code__")}
    declared = vars(part).get("__dataclass_fields__", {})
    own |= {name: each.default for name, each in declared.items()}
    return f"{part.__qualname__} " + " ".join(f"{name}={_member(v)}" for name, v in sorted(own.items()))


def _member(value: Any) -> str:
    if isinstance(value, property):
        return " ".join(_member(each) for each in (value.fget, value.fset, value.fdel))
    value = getattr(value, "__func__", getattr(value, "func", value))
    if hasattr(value, "__code__"):
        return f"{_code(value.__code__, value.__doc__)} {_member(value.__defaults__)}"
    if isinstance(value, Field):
        value = value.default
    if isinstance(value, dict):
        value = tuple(value.items())
    if isinstance(value, tuple | list):
        return " ".join(map(_member, value))
    return repr(value) if isinstance(value, _PLAIN) else ""


def _code(code: CodeType, doc: str | None = None) -> str:
    found = code.co_consts[1:] if doc is not None and code.co_consts[:1] == (doc,) else code.co_consts
    constants = [_code(c) if isinstance(c, CodeType) else repr(c) for c in found]
    return f"{code.co_name} {code.co_code.hex()} {constants} {code.co_names}"
