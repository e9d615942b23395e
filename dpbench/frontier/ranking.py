"""What counts as a success: the attacked image ranks first among itself and 199 decoys of its label.

Each image of this gallery scores its best correlation with any of the attack's B outputs, and the attacked
one succeeds if it alone scores best. The informed attacker rebuilds no image: it has the gallery as its
candidates, and succeeds if it picks the attacked one. Given the label and all that was drawn before, the
image and its decoys are exchangeable: the data set is in random order, and the decoys are drawn at random
from what is not in this batch or an earlier one. So if the outputs tell nothing of the image but its label,
the chance is 1/200, whatever happened in the batches before; a tie counts as a failure and can only lower it.

Of each batch one image is taken, chosen at random beforehand: images of a batch share its release. Of a
fishing server's it is one of the class that it fishes for, as it hears no other. Images that are in the data
set more than once are neither attacked nor decoys, for a copy would always tie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from dpbench.cell.result import CellResult
from dpbench.cell.scene import Scene, prepare
from dpbench.cell.spec import BatchSpec
from dpbench.data import Dataset, disjoint_places
from dpbench.frontier.evidence import FEWEST, MOST
from dpbench.metrics import GALLERY, identified
from dpbench.protocol import InputError
from dpbench.system import seeds

FIRST_SEED = 1000
"""Seed of the first batch; those below are for tuning."""


class Ranking:
    """The image that is asked about in each batch, and its decoys.

    Attributes:
        batches: how many batches can be drawn, at most `MOST`; their seeds begin with `FIRST_SEED`.

    Args:
        data: the data set, with at least `GALLERY` images of each label after the batches are drawn.
        batch_size: B.
        label_draw: how batches are drawn.

    Raises:
        InputError: where the data set is too small.
    """

    def __init__(self, data: Dataset, batch_size: int, label_draw: str) -> None:
        self._data = data
        self._of_label = cache(self._of_label)
        fewest = int(data.labels.unique(return_counts=True)[1].min())
        if fewest < GALLERY:
            raise InputError(
                f"A frontier needs {GALLERY} images of each label or more, and {data.name} has {fewest} of "
                "one: give `data` cifar10 or a larger folder."
            )
        self._places = disjoint_places(data, batch_size, FIRST_SEED, MOST, label_draw)
        self.batches = self._enough()

    def check_verdicts(self) -> None:
        """InputError where there are too few batches for a verdict."""
        if self.batches < FEWEST:
            raise InputError(
                f"A verdict takes up to {FEWEST} disjoint batches or more, and there are {self.batches}: "
                "take a smaller `batch_size`, a larger data set, or `quick`."
            )

    def _enough(self) -> int:
        """How many batches leave enough decoys."""
        left = self._data.labels.bincount()
        for count, places in enumerate(self._places):
            left -= self._data.labels[list(places)].bincount(minlength=len(left))
            if any(left[self._data.labels[place]] < GALLERY - 1 for place in places):
                return count
        return len(self._places)

    def fill(self, seed: int, result: CellResult) -> None:
        """Add `ranked_first`, `best_correlation` and `best_output` to the row of the image asked about.

        The informed attacker's one row has `ranked_first` alone. Where each image of the batch has a copy in
        the data set, none is asked about.

        Args:
            seed: of the batch.
            result: of an attack on it that ended well; the informed attacker's in the scene of `candidates`.
        """
        found = self.drawn(seed, _fished(result.rows))
        if found is None:
            return
        image, decoys = found
        if "success" in result.rows[0]:
            result.rows[0]["ranked_first"] = result.rows[0]["success"] == 1
            return
        size = len(self._places[seed - FIRST_SEED])
        outputs, original = result.images[:size], result.originals[image]
        mean_image = self._data.mean_image
        others = self._data.images[torch.tensor(decoys)].float() / 255
        row = result.rows[image]
        row["ranked_first"] = bool(identified(outputs, original[None], others, mean_image))
        row["best_correlation"], row["best_output"] = best_correlation(outputs, original, mean_image)

    def candidates(self, batch: BatchSpec) -> Scene:
        """The scene of an informed attacker: the image asked about first, and its decoys as the others.

        Raises:
            InputError: as `prepare`, and where copies leave too few decoys.
        """
        scene, found = prepare(batch), self.drawn(batch.batch_seed)
        if found is None:
            return scene
        image, decoys = found
        order = [image, *(i for i in range(len(scene.images)) if i != image)]
        places = torch.tensor(decoys)
        return replace(
            scene,
            images=scene.images[order],
            labels=scene.labels[order],
            indices=tuple(scene.indices[i] for i in order),
            others=(self._data.images[places].float() / 255, self._data.labels[places]),
        )

    def drawn(self, seed: int, label: int | None = None) -> tuple[int, list[int]] | None:
        """Place in its batch of the image that is asked about, and places in the data set of its decoys.

        Args:
            seed: of the batch.
            label: the one that is asked about; None for whichever is drawn.

        Returns:
            None where each image of the batch, or of the label in it, has a copy in the data set.

        Raises:
            InputError: where copies leave too few decoys.
        """
        number = seed - FIRST_SEED
        places = self._places[number]
        attacked = {place for batch in self._places[: number + 1] for place in batch}
        generator = torch.Generator().manual_seed(seeds.seed("frontier", seed))
        for image in torch.randperm(len(places), generator=generator).tolist():
            own = int(self._data.labels[places[image]])
            if places[image] not in self._of_label(own) or label not in (None, own):
                continue
            pool = [place for place in self._of_label(own) if place not in attacked]
            if len(pool) < GALLERY - 1:
                raise InputError(
                    f"{self._data.name} has too few different images of label {own}, {len(pool)} decoys of "
                    f"{GALLERY - 1}: give `data` with more of them."
                )
            order = torch.randperm(len(pool), generator=generator)[: GALLERY - 1]
            return image, [pool[i] for i in order.tolist()]
        return None

    def _of_label(self, label: int) -> dict[int, None]:
        """Places of the images of a label that are in the data set once, ascending."""
        places = (self._data.labels == label).nonzero().flatten().tolist()
        pixels = [self._data.images[torch.tensor([place])].numpy().tobytes() for place in places]
        count: dict[bytes, int] = {}
        for each in pixels:
            count[each] = count.get(each, 0) + 1
        return {place: None for place, each in zip(places, pixels, strict=True) if count[each] == 1}


def _fished(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The label that a fishing server hears; None for all other attackers, who hear all."""
    if rows[0].get("threat_model") != "fishing":
        return None
    target = rows[0].get("target")
    return int(rows[0]["label"]) if target is None or pd.isna(target) else int(target)


def best_correlation(outputs: Tensor, original: Tensor, mean_image: Tensor) -> tuple[float, int]:
    """The highest correlation of an original with any output, of pixels less the public mean image.

    Args:
        outputs: [B, 3, H, W] in [0, 1].
        original: [3, H, W] in [0, 1].
        mean_image: likewise.

    Returns:
        The correlation, from -1 to 1 and 0 where the outputs are the mean image, and the output's place.
    """
    centred = [(x.double() - mean_image.double()).flatten(1) for x in (outputs, original[None])]
    guesses, own = (torch.nn.functional.normalize(x, dim=1) for x in centred)
    found = (guesses @ own[0]).max(0)
    return float(found.values), int(found.indices)
