"""Seeds of random streams: one for each purpose, so that no two parts of a run draw the same numbers.

PyTorch's CPU generator keeps only the low 32 bits of a seed: `s` and `s ^ (1 << 62)` give the same numbers.
A seed that is derived by arithmetic on another one may therefore repeat its stream. Here every seed is a hash
of what it is for.

These seeds have 32 bits and PyTorch's generators are not cryptographic. That is fine for a benchmark, which
has to be repeatable, and never for a deployment: who tries all 2**32 seeds can subtract a release's noise.
"""

from __future__ import annotations

import hashlib
import json

PURPOSES = {
    "release": "the noise of a defence, in the releases of one batch",
    "client": "the noise of each further client whose release is summed with the first one's",
    "inclusion": "the coins that say which releases the attacked sample is in",
    "candidates": "which images the informed attacker chooses among",
    "order": "in which order it is shown them in a trial",
    "search": "the start and the steps of an attack",
    "noise floor": "the noise that an attack is fed in place of a release",
    "decoys": "which images identification chooses among",
    "training set": "which images a training of fewer than all is about",
    "weights": "the weights that a training starts from",
    "sampling": "which samples are in the batches of a training",
    "training noise": "the noise of a defence in all steps of a training",
    "tuning": "which values of an attack's parameters a tuning tries",
    "frontier": "which image of a batch the frontier asks about, and among which decoys",
}
"""The random streams of a cell, by name. Whoever adds one adds its purpose here."""


def seed(purpose: str, *parts: str | int) -> int:
    """The seed of one random stream: 32 bits of the SHA-256 of its purpose and parts.

    The seeds of different streams are as good as independent. The chance that two of n streams share a seed
    is about n**2 / 2**33: 1e-4 for a thousand, 0.01 for ten thousand.

    Args:
        purpose: one of `PURPOSES`.
        parts: what tells this stream from the others of its purpose: a cell's key, a trial's number, ... The
            number 1 and the word "1" are different parts.

    Returns:
        A whole number from 0 to 2**32 - 1. For benchmarking only, never for a deployment.

    Raises:
        ValueError: for an unknown purpose.
        TypeError: for a part that is neither a word nor a whole number.

    Example:
        >>> seed("release", "cell", 0)
        2588153908
        >>> seed("release", "cell", 0) == seed("inclusion", "cell", 0)
        False
    """
    if purpose not in PURPOSES:
        raise ValueError(f"Unknown purpose {purpose!r} of a seed; known: {', '.join(PURPOSES)}.")
    for part in parts:
        if type(part) not in (str, int):
            raise TypeError(f"A seed's parts must be words and whole numbers, not {part!r}.")
    text = json.dumps([purpose, *parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
