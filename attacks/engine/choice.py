"""The choice of the backend that a search runs on."""

from __future__ import annotations

from dpbench.protocol import InputError

ENGINES = ("auto", "eager", "graph", "compiled")
BREAK_EVEN = {"cpu": 8_000, "cuda": 6_000}
"""Number of iterations of one shape from which compiling pays.

On a CPU (two busy cores, so in CPU seconds, including the C++ compiler's) compiling pays for the ConvNet from
11,300 iterations with a batch of 1 (25 s to compile; 3.2 ms an iteration before, 0.9 ms after) and from
8,800 with a batch of 4 (30 s; 5.6 and 2.2 ms), and for ResNet-20 with a batch of 4 from 3,600 (78 s; 40 and
19 ms). On an H200, with six compilations at once on 16 cores, compared with replays of a plain CUDA graph, it
pays for a ResNet-18 at 32 px from 10,300 with a batch of 8 (26 s; 5.1 and 2.6 ms), and for a ResNet-50 at
224 px from 9,600 with a batch of 8 (102 s; 19.7 and 9.0 ms) and 3,900 with one of 48 (127 s; 66 and 33 ms).
With these thresholds none of these takes more than 1.4 times as long as with the better choice.
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
