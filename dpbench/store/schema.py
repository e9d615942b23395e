"""The columns of every result: the one place that says what each is called, holds and means.

Images are RGB in [0, 1]. A missing value is empty in CSV, NaN in a float column and `pandas.NA` in
the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """One column of the results.

    Attributes:
        name: as in `results.parquet`.
        dtype: pandas' name: `string`, `Int64`, `float64` or `boolean`; all have a missing value.
        unit: `dB`, `s`, ...; empty for plain numbers and words.
        meaning: one line.
        condition: it describes what was tried, so rows that differ in it are never averaged. Seeds and image
            numbers are what tables average over, measurements are what they average: both are no condition.
    """

    name: str
    dtype: str
    unit: str
    meaning: str
    condition: bool = False


def _words(name: str, meaning: str, condition: bool = False) -> Column:
    return Column(name, "string", "", meaning, condition)


def _count(name: str, meaning: str, condition: bool = False) -> Column:
    return Column(name, "Int64", "", meaning, condition)


def _number(name: str, meaning: str, unit: str = "", condition: bool = False) -> Column:
    return Column(name, "float64", unit, meaning, condition)


def _flag(name: str, meaning: str, condition: bool = False) -> Column:
    return Column(name, "boolean", "", meaning, condition)


SCHEMA: tuple[Column, ...] = (
    _words("key", "the cell: hash of everything that decides its outcome, and the name of its file"),
    _words("attack", "attack, or `floor:...` for what needs no gradient of these images", True),
    _words("floor_of", "floor rows: the attack that was fed noise, or whose start this is", True),
    _flag("adaptive", "the attack knew the defence and used it", True),
    _words("defense", "defence, stages joined by `+`", True),
    _number("eps", "privacy budget of the whole training; empty under the release scope", "", True),
    _number(
        "eps_release",
        "privacy budget of the attacked release(s) alone, the batch fixed but for `inclusion`",
        "",
        True,
    ),
    _number("eps_replace", "eps_release if a sample is replaced, not added or removed (2C)", "", True),
    _number("delta", "delta of all budgets", "", True),
    _number("noise_multiplier", "sigma: noise on the sum has standard deviation sigma * C", "", True),
    _number("max_grad_norm", "C: bound on each sample's gradient, l2", "", True),
    _number("noise_std", "defence `noise`: standard deviation on the mean gradient", "", True),
    _number("prune_ratio", "share of gradient entries set to zero", "", True),
    _words("prune_scope", "`layer` or `global`: where the smallest entries are sought", True),
    _number("sample_rate", "q: expected batch over training-set size", "", True),
    _count("steps", "T: optimiser steps of the training", True),
    _count("train_size", "N: size of the training set that eps is for", True),
    _number("epochs", "passes over the training set that eps is for", "", True),
    _words("accountant", "what computed eps: `pld`, `prv`, `rdp` or `analytic`", True),
    _words("eps_scope", "`training` or `release`: which budget was set", True),
    _words("adjacency", "neighbouring relation of both budgets", True),
    _number("rero_release", "bound on the chance to rebuild a sample from the release, prior 0.1", "", True),
    _words("threat_model", "`honest`, `malicious-linear` or `informed`: what it knows and may do", True),
    _words("prior", "analytic attack under noise: what it believes of images", True),
    _count("releases", "number of releases the attacker saw", True),
    _words("model", "victim network", True),
    _words("norm", "its normalisation: `frozen-bn`, `gn` or `none`", True),
    _words("mode", "`eval` or `train`: the victim's mode when the gradient was taken", True),
    _words("victim", "`trained`, `early` or `untrained`", True),
    _words("weights", "the user's own weights file, by hash", True),
    _number("victim_accuracy", "its accuracy on the test set, 0 to 1", "", True),
    _words(
        "bn_stats",
        "where the attacker has batch-norm statistics from: running (public), exact or recovered (un-noised "
        "statistics of the batch: an oracle, under dp without epsilon and bound), none",
        True,
    ),
    _number(
        "logit_scale", "what the victim's last layer was multiplied by; 1 is the victim itself", "", True
    ),
    _words("preset", "gradinversion: whose weights and steps", True),
    _words("terms", "gradinversion: gradient, + fidelity, + lazy group, + registered group", True),
    _words("matching", "gradinversion: how gradients were compared; empty is the preset's own", True),
    _words("label_rule", "how labels were inferred, where the attack has a choice", True),
    _words("generator", "latent-projection: what was searched", True),
    _words("labels", "`known`, `inferred` or `joint`: how the attacker has the labels", True),
    _words("label_draw", "`distinct` or `random`: how the batch was drawn", True),
    _words("data", "data set of the attacked images", True),
    _count("batch_size", "images in the batch", True),
    _count("batch_seed", "seed that drew the batch"),
    _count("attack_seed", "seed of the attack"),
    _count("image", "place of the image in its batch, from 0"),
    _count("original_index", "place of the image in the data set, from 0"),
    _count("label", "its true class"),
    _number("image_loss", "the victim's loss on the image", "nat"),
    _number("image_grad_share", "its gradient norm over the sum of the batch's, 0 to 1"),
    _number("psnr", "peak signal-to-noise ratio, peak 1; infinite if identical", "dB"),
    _number(
        "psnr_unbiased_probe", "planted layer: PSNR of the unbiased estimate; no bound, priors beat it", "dB"
    ),
    _number("ssim", "structural similarity, Gaussian window, border cropped"),
    _number("lpips", "perceptual distance, lower is more alike; empty without the real trunk"),
    _words("lpips_net", "its trunk: `alex` or `vgg`"),
    _number("fft2d", "mean squared difference of orthonormal 2-D FFT magnitudes"),
    _count("candidates", "informed attacker: candidates for the sample, one of them true", True),
    _count("trials", "informed attacker: how often it was tried, each candidate being true equally often"),
    _number("inclusion", "q: chance of the sample to be in each release; empty where it is in all", "", True),
    _number("success", "informed attacker: share of trials in which it picked the true candidate"),
    _number("success_low", "its exact 95 % interval (Clopper-Pearson), lower end"),
    _number("success_high", "upper end"),
    _number("success_bound", "ReRo bound on success, prior 1 / candidates"),
    _number("membership", "informed attacker: share right on whether the sample is in the batch, prior 1/2"),
    _flag("identified", "the original was picked out of a gallery by the reconstruction"),
    _count("gallery_size", "images in that gallery"),
    _flag("iip", "a network's features pick the original out of a gallery that holds the whole batch"),
    _words("iip_net", "that network; empty without its real weights"),
    _number("iip_chance", "chance of a blind guess at it: 1 over the images in that gallery"),
    _flag(
        "label_correct",
        "the attack's label for the image was right; label-restoration: it is among those restored",
    ),
    _number("psnr_floor", "highest PSNR among the floors of the same image", "dB"),
    _number("lpips_floor", "lowest LPIPS among the floors of the same image"),
    _number("gradient_distance", "the attack's objective at the end, without priors"),
    _words("engine", "what ran the iterations"),
    _count("max_iterations", "iterations asked for; empty is the attack's own default", True),
    _count("restarts", "restarts asked for; empty is the attack's own default", True),
    _count("iterations", "objective evaluations spent, over all restarts"),
    _number("seconds", "time of the search, compilation excluded; the same for all images of a cell", "s"),
    _number("compile_seconds", "time of compilation", "s"),
    _words("device", "what it ran on"),
    _words("version", "dpbench's version"),
    _words("status", "`ok`, `failed` or `skipped`"),
    _words("error", "why, where it is not `ok`"),
)
COLUMNS: dict[str, Column] = {column.name: column for column in SCHEMA}
CONDITIONS: tuple[str, ...] = tuple(column.name for column in SCHEMA if column.condition)

_ARROW: dict[str, pyarrow.DataType] = {
    column.name: {
        "string": pyarrow.large_string(),
        "Int64": pyarrow.int64(),
        "float64": pyarrow.float64(),
        "boolean": pyarrow.bool_(),
    }[column.dtype]
    for column in SCHEMA
}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "Int64": (int,),
    "float64": (float, int),
    "boolean": (bool,),
}


def checked(row: Mapping[str, Any]) -> Row:
    """Check one row against the schema and drop its missing values.

    Args:
        row: column names to plain values, NumPy scalars or one-element tensors; None and NaN are missing.

    Returns:
        The row in plain Python values, in the schema's order.

    Raises:
        ValueError: an unknown column, or a value of another type than the column's.

    Example:
        >>> checked({"psnr": 12, "attack": "dlg", "lpips": None})
        {'attack': 'dlg', 'psnr': 12.0}
        >>> checked({"pnsr": 12.0})
        Traceback (most recent call last):
        ...
        ValueError: Unknown column(s) pnsr; add them to dpbench/schema.py or correct the name.
    """
    unknown = sorted(set(row) - set(COLUMNS))
    if unknown:
        raise ValueError(
            f"Unknown column(s) {', '.join(unknown)}; add them to dpbench/schema.py or correct the name."
        )
    values = {name: _plain(column, row[name]) for name, column in COLUMNS.items() if name in row}
    return {name: value for name, value in values.items() if value is not None}


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Put checked rows into a table with every column of the schema, each of its dtype."""
    return to_pandas(pyarrow.Table.from_batches([record_batch(list(rows))]))


