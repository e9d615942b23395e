"""What a failure says of the graphics card, in the words of the libraries that may fail on it."""

import pytest
import torch

from attacks.engine import of_the_card, out_of_memory


def caused(outer, inner):
    outer.__cause__ = inner
    return outer


def itself():
    error = RuntimeError("a loop")
    error.__cause__ = error
    return error


@pytest.mark.parametrize(
    ("error", "memory", "card"),
    [
        (torch.OutOfMemoryError("Tried to allocate 20.00 GiB"), True, True),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be"), True, True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True, True),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            True,
            True,
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True, True),
        (caused(ValueError("the attack broke"), torch.OutOfMemoryError("")), True, True),
        (torch.AcceleratorError("an illegal memory access was encountered"), False, True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False, True),
        (RuntimeError("C++ compile error: cc1plus: out of memory allocating 65536 bytes"), False, False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, False),
        (FloatingPointError("The objective was NaN"), False, False),
        (ValueError("CUDA out of memory"), False, False),
        (itself(), False, False),
    ],
    ids=str,
)
def test_words_of_the_libraries(error, memory, card):
    assert (out_of_memory(error), of_the_card(error)) == (memory, card)
