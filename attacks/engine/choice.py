"""The choice of the backend that a search runs on."""

from __future__ import annotations

from dpbench.protocol import InputError

ENGINES = ("auto", "eager", "graph", "compiled")
BREAK_EVEN = {"cpu": 8_000, "cuda": 4_000}
"""Number of iterations of one shape from which compiling pays.

On a CPU (two busy cores, so in CPU seconds, including the C++ compiler's) compiling pays for the ConvNet from
11,300 iterations with a batch of 1 (25 s to compile; 3.2 ms an iteration before, 0.9 ms after) and from
8,800 with a batch of 4 (30 s; 5.6 and 2.2 ms), and for ResNet-20 with a batch of 4 from 3,600 (78 s; 40 and
19 ms). With a threshold of 8,000 none of them takes more than 1.4 times as long as with the better choice.
On a graphics card nothing was timed end to end: by arithmetic from single timings of a prototype on an H100,
compared with replays of a plain CUDA graph, compiling pays for a ResNet-50 at 224 px from 2,500 to 3,700
iterations and for a ResNet-18 at 32 px from 11,000 to 13,000.
"""


def checked(engine: str, device: str) -> str:
    """`engine`, once it is known to exist and to run on that kind of device.

    Raises:
        InputError: for an unknown engine, or `graph` without a graphics card.
    """
    if engine not in ENGINES:
        raise InputError(f"`engine` must be one of {', '.join(ENGINES)}, not {engine!r}.")
    if engine == "graph" and device != "cuda":
        raise InputError("`engine` graph replays CUDA graphs and needs `device` cuda: use `engine` auto.")
    return engine


def auto(engine: str, device: str, iterations: int) -> str:
    """The backend for `iterations` of one shape, summed over all searches that share it.

    It is `engine` unless that is `auto`. The rule depends on numbers known beforehand, never on timings: the
    same search has to run on the same backend everywhere, or its result would differ.

    Example:
        >>> auto("auto", "cpu", 1_500), auto("auto", "cpu", 60_000), auto("auto", "cuda", 1_500)
        ('eager', 'compiled', 'graph')
    """
    if engine != "auto":
        return engine
    if iterations >= BREAK_EVEN[device]:
        return "compiled"
    return "graph" if device == "cuda" else "eager"
