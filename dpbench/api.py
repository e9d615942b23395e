"""One call for people with a model of their own."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

import defenses as defences
from attacks import Attack
from dpbench import __version__, metrics, store
from dpbench.cell import registered
from dpbench.cell.spec import Cell, Part, Runtime
from dpbench.data.channels import IMAGENET_MEAN, IMAGENET_STD
from dpbench.protocol import InputError, Loss
from dpbench.protocol.spelling import meant
from dpbench.report.export import export
from dpbench.sweep import engines, executors
from dpbench.sweep.axes import options
from dpbench.sweep.own_checks import check_model, checked_batches, checked_others
from dpbench.sweep.own_inputs import OwnInputs, Public
from dpbench.sweep.plan import plan
from dpbench.sweep.session import Session
from dpbench.system import digest, process
from dpbench.system.paths import absolute

Progress = Callable[[Cell, int, int, float], None]
"""(cell, iterations done, iterations in all, objective value) -> None."""
_NOT_HERE = (
    "data",
    "image_size",
    "model",
    "norm",
    "weights",
    "label_draw",
    "logit_scale",
    "labels",
    "plugin",
)
_NOT_HERE += ("batch_size", "batch_seed", "attack", "victim")
"""Options of the command line that stand for the model and the images, which are given here."""


def benchmark(
    model: nn.Module,
    images: Tensor | Sequence[Tensor] | torch.utils.data.Dataset,
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
    batch_size: int | None = None,
    batch_seed: int | Sequence[int] = 0,
    device: str | None = None,
    out: str | Path | None = None,
    progress: bool | Progress = True,
    **parameters: Any,
) -> pd.DataFrame:
    """Attack the gradients of `model` on your images, undefended and under each defence.

    Args:
        model: takes images in [0, 1] (normalise inside), returns logits [B, K]; used in the mode it is in,
            in single precision, and left as it is.
        images: float [B, 3, H, W] in [0, 1], the batch whose gradient is released; or a list of such batches;
            or a data set that gives (image [3, H, W], label), of which `batch_size` are drawn.
        labels: int64 [B] in [0, K), one for each image; or a list of them; None with a data set.
        attacks: names of `attacks.names()` or objects of `attacks.create(...)`, one or several.
        defense: names of `defenses.names()`, chained by `+`, or objects of `defenses.create(...)`, one or
            several. The undefended rows come along.
        labels_known: whether the attacker is told the labels.
        others: public images like those attacked, float [G, 3, H, W] in [0, 1], and their labels int64 [G]:
            statistics for `malicious-linear`, candidates for `informed`, and the gallery for `identified`
            (candidates and gallery are taken from the first 199). Needed for these two threat models.
        loss: (logits [B, K], labels [B]) -> mean over the batch.
        mean: public per-channel mean of the data in [0, 1], which attacks start from.
        std: public per-channel standard deviation.
        mean_image: [3, H, W], the mean of OTHER images, for the floor; None is the mean of `others`, or
            without them the constant colour `mean`.
        victim: what to call the model's state in the table.
        batch_size: images drawn from a data set.
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
        kept = copy.deepcopy(model).cpu().float()
        batches = checked_batches(images, labels, batch_size and int(batch_size), _several(batch_seed))
        num_classes = check_model(kept, batches)
        if others is not None:
            others = checked_others(others, batches, num_classes)
        height_and_width = batches[0][0].shape[2:]
        public = Public(
            _floats(mean), _floats(std), _mean_image(mean_image, others, mean, height_and_width), others
        )
        inputs = OwnInputs(kept, loss, num_classes, batches, public, victim)
        values = _values(parameters) | {
            "attack": tuple(map(_part, _several(attacks))),
            "defense": tuple(map(_part, _several(defense))),
            "labels": ("known" if labels_known else "inferred",),
        }
        runtime = Runtime(
            device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
            engine=parameters.get("engine", "auto"),
            lpips_net=None if metrics.why_no_lpips(*height_and_width) else "alex",
            version=__version__,
        )
        cells = engines.choose(plan(values, inputs, runtime).cells)
        with _folder(out) as folder:
            configuration = {name: str(value) for name, value in sorted(values.items()) if value} | {
                "device": runtime.device,
                "version": runtime.version,
                "inputs": digest.described(
                    {cell.batch.images_digest + cell.batch.weights_digest: "" for cell in cells}
                ),
            }
            results = store.open_run(folder, configuration)
            session = Session.begin(results, cells)
            for line in session.sort_out():
                warnings.warn(line, RuntimeWarning, stacklevel=2)
            executor = executors.Local(inputs.scene)
            if callable(progress):
                executor = _Told(executor, progress)
            console = Console(stderr=True)
            # without a terminal a notebook's cell or a log would fill with lines that nobody asked for
            quiet = progress is not True or not (console.is_terminal or console.is_jupyter)
            session.run(session.missing(), executor, console, quiet)
            table = store.attach_floors(results.frame(session.cells))
            if out is not None:
                export(results, table)
        attacked = table[table["floor"].isna()]
        if not (attacked["status"] == "ok").any():
            raise InputError(f"Nothing that was asked for could be run. {attacked['error'].iloc[0]}")
        return table