def record_batch(rows: Sequence[Mapping[str, Any]]) -> pyarrow.RecordBatch:
    """The same in Arrow's compact form.

    Raises:
        pyarrow.ArrowInvalid, pyarrow.ArrowTypeError: a value that does not fit its column.
    """
    arrays = [pyarrow.array([row.get(name) for row in rows], kind) for name, kind in _ARROW.items()]
    return pyarrow.RecordBatch.from_arrays(arrays, names=list(_ARROW))


def to_pandas(table: pyarrow.Table) -> pd.DataFrame:
    """A table of `record_batch`es in the schema's dtypes; `table` is used up."""
    kinds = {_ARROW[column.name]: pd.api.types.pandas_dtype(column.dtype) for column in SCHEMA}
    del kinds[pyarrow.float64()]  # NumPy's own
    return table.to_pandas(types_mapper=kinds.get, split_blocks=True, self_destruct=True)


def conform(table: pd.DataFrame) -> pd.DataFrame:
    """Give a table the schema's columns in order and dtype; missing ones are empty, unknown ones go last."""
    others = [name for name in table.columns if name not in COLUMNS]
    dtypes = {name: column.dtype for name, column in COLUMNS.items()}
    return table.reindex(columns=[*COLUMNS, *others]).astype(dtypes)


def _plain(column: Column, value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    # bool is an int to Python, but a True among counts is a mistake
    if not isinstance(value, _TYPES[column.dtype]) or (isinstance(value, bool) and column.dtype != "boolean"):
        raise ValueError(f"Column {column.name} holds {column.dtype}, not {value!r}.")
    return float(value) if column.dtype == "float64" else value
