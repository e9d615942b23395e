"""What turns objective, priors and a search rule into iterations.

A backend is a function with `eager.adam`'s signature.
"""

from __future__ import annotations

from collections.abc import Callable

from attacks.engine import eager
from dpbench.protocol import Registry

engines: Registry[Callable[..., eager.Found]] = Registry("engine")
engines.add("eager", eager.adam)


def choose(name: str) -> tuple[str, Callable[..., eager.Found]]:
    """The backend called `name` and its name; `auto` takes the fastest that pays, today `eager`.

    Raises:
        InputError: for an unknown name.
    """
    name = "eager" if name == "auto" else name
    return name, engines[name]