def load(path: str | Path) -> pd.DataFrame:
    """Read a run's results; see `dpbench.store.load`."""
    registered.load()
    return store.load(path)


class _Told:
    """An executor whose progress goes to the caller's function."""

    def __init__(self, inner: executors.Local, tell: Progress) -> None:
        self.slots, self._inner, self._tell = inner.slots, inner, tell

    def __call__(self, cells: Any, progress: Any) -> Iterator[Any]:
        return self._inner(cells, self._tell)


def _values(given: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """What a sweep varies: the options given here, and the defaults of the others."""
    known = {name: each for name, each in options().items() if name not in _NOT_HERE}
    values = {name: each.default for name, each in known.items() if each.several}
    for name, value in given.items():
        if name not in known or not known[name].decides:
            listed = ", ".join(name for name, each in known.items() if each.decides)
            raise InputError(f"benchmark() takes no {name}{meant(name, known)}; it takes {listed}.")
        if known[name].several and value is not None:
            values[name] = known[name].checked(list(_several(value)))
    if values["eps"] and values["noise_multiplier"]:
        raise InputError("Give `eps` or `noise_multiplier`, not both: one follows from the other.")
    return values


def _part(given: Any) -> str | Part:
    """A name, or what an object differs in from its defaults."""
    if isinstance(given, str):
        return given
    if not isinstance(given, Attack | defences.Defense | defences.Chain):
        raise InputError(f"{given!r} is neither a name nor an attack or a defence.")
    if not getattr(given, "name", ""):
        kind = type(given).__name__
        raise InputError(
            f"{kind} is not registered: put @attack('name') or @defense('name') above the class."
        )
    return Part(name=given.name, parameters=tuple(sorted(given.changed().items())))


def _mean_image(
    given: Tensor | None,
    others: tuple[Tensor, Tensor] | None,
    mean: Sequence[float],
    height_and_width: Sequence[int],
) -> Tensor:
    if given is not None:
        return torch.as_tensor(given).detach().cpu().float().clone()
    if others is not None:
        return others[0].mean(0)
    return torch.tensor(_floats(mean))[:, None, None].expand(len(mean), *height_and_width).clone()


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    if out is not None:
        yield absolute(out)
        return
    with tempfile.TemporaryDirectory(prefix="dpbench-") as folder:
        yield Path(folder) / "run"


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _several(value: object) -> tuple[Any, ...]:
    """One value or several, in plain Python: numbers may come from NumPy or PyTorch."""
    if value is None:
        return ()
    if isinstance(value, np.ndarray | Tensor) and value.ndim:
        value = value.tolist()
    found = value if isinstance(value, list | tuple) else (value,)
    return tuple(each.item() if isinstance(each, np.generic | Tensor) else each for each in found)
