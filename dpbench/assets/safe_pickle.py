"""Reads pickles that hold nothing but plain containers and numpy arrays; runs no other code."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import IO, Any

import numpy as np

# What numpy arrays are pickled as, by every numpy from Python 2's to today's. Nothing else is looked up, so a
# pickle that names os.system, or anything hidden in numpy itself, is refused before it can be called.
_reconstruct = np.zeros(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not a numpy array")
        return _ALLOWED[module, name]


def load(file: IO[bytes], encoding: str = "ASCII") -> Any:
    """The object in `file`, made of containers, numbers, strings, bytes and numpy arrays only.

    Args:
        file: open for reading in binary.
        encoding: of Python 2 strings; `bytes` keeps them as bytes.

    Raises:
        pickle.UnpicklingError: where the pickle asks for anything else, or is not a pickle.

    Example:
        >>> import io, pickle, fractions
        >>> load(io.BytesIO(pickle.dumps({"a": np.arange(3)})))["a"].tolist()
        [0, 1, 2]
        >>> load(io.BytesIO(pickle.dumps(fractions.Fraction(1, 2))))
        Traceback (most recent call last):
        ...
        _pickle.UnpicklingError: it asks for fractions.Fraction, which is not a numpy array
    """
    return _ArrayUnpickler(file, encoding=encoding).load()
