"""The answer in text: the training, one line for each choice, and how to read it. It fits 80 columns.

The noise and every upper bound are rounded up and the prior down, so that what is printed holds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from dpbench.decide.choices import RARE, Choice, Training
from dpbench.privacy import PRIOR_SUCCESS
from dpbench.privacy.rounding import down, up, up_percent, up_places, upwards
from dpbench.system.words import counted

WIDTH = 80
_Column = tuple[str, str, Callable[[Choice], str]]
"""Two lines of heading, and the text of a cell."""


def text(training: Training, chosen: Sequence[Choice]) -> str:
    """Everything that is printed.

    Args:
        training: what the noise is for.
        chosen: at least one choice; all of the same `kappa` and `images_per_user`.
    """
    blocks = [_training(training), _table(chosen), _example(_usual(chosen), training), _legend(chosen[0])]
    return "\n\n".join(blocks)


def _training(training: Training) -> str:
    return _wrapped(
        f"{counted(training.train_size, 'image')} in batches of {training.train_batch_size:,} (expected; "
        f"Poisson sampling), {counted(training.epochs, 'epoch', 'g')}: q = {training.sample_rate:.3g}, "
        f"T = {training.steps:,}. δ = {up(training.delta, 6)}, one image added or removed, noise of σ x C on "
        "the sum of clipped gradients."
    )


def _columns(first: Choice) -> list[_Column]:
    found: list[_Column] = [
        ("", "ε", lambda c: up(c.eps)),
        ("", "σ", lambda c: up_places(c.noise_multiplier)),
        ("ε of", "one", lambda c: up(c.eps_release)),
        ("ReRo", "one", lambda c: up_places(c.rero_release)),
        ("ReRo", "all", lambda c: up_places(c.rero_training)),
        ("ReRo", "known", lambda c: up_places(c.rero_server)),
    ]
    if first.kappa != PRIOR_SUCCESS:
        found.append(("at κ", "all", lambda c: _share(c.rero_training_kappa)))
        found.append(("at κ", "known", lambda c: up_places(c.rero_server_kappa)))
    found += [
        ("", "adv.", lambda c: up_places(c.advantage)),
        ("", "TPR", lambda c: _share(c.power)),
        ("GDP", "μ", lambda c: f"{c.gaussian_mu:.3f}"),
        ("", "±", lambda c: f"{upwards(c.gaussian_distance, 1):.0e}"),
    ]
    if first.images_per_user > 1:
        found.append(("ε of", f"{first.images_per_user}", lambda c: up(c.eps_user)))
    return found


def _table(chosen: Sequence[Choice]) -> str:
    columns = [[top, below, *map(cell, chosen)] for top, below, cell in _columns(chosen[0])]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else " "
    return "\n".join(
        gap.join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _usual(chosen: Sequence[Choice]) -> Choice:
    return min(chosen, key=lambda choice: max(choice.eps, 1 / choice.eps) if choice.eps else float("inf"))


def _example(choice: Choice, training: Training) -> str:
    right = (1 + choice.advantage) / 2
    seen = f"gradients of all {training.steps:,} steps" if training.steps > 1 else "gradient of its one step"
    whole = f"in at most {up_percent(choice.rero_training_kappa)} with the {seen}"
    if training.sample_rate < 1:
        which = "which of them hold it" if training.steps > 1 else "whether it is in it"
        whole += (
            f" if it does not know {which}, in at most {up_percent(choice.rero_server_kappa)} if it does (as "
            "a curious server may)"
        )
    return _wrapped(
        f"At ε = {up(choice.eps)}, an attacker who would rebuild an image in {down(100 * choice.kappa)} % of "
        f"cases without the training does so {whole}, and in at most "
        f"{up_percent(choice.rero_release_kappa)} with one gradient of a batch that is known to hold the "
        "image. Whoever has to tell from the training whether an image was in it, not knowing the batches, "
        f"is right in at most {up_percent(right)} of cases; guessing is right in 50 %."
    )


def _legend(first: Choice) -> str:
    own = f"; at κ: {down(first.kappa)} without them" if first.kappa != PRIOR_SUCCESS else ""
    lines = [
        "one: from one gradient of a batch that is known to hold the image; all: from all gradients of the "
        "training, if nobody knows which batches hold the image; known: from all of them, if the attacker "
        "knows that, as a curious server may. ReRo: bound on the chance to rebuild it, "
        f"{PRIOR_SUCCESS:g} without them{own}.",
        "adv.: membership advantage, true less false positive rate; TPR: true positive rate at a false "
        f"positive rate of {RARE:g}; both at most, as for “all”.",
        "GDP μ: the nearest Gaussian trade-off curve; ±: how far the training's own is from it, at most.",
    ]
    if first.images_per_user > 1:
        lines.append(
            f"ε of {first.images_per_user}: of a person with {first.images_per_user} images, at the same δ, "
            "by group privacy of the curve; ∞: none below 600 was found."
        )
    return "\n".join(_wrapped(line) for line in lines)


def _share(value: float) -> str:
    """Three digits with their zeros, as small ones matter: 0.155, 0.00238."""
    found = upwards(value)
    return f"{found:#.3g}" if found < 1 else "1.000"


def _wrapped(line: str) -> str:
    return textwrap.fill(line, WIDTH)
