"""Small results that took seconds to compute, kept on disk between runs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

from dpbench.protocol import InputError, cache_folder
from dpbench.system import source
from dpbench.system.atomic import clear_leftovers, replacing

LIBRARIES = ("dp-accounting", "numpy", "opacus", "scipy")
"""Their versions may change a result."""


def folder() -> Path:
    """Where dpbench keeps what it can make again: $DPBENCH_CACHE, else dpbench/ in the XDG cache folder.

    Raises:
        InputError: neither is set, and there is no home folder.
    """
    try:
        return cache_folder()
    except RuntimeError:
        raise InputError(
            "There is no home folder to keep results in: set DPBENCH_CACHE to a folder."
        ) from None


def remember(kind: str, arguments: Mapping[str, float | str], compute: Callable[[], float]) -> float:
    """`compute()`, or what it gave for the same `kind` and `arguments` in an earlier run of the same code.

    The cache is a convenience: an entry that cannot be read is computed again, one that cannot be written is
    not kept and leaves nothing behind. Entries appear whole, so that processes running side by side never see
    half of one.

    Args:
        kind: what is computed.
        arguments: everything that decides the result, apart from the code of `dpbench.privacy` and the
            versions of the libraries, which are added here.
        compute: gives a number; not NaN.
    """
    text = json.dumps({"kind": kind, "code": _code(), **arguments}, sort_keys=True)
    try:
        path = folder() / "privacy" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    except InputError:  # there is no home folder
        return float(compute())
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        if entry["arguments"] == text and type(entry["value"]) is float and not math.isnan(entry["value"]):
            return entry["value"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    value = float(compute())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(path.parent)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"arguments": text, "value": value}), encoding="utf-8")
    except (OSError, InputError):
        pass
    return value


@cache
def _code() -> str:
    modules = Path(__file__).parents[1] / "privacy"
    versions = " ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return hashlib.sha256(f"{versions} {code_hash(modules)}".encode()).hexdigest()[:16]


def code_hash(package: Path) -> str:
    """The hash of what a package's modules do.

    Args:
        package: a folder of Python files; those in folders below it do not count.
    """
    found = hashlib.sha256()
    for path in sorted(package.glob("*.py")):
        found.update(f"{path.name} {source.of_file(path)} ".encode())
    return found.hexdigest()
