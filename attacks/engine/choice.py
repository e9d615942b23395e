"""Which backend a search runs on."""

from __future__ import annotations

from dpbench.protocol import InputError

ENGINES = ("auto", "eager", "graph", "compiled")
BREAK_EVEN = {"cpu": 8_000, "cuda": 4_000}
"""Iterations of one shape from which compiling pays.

On a CPU (two busy cores, so counted in CPU seconds, the C++ compiler's included) the ConvNet's program paid
from 12,800 iterations on with a batch of 1 (46 s to compile; 5.5 ms, then 2.0 ms an iteration) and from
10,800 with 4, ResNet-20's with 4 from 3,500 (149 s; 101 ms, then 59 ms): 8,000 costs none of them more than
1.4 times the better choice. For a graphics card nothing was timed end to end: by arithmetic on single
timings of a prototype on an H100, over replays of a plain CUDA graph, a ResNet-50 at 224 px pays from 2,500
to 3,700 iterations on and a ResNet-18 at 32 px from 11,000 to 13,000.
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
