"""What an exception says about the graphics card: out of memory, or failed and not to be trusted."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch

_MEMORY = re.compile(r"CUDA.*out of memory|ALLOC(ATION)?_FAILED")
_CARD = re.compile(r"CUDA|cuBLAS|cuDNN", re.IGNORECASE)


def out_of_memory(error: BaseException) -> bool:
    """Whether a card's memory ran out; PyTorch, CUDA, Triton, cuBLAS and cuDNN each word it differently.

    Example:
        >>> out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
        True
    """
    return any(isinstance(e, torch.OutOfMemoryError) or _MEMORY.search(str(e)) for e in _chain(error))


def of_the_card(error: BaseException) -> bool:
    """Whether a card failed or a library on it, for lack of memory or any other reason.

    Example:
        >>> of_the_card(FloatingPointError("The objective was NaN."))
        False
    """
    known = torch.OutOfMemoryError | torch.AcceleratorError
    return any(isinstance(e, known) or _CARD.search(str(e)) for e in _chain(error))


def _chain(error: BaseException | None) -> Iterator[RuntimeError]:
    """`error` and its causes, as far as they are RuntimeErrors, which is what PyTorch raises."""
    seen: set[int] = set()  # an error may be its own cause
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, RuntimeError):
            yield error
        error = error.__cause__ or error.__context__
