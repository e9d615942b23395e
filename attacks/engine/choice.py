"""Which backend a search runs on."""

from __future__ import annotations

from dpbench.protocol import InputError

ENGINES = ("auto", "eager", "graph", "compiled")
BREAK_EVEN = {"cpu": 5_000, "cuda": 4_000}
"""Iterations of one shape from which compiling pays.

On two CPU cores compiling a small ConvNet's iteration took as long as 4,000 of the iterations it saves
(`benchmarks/engine.py`); on an H100 a ResNet-50's at 224 px as long as 3,400 replays of a CUDA graph.
"""


def checked(engine: str, device: str) -> str:
    """`engine`, if it is one and can run on that kind of device.

    Raises:
        InputError: for an unknown engine, or `graph` without a graphics card.
    """
    if engine not in ENGINES:
        raise InputError(f"Unknown engine {engine!r}; known: {', '.join(ENGINES)}.")
    if engine == "graph" and device != "cuda":
        raise InputError("The engine graph replays CUDA graphs and needs --device cuda: use auto.")
    return engine


def auto(engine: str, device: str, iterations: int) -> str:
    """The backend for `iterations` of one shape, over all searches that share it: `engine` unless `auto`.

    A rule of numbers known beforehand, not of timings: the same search has to run on the same backend
    wherever and whenever it runs, for the same result.

    Example:
        >>> auto("auto", "cpu", 1_500), auto("auto", "cpu", 60_000), auto("auto", "cuda", 1_500)
        ('eager', 'compiled', 'graph')
    """
    if engine != "auto":
        return engine
    if iterations >= BREAK_EVEN[device]:
        return "compiled"
    return "graph" if device == "cuda" else "eager"
