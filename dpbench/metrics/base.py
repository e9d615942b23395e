"""What a metric is: a function over `Scored` that declares its columns, and the registry that holds them all.

A metric is one file:

    @metric("brightness", columns=(Column("brightness", "float64", "measured", "difference of means"),))
    def brightness(scored: Scored) -> dict[str, Tensor]:
        return {"brightness": (scored.images.mean((1, 2, 3)) - scored.originals.mean((1, 2, 3))).abs()}
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from dpbench.assets import AssetUnavailable
from dpbench.metrics.checks import checked_pair
from dpbench.protocol import InputError
from dpbench.protocol.registry import Registry
from dpbench.store.columns import DTYPES, Column, add

Values = Mapping[str, Tensor | Sequence[Any]]
"""Names of columns to one value per original, in the order of the originals; None and NaN are empty."""
Function = Callable[["Scored"], Values]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What is scored: one attack's images beside their originals. `dpbench.metrics.matched` makes it.

    Attributes:
        images: [B, 3, H, W] in [0, 1]; `images[i]` is the one reconstruction assigned to `originals[i]`.
        outputs: the same images in the order in which the attack returned them.
        originals: [B, 3, H, W] in [0, 1], on the same device.
        order: int64 [B]; `images` is `outputs[order]`.
        labels: int64 [B], the true ones.
        mean_image: [3, H, W] in [0, 1], the public mean of other people's images.
        found_labels: int64 [B], the attack's own, in its order; None where it has none.
        others: images of the same data outside the batch, [G, 3, H, W] in [0, 1] with G >= 1, and their
            labels, int64 [G]; None where there are none.
        lpips_net: `alex` or `vgg`, whose trunk can be had here for images of this size; None if none can.
        rebuilds_images: False for an attack on labels alone, whose images are a placeholder.

    Raises:
        InputError: for images that cannot be scored (see `checked_pair`), or others of another size.
    """

    images: Tensor
    outputs: Tensor
    originals: Tensor
    order: Tensor
    labels: Tensor
    mean_image: Tensor
    found_labels: Tensor | None = None
    others: tuple[Tensor, Tensor] | None = None
    lpips_net: str | None = None
    rebuilds_images: bool = True

    def __post_init__(self) -> None:
        images, originals = checked_pair(self.images, self.originals)
        outputs, _ = checked_pair(self.outputs, self.originals)
        if self.others is not None and self.others[0].shape[1:] != originals.shape[1:]:
            raise InputError(
                f"The gallery's images must have the originals' size, {tuple(originals.shape[1:])}, not "
                f"{tuple(self.others[0].shape[1:])}."
            )
        for name, value in (("images", images), ("outputs", outputs), ("originals", originals)):
            object.__setattr__(self, name, value)
        if self.others is not None and not len(self.others[0]):
            object.__setattr__(self, "others", None)


@dataclass(frozen=True)
class Metric:
    """The declaration of a metric.

    Attributes:
        name: of the metric, and of its main column.
        columns: all of its columns, floors included.
        better: whether the main column is higher or lower the closer an image is to its original; None where
            neither can be said.
        floor: whether the table has a column `NAME_floor`, the best value had without the gradient.
        needs_images: it is of images, so it is not asked about attacks on labels alone.
        function: what measures; its module is the metric's code.
    """

    name: str
    columns: tuple[Column, ...]
    better: Literal["higher", "lower"] | None
    floor: bool
    needs_images: bool
    function: Function


METRICS: Registry[Function] = Registry("metric", "dpbench.metrics")
_declared: dict[Function, Metric] = {}


