"""`benchmark`: one call for people with a model and images of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import defenses as defences
from attacks import Attack
from dpbench.api.given import all_parts, checked, public_of, settings, several, typed
from dpbench.api.session import Progress, carry_out
from dpbench.cell import registered
from dpbench.data.channels import IMAGENET_MEAN, IMAGENET_STD
from dpbench.protocol import Loss
from dpbench.sweep.own_checks import checked_batches, checked_others
from dpbench.sweep.own_forms import form_for
from dpbench.sweep.own_inputs import OwnInputs
from dpbench.sweep.own_model import copied, suited
from dpbench.system import process


def benchmark(
    model: nn.Module,
    images: Tensor | Sequence[Tensor] | torch.utils.data.Dataset | torch.utils.data.DataLoader,
    labels: Tensor | Sequence[Tensor] | None = None,
    *,
    attacks: str | Attack | Sequence[str | Attack] = ("inverting-gradients",),
    defense: str | defences.Chain | defences.Defense | Sequence[Any] = "none",
    labels_known: bool = True,
    others: tuple[Tensor, Tensor] | None = None,
    loss: Loss = F.cross_entropy,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    mean_image: Tensor | None = None,
    victim: str = "trained",
    image_size: int | None = None,
    batch_size: int | None = None,
    batch_seed: int | Sequence[int] = 0,
    device: str | None = None,
    out: str | Path | None = None,
    progress: bool | Progress = True,
    **parameters: Any,
) -> pd.DataFrame:
    """Attack the gradients of `model` on your images, undefended and under each defence.

    Args:
        model: takes images in [0, 1] (normalise inside), returns logits [B, K], or a tuple, mapping or object
            that holds them, or a single logit for each image; used in the mode it is in, in single
            precision, and left as it is (docs/own-model.md).
        images: the batch whose gradient is released: pictures [B, 3, H, W], or grey ones [B, 1, H, W] or
            [B, H, W], in [0, 1] or as bytes, the channels also last; volumes [B, C, D, H, W]; rows of a table
            [B, F] in [0, 1] (docs/data.md). Or a list of such batches; or a data set that gives
            (image, label), of which `batch_size` are drawn; or PyTorch's loader of one, whose order does not
            matter. With `clients=n` the gradient of each batch is summed with those of the n - 1 that follow
            it; after the last one comes the first (docs/aggregation.md).
        labels: int64 [B] in [0, K), one for each image; or a list of them; None with a data set.
        attacks: names of `attacks.names()` or objects of `attacks.create(...)`, one or several.
        defense: names of `defenses.names()`, chained by `+`, or objects of `defenses.create(...)`, one or
            several. The undefended rows come along.
        labels_known: whether the attacker is told the labels.
        others: public images like those attacked, G of them in the same form, and their labels int64 [G]:
            statistics for `malicious-linear`, candidates for `informed`, and the gallery for `identified`
            (candidates and gallery are taken from the first 199). Needed for these two threat models.
        loss: (logits [B, K], labels [B]) -> mean over the batch; of a single logit, its binary
            cross-entropy unless given.
        mean: public per-channel mean of the data in [0, 1], which attacks start from; of a table, the mean
            of each feature.
        std: public per-channel standard deviation.
        mean_image: of the shape of one image, the mean of OTHER images, for the floor; None is the mean of
            `others`, or without them the constant colour `mean`.
        victim: what to call the model's state in the table.
        image_size: the short side of pictures is resized to so many pixels and the centre square cut out;
            None keeps them as they are.
        batch_size: images drawn from a data set; a loader has its own.
        batch_seed: which batches are drawn from it, by the rule `random` of `dpbench.data.draw_disjoint`.
        device: `cpu` or `cuda`; None takes the graphics card if there is one.
        out: a folder to keep the run in, with the same files as the command line's: called again, the run
            goes on where it ended. None keeps nothing.
        progress: True shows a progress bar, False nothing; or a function that is told how far each cell is.
        **parameters: any other option of the command line that decides results, with dashes as underscores
            (`eps=[1, 8]`, `bn_stats="exact"`, `tv=0.1`, `threat_model="informed"`, ...), those of your own
            attacks and defences included. `eps` is the budget of your training: give its `train_size`,
            `train_batch_size` (the word `batch` where a step holds the attacked images and no others),
            `epochs` and `delta`. Several values are all run. `python -m dpbench.run --help` lists
            them.

    Returns:
        One row per image, attack and defence, floors and undefended rows included; the columns of
        `dpbench.store.columns`. A cell that does not fit has `status` skipped, and `error` says why.

    Raises:
        InputError: for images, labels, a model, an option or a defence that cannot be used, where `others`
            are missing or too few, and where nothing at all could be run; in one sentence.

    Example:
        >>> from dpbench.victim.networks import build
        >>> images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> model = build("lenet", num_classes=5, size=16)
        >>> table = benchmark(model, images, torch.tensor([3]), defense="clip", iterations=2, device="cpu",
        ...                   progress=False)
        >>> sorted(table["attack"].unique())
        ['floor:constant-image', 'floor:mean-image', 'floor:noise-gradient', 'floor:start', \
'inverting-gradients']
        >>> sorted(table["defense"].unique())
        ['clip', 'none']
    """
    with process.clean_state():
        registered.load()
        kept = copied(model)
        batch_size, image_size = checked("batch_size", batch_size), checked("image_size", image_size)
        seeds = tuple(checked("batch_seed", seed) for seed in several(batch_seed))
        batches = checked_batches(images, labels, batch_size, seeds, image_size)
        form = form_for(kept, batches[0][0])
        batches = [(form(x), y, places) for x, y, places in batches]
        loss, num_classes = suited(kept, loss, batches)
        if others is not None:
            others = checked_others(others, batches, num_classes, form, image_size)
        public = public_of(others, mean, std, mean_image, batches[0][0].shape[1:])
        inputs = OwnInputs(kept, loss, num_classes, batches, public, typed("victim", victim, str))
        values = settings("benchmark", parameters) | {
            "attack": all_parts("attacks", attacks),
            "defense": all_parts("defense", defense),
            "labels": ("known" if typed("labels_known", labels_known, bool) else "inferred",),
        }
        engine = parameters.get("engine", "auto")
        return carry_out(inputs, values, device=device, engine=engine, out=out, progress=progress)
