"""Generators by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from dpbench.protocol import Registry

generators: Registry[Callable[[str, int], nn.Module]] = Registry("generator", group="dpbench.generators")
"""Constructors `(what follows the colon, pixels a side) -> generator`."""
generator = generators.register
"""Decorator that registers such a constructor under a name."""