def metric(
    name: str,
    *,
    columns: tuple[Column, ...],
    better: Literal["higher", "lower"] | None = None,
    floor: bool = False,
    needs_images: bool = True,
) -> Callable[[Function], Function]:
    """Decorator that registers a function as a metric and adds its columns to the results.

    The function takes a `Scored` and returns `Values`. What cannot be computed for these images is left out,
    or refused with an InputError: either leaves the columns empty. Any other exception fails the cell.

    Args:
        name: of the metric; where `better` is given, also of its main column.
        columns: role `measured`, or `provenance` for what says how it was measured.
        better: whether the main column is higher or lower the closer an image is to its original.
        floor: add the column `NAME_floor`; needs `better`.
        needs_images: False for a metric of labels, to be asked about attacks on labels alone, too.

    Raises:
        ValueError: for a name that another metric has.
        TypeError: for a column that stands for something else elsewhere or has another role, one of
            another type than pandas' four, or a direction without a main column.
    """
    main = {column.name: column for column in columns}.get(name)
    if wrong := [column.name for column in columns if column.role not in ("measured", "provenance")]:
        raise TypeError(f"Metric {name}: {', '.join(wrong)} must have the role measured or provenance.")
    if wrong := [column for column in columns if column.dtype not in DTYPES.values()]:
        raise TypeError(
            f"Metric {name}: the type of {wrong[0].name} must be one of {', '.join(DTYPES.values())}, not "
            f"{wrong[0].dtype}."
        )
    if better is not None and main is None:
        raise TypeError(f"Metric {name}: {better!r} is said of the column {name}, which it does not declare.")
    if floor and better is None:
        raise TypeError(f"Metric {name}: a floor needs `better`, or nobody knows which of several is best.")
    if better is not None:
        columns = tuple(replace(c, better=better) if c is main else c for c in columns)
    if floor:
        best = "highest" if better == "higher" else "lowest"
        meaning = f"{best} {name} among the floors of the same image"
        columns += (Column(f"{name}_floor", main.dtype, "measured", meaning, main.unit),)

    def register(function: Function) -> Function:
        add(*columns)
        METRICS.add(name, function)
        _declared[function] = Metric(name, columns, better, floor, needs_images, function)
        return function

    return register


def registered() -> dict[str, Metric]:
    """All metrics by name, those of third-party packages included.

    Raises:
        TypeError: for an entry point of the group `dpbench.metrics` that is no metric.
    """
    for name, function in METRICS.items():
        if function not in _declared:
            raise TypeError(
                f"The entry point {name!r} is no metric: decorate it with dpbench.metrics.metric."
            )
    return {name: _declared[function] for name, function in METRICS.items()}


def measure(scored: Scored) -> list[dict[str, Any]]:
    """The columns of every registered metric.

    Args:
        scored: what to score.

    Returns:
        One dict per original, in plain Python values. A column whose metric cannot be computed is left out.

    Raises:
        ValueError: for a metric that returns a column it does not declare, too few values, or a value of
            another type than its column's.
        TypeError: for one that returns no dict, or a single value of a column.
        AssetUnavailable: where a metric's weights are not to be had.
        Exception: whatever else a metric raises, other InputErrors excepted.
    """
    from dpbench.store.schema import plain  # needs pandas, which --help does without

    rows: list[dict[str, Any]] = [{} for _ in scored.originals]
    for name, declared in registered().items():
        if declared.needs_images and not scored.rebuilds_images:
            continue
        own = copy.deepcopy(scored)  # a metric may work in place, and the next one sees the images
        try:
            found = declared.function(own)
        except AssetUnavailable:  # the run was planned with it: an empty column would look like a choice
            raise
        except InputError:  # it cannot be computed for these images
            continue
        if not isinstance(found, Mapping):
            raise TypeError(
                f"Metric {name} must return its columns with values, a dict, not {type(found).__name__}."
            )
        known = {column.name: column for column in declared.columns}
        if unknown := found.keys() - known.keys():
            raise ValueError(
                f"Metric {name} returns {', '.join(sorted(unknown))}, which it does not declare."
            )
        for column, values in found.items():
            each = values.tolist() if hasattr(values, "tolist") else values
            if not isinstance(each, Sequence) or isinstance(each, str):
                raise TypeError(
                    f"Metric {name} must give a value of {column} for each original, not "
                    f"{type(each).__name__}."
                )
            if len(each) != len(rows):
                raise ValueError(f"Metric {name} has {len(each)} of {column} for {len(rows)} originals.")
            if any(isinstance(value, list) for value in each):
                raise ValueError(
                    f"Metric {name} has several values of {column} for an original of shape "
                    f"{list(scored.originals.shape[1:])}: give one."
                )
            for row, value in zip(rows, each, strict=True):
                if (kept := plain(known[column], value)) is not None:
                    row[column] = kept
    return rows
