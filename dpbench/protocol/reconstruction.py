"""What an attack hands back."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Reconstruction:
    """What an attack hands back.

    Attributes:
        images: float32 [B, C, H, W] in [0, 1], in an order of the attack's own.
        labels: int64 [B], the labels the attack used or found, aligned with `images`.
        label_source: `known`, `inferred` or `joint`.
        gradient_distance: the objective's value at `images`, without priors (nan if it never was finite).
        start: the first guess the attack set out from, same shape as `images`; a floor.
        iterations: objective evaluations spent, over all restarts.
        seconds: time of the search, compilation excluded.
        compile_seconds: time of compilation.
        engine: what ran the iterations.
        history: objective value every so many iterations, for plots.
        history_steps: iterations that were over at each of its values; empty where they are evenly apart.
        certified: bool [B], aligned with `images`: the image was shown to explain the release to rounding, as
            closed forms can; None for attacks that never can.
        residual: [B], what is left unexplained, relative to the release: 0 is perfect. None as above.
        note: a sentence or two to the user, such as where a closed form stopped and what took over.
    """

    images: Tensor = field(repr=False)
    labels: Tensor
    label_source: str
    gradient_distance: float
    start: Tensor = field(repr=False)
    iterations: int
    seconds: float
    compile_seconds: float = 0.0
    engine: str = "eager"
    history: tuple[float, ...] = ()
    history_steps: tuple[int, ...] = ()
    certified: Tensor | None = None
    residual: Tensor | None = None
    note: str = ""
