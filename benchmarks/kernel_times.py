"""What a graphics card does in one iteration: time and launches by kind of kernel, from PyTorch's profiler.

    python -m benchmarks.kernel_times
    python -m benchmarks.kernel_times --case resnet50:224:8

A search of twice as many iterations less one of these, so that what a search does at its ends drops out.
`share` is that of the time between iterations, measured without the profiler. Kernels may overlap, so that
their times together may be more than that.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Iterator

import torch
import tyro

from benchmarks.cases import Case, Scene, scene
from benchmarks.engine import BACKENDS, Options, each_case, run
from benchmarks.measure import Row, seconds

KINDS = {
    "Triton": r"triton",
    "copies": r"^mem|direct_copy",
    "layouts, pooling and norms": r"nchwtonhwc|nhwctonchw|convert|pool|norm|bn_",
    "convolutions and matrix products": r"[dw]grad|fprop|conv|gemm|cutlass|splitk",
    "other": r"",
}
"""Words in the names of kernels, in the order in which they are looked for."""


def kind(name: str) -> str:
    """The kind of a kernel.

    Example:
        >>> kind("triton_poi_fused_add_convolution_backward_mul_189")
        'Triton'
        >>> kind("sm90_xmma_dgrad_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc")
        'convolutions and matrix products'
        >>> kind("void cudnn::ops::nchwToNhwcKernel<float, float>")
        'layouts, pooling and norms'
        >>> kind("Memcpy DtoD (Device -> Device)")
        'copies'
    """
    return next(found for found, words in KINDS.items() if re.search(words, name, re.IGNORECASE))


def events(of: Scene, engine: str, iterations: int) -> list[tuple[str, float]]:
    """Name and microseconds of all that a search runs on the card.

    Raises:
        RuntimeError: where the profiler saw nothing.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run(of, engine, iterations)
        torch.cuda.synchronize()
    on_card = torch.autograd.DeviceType.CUDA
    found = [(e.name, e.time_range.elapsed_us()) for e in profile.events() if e.device_type == on_card]
    kernels = [(name, taken) for name, taken in found if not name.startswith("## ")]  # no ranges
    if not kernels:
        raise RuntimeError("PyTorch's profiler recorded nothing on the card, so there are no times to tell.")
    return kernels


def by_kind(found: Scene, engine: str, iterations: int) -> dict[str, tuple[float, float]]:
    """Milliseconds and launches of one iteration, for each of `KINDS`."""
    totals = dict.fromkeys(KINDS, (0.0, 0.0))
    for sign, count in ((-1, iterations), (1, 2 * iterations)):
        for name, microseconds in events(found, engine, count):
            ms, launches = totals[kind(name)]
            totals[kind(name)] = (ms + sign * microseconds / 1000, launches + sign)
    return {name: (ms / iterations, launches / iterations) for name, (ms, launches) in totals.items()}


def between(found: Scene, engine: str, iterations: int, repeats: int) -> float:
    """Milliseconds from one iteration to the next."""
    short, long = (
        statistics.median(seconds(lambda n=n: run(found, engine, n), "cuda") for _ in range(repeats))
        for n in (iterations, 2 * iterations)
    )
    return 1000 * (long - short) / iterations


def measured(case: Case, iterations: int, repeats: int) -> Iterator[list[Row]]:
    """A row for each backend and kind, as soon as the backend is measured."""
    found, rows = scene(case, "cuda"), []
    for engine in BACKENDS["cuda"]:
        ran = run(found, engine, 2).engine
        whole = between(found, engine, iterations, repeats)
        for name, (ms, launches) in by_kind(found, engine, iterations).items():
            row = {"case": str(case), "engine": ran, "kind": name, "ms": ms, "launches": launches}
            rows.append(row | {"ms between iterations": whole, "share": ms / whole})
        yield [*rows]


def main(options: Options) -> int:
    """Measure and show; 2 without a graphics card."""
    if options.kind() != "cuda":
        print(
            "This is about what a graphics card does, and there is none: see `python -m benchmarks.kernels`."
        )
        return 2
    each_case(
        options,
        lambda case, _: measured(case, options.iterations, options.repeats),
        "Kernels by kind",
        "kernel_times",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
