"""The generator for CIFAR-10 that is shipped with dpbench."""

from __future__ import annotations

from pathlib import Path

from dpbench.generators.conv import ConvGenerator, from_file
from dpbench.generators.registry import generator
from dpbench.protocol import InputError


@generator("cifar10")
def cifar10(where: str, size: int) -> ConvGenerator:
    """The shipped weights; nothing may follow the name."""
    if where:
        raise InputError(f"--generator cifar10 is shipped and takes no file: drop {':' + where!r}.")
    return from_file(Path(__file__).with_name("cifar10.safetensors"))
