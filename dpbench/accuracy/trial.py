"""One training to be done: what decides its accuracy, and where that is kept once it is known."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dpbench import __version__
from dpbench.accuracy.data import Images, checked
from dpbench.accuracy.setting import Setting
from dpbench.accuracy.train import fresh, train
from dpbench.accuracy.update import CLIPPED, steps
from dpbench.system import behaviour, cache, digest, source
from dpbench.system.atomic import clear_leftovers, refused_as_sentence, replacing

Row = dict[str, Any]
Tell = Callable[[int, int], None]
"""(images done, images in all)."""


@dataclass(frozen=True)
class Model:
    """A model that is trained again and again.

    Attributes:
        name: in the column `utility_model`.
        build: (shape of an input, classes) -> the model, its weights drawn from PyTorch's random state.
        learning_rate: of Adam, where the defence adds Gaussian noise.
        without_noise: of Adam, under all other defences and none.
        features: what is computed of each image once, before any training; None where nothing is.
    """

    name: str
    build: Callable[[tuple[int, ...], int], nn.Module]
    learning_rate: float
    without_noise: float
    features: Callable[[Tensor, Tell], Tensor] | None = None

    def made(self, shape: tuple[int, ...], num_classes: int, seed: int = 0) -> nn.Module:
        """The model as a training begins with; the caller's random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            return fresh(lambda: self.build(shape, num_classes), seed)

    def digest(self, shape: tuple[int, ...], num_classes: int, seed: int) -> str:
        """A hash of what is trained: code, structure, attributes and first weights."""
        # a model behind features is described by one of few inputs: their number follows from the images
        model = self.made((8,) if self.features else shape, num_classes, seed)
        kinds = {type(m) for m in model.modules() if not type(m).__module__.startswith(("torch.", "opacus."))}
        parts = [*kinds, self.features] if self.features else kinds
        described = {
            "structure": str(model),
            "code": sorted(_code(part) for part in parts),
            "weights": digest.tensors(dict(model.state_dict())),
        }
        # layers of PyTorch and of dpbench print all that they are, except whether they train
        theirs = any(not kind.__module__.startswith("dpbench.") for kind in kinds)
        if theirs or not all(p.requires_grad for p in model.parameters()):
            described["behaviour"] = behaviour.of_module(model)
        return digest.described(described)


@dataclass(frozen=True)
class Trial:
    """One training: a model, a defence and a seed.

    Attributes:
        model: what is trained.
        setting: under which defence, and how long.
        seed: of weights, batches and noise.
        images: as they were given, of the setting's size.
        device: `cpu` or `cuda`.
    """

    model: Model
    setting: Setting
    seed: int
    images: Images
    device: str

    @cached_property
    def key(self) -> str:
        """The hash of everything that decides the accuracy.

        Raises:
            InputError: where the defence cannot be trained.
        """
        images, stages = self.images, self.setting.chain.stages
        shape = tuple(images.train[0].shape[1:])
        described = {
            "model": self.model.digest(shape, images.num_classes, self.seed),
            "learning_rate": self.learning_rate,
            "images": images.digest,
            "seed": self.seed,
            "device": self.device,
            "stages": str([(stage.name, stage.values()) for stage in stages]),
            "sampling": str(self.setting.sampling),
            "train_batch_size": self.setting.train_batch_size,
            "code": [_code(part) for part in (train, steps, checked)],
            # of what Opacus trains under, no code of ours plays a part
            "stages' code": source.digest(*(type(stage) for stage in stages if stage.name not in CLIPPED)),
            "versions": " ".join([__version__, *(version(name) for name in ("torch", "opacus"))]),
        }
        return digest.described(described)

    @property
    def learning_rate(self) -> float:
        """Of Adam."""
        return self.model.learning_rate if self.setting.noisy else self.model.without_noise

    def row(self) -> Row:
        """The columns that are known before the training."""
        return self.setting.row() | {
            "utility_model": self.model.name,
            "utility_seed": self.seed,
            "learning_rate": self.learning_rate,
            "test_size": len(self.images.test[1]),
            "chance": self.images.chance,
        }

    def kept(self) -> Row | None:
        """Accuracy and seconds of an earlier training of this key; None where there was none.

        Raises:
            InputError: as `dpbench.system.cache.folder`: what would be trained could not be kept.
        """
        file = self._file()
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            return {name: float(found[name]) for name in ("accuracy", "seconds")}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def keep(self, found: Row) -> None:
        """Put accuracy and seconds into the cache folder.

        Raises:
            InputError: the disk is full or the folder cannot be written; earlier trainings stay.
        """
        file = self._file()
        with refused_as_sentence(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(file.parent)
        with replacing(file) as temporary:
            text = json.dumps(found | {"title": self.title()}, indent=2) + "\n"
            temporary.write_text(text, encoding="utf-8")

    def title(self) -> str:
        """One line for messages."""
        return f"{self.model.name} under {self.setting.title()}, seed {self.seed}"

    def _file(self) -> Path:
        return folder() / f"{self.key}.json"


def _code(part: type | Callable) -> str:
    """The hash of the file that holds a part of dpbench's; of a user's, all that it imports from its package.

    An accuracy took minutes: a change elsewhere in dpbench is none of its business.
    """
    if part.__module__.startswith("dpbench."):
        return source.of_file(Path(sys.modules[part.__module__].__file__))
    return source.digest(part)


def folder() -> Path:
    """Where the accuracies of trainings are kept."""
    return cache.folder() / "utility"
