"""The columns of the results: what each is called, holds and means, and what it is there for.

The columns that no part declares stand here. Attacks, defences, threat models and metrics bring their own:
whoever registers a part adds its columns with `add` or `add_parameters`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dpbench.protocol import Parameter, parameters

ROLES = ("batch", "defence", "attack", "measured", "provenance")
"""What a column is there for: what was attacked, how it was defended, by whom it was attacked, what came of
it, and where the result is from. Results are joined, sorted and compared by roles."""
DTYPES = {bool: "boolean", int: "Int64", float: "float64", str: "string"}


@dataclass(frozen=True)
class Column:
    """One column of the results.

    Attributes:
        name: as in `results.parquet`.
        dtype: pandas' name: `string`, `Int64`, `float64` or `boolean`; all have a missing value.
        role: one of `ROLES`.
        unit: `dB`, `s`, ...; empty for plain numbers and words.
        meaning: one line.
        condition: it describes what was tried, so rows that differ in it are never averaged. Seeds and image
            numbers are what tables average over, measurements are what they average: both are no condition.
        symbol: what tables and logs call a setting where it varies. Empty for what is never named so: names,
            seeds, measurements, and numbers that follow from settings.
        choices: the words it may hold, in the order in which tables sort them; empty where any will do.
        better: of a metric, which values lie nearer the original: `higher` or `lower`. Tables summarise the
            columns that have it.
        undefended: it plays a role in attacks on an undefended gradient, too, and so in an attack's floors.
    """

    name: str
    dtype: str
    role: str
    meaning: str
    unit: str = ""
    condition: bool = False
    symbol: str = ""
    choices: tuple[str, ...] = ()
    better: str = ""
    undefended: bool = True


_columns: dict[str, Column] = {}


def columns() -> dict[str, Column]:
    """All columns by name, in the order of their roles."""
    return {name: c for role in ROLES for name, c in _columns.items() if c.role == role}


def conditions(*roles: str) -> tuple[str, ...]:
    """The columns that describe what was tried; of these roles only, if any are given."""
    return tuple(name for name, c in columns().items() if c.condition and (not roles or c.role in roles))


def add(*new: Column) -> None:
    """Add columns; one that is there already with the same type and meaning is left as it is.

    Raises:
        TypeError: for a name that stands for something else.
    """
    for column in new:
        if column.role not in ROLES:
            raise TypeError(f"Column {column.name} has role {column.role!r}; known: {', '.join(ROLES)}.")
        known = _columns.setdefault(column.name, column)
        if (known.dtype, known.unit) != (column.dtype, column.unit):
            raise TypeError(
                f"Column {column.name} holds {known.dtype} ({known.meaning}); {column.dtype} "
                f"({column.meaning}) needs another name."
            )


def add_parameters(part: type, role: str) -> None:
    """Add a column for each parameter that `part` declares."""
    add(*(of_parameter(declared, role) for declared in parameters(part).values()))


def of_parameter(declared: Parameter, role: str) -> Column:
    """The column of a declared parameter."""
    dtype = DTYPES[declared.kind]
    more = {"condition": not declared.repeats, "symbol": declared.symbol, "choices": declared.choices}
    more["undefended"] = not {"defended", "adapts", "repeatable"} & set(declared.only_if)
    return Column(declared.column, dtype, role, declared.help, declared.unit, **more)


def _words(name: str, role: str, meaning: str, **more: Any) -> Column:
    return _column(name, "string", role, meaning, **more)


def _count(name: str, role: str, meaning: str, **more: Any) -> Column:
    return _column(name, "Int64", role, meaning, **more)


def _number(name: str, role: str, meaning: str, **more: Any) -> Column:
    return _column(name, "float64", role, meaning, **more)


def _flag(name: str, role: str, meaning: str, **more: Any) -> Column:
    return _column(name, "boolean", role, meaning, **more)


def _column(name: str, dtype: str, role: str, meaning: str, **more: Any) -> Column:
    setting = more.get("condition", role in ("batch", "defence", "attack"))
    return Column(
        name, dtype, role, meaning, **{"condition": setting, "symbol": name if setting else "", **more}
    )


add(
    _words("model", "batch", "victim network"),
    _words("norm", "batch", "its normalisation: `frozen-bn`, `gn` or `none`"),
    _words("mode", "batch", "`eval` or `train`: the victim's mode when the gradient was taken"),
    _words("victim", "batch", "`trained`, `early` or `untrained`"),
    _words("weights", "batch", "the user's own weights, by hash: of the file, or of the own model with them"),
    _number("victim_accuracy", "batch", "its accuracy on CIFAR-10's test set, 0 to 1", symbol=""),
    _number("logit_scale", "batch", "what the victim's last layer was multiplied by; 1 is the victim itself"),
    _words("trainable", "batch", "parts that alone were trained and sent (`head`); missing for all layers"),
    _words("label_draw", "batch", "`distinct` or `random`: how the batch was drawn"),
    _words("data", "batch", "data set of the attacked images"),
    _count("batch_size", "batch", "images in the batch"),
    _count(
        "clients",
        "batch",
        "how many clients' sum the server sees, `batch_size` images each; rows are of the first one's images",
    ),
    _count("batch_seed", "batch", "seed that drew the batch", condition=False),
    _count("image", "batch", "place of the image in its batch, from 0", condition=False),
    _count("original_index", "batch", "place of the image in the data set, from 0", condition=False),
    _count(
        "copy_of",
        "batch",
        "`original_index` of the first image of its batch that has the same pixels; empty for that one",
        condition=False,
    ),
    _count("label", "batch", "its true class", condition=False),
    _words("defense", "defence", "defence, stages joined by `+`", symbol=""),
    _number(
        "eps_release",
        "defence",
        "privacy budget of the attacked release(s) alone, the batch fixed but for `inclusion`",
        symbol="ε release",
    ),
    _number(
        "eps_replace", "defence", "eps_release if a sample is replaced, not added or removed (2C)", symbol=""
    ),
    _flag("noise_unchecked", "defence", "a plug-in's: its author vouches for the noise", condition=False),
    _number(
        "eps_client",
        "defence",
        "several clients: eps_release of what one client sends, which holds if the aggregation fails",
        symbol="",
    ),
    _number("sample_rate", "defence", "q: the training's expected batch over training-set size", symbol=""),
    _count("steps", "defence", "T: optimiser steps of the training", symbol=""),
    _words("adjacency", "defence", "neighbouring relation of both budgets", symbol=""),
    _number(
        "rero_release",
        "defence",
        "bound on the chance to rebuild a sample from the release, prior 0.1",
        symbol="",
    ),
    _words(
        "attack", "attack", "attack, or `floor:...` for what needs no gradient of these images", symbol=""
    ),
    _words(
        "floor",
        "attack",
        "floors: what was guessed without this gradient (`mean-image`, ...); empty for attacks",
        symbol="",
    ),
    _words(
        "floor_of", "attack", "floor rows: the attack that was fed noise, or whose start this is", symbol=""
    ),
    _words(
        "threat_model",
        "attack",
        "`honest`, `malicious-linear`, `fishing`, `loki` or `informed`: what it knows and may do",
        choices=("honest", "malicious-linear", "fishing", "loki", "informed"),
    ),
    _words(
        "bn_stats",
        "attack",
        "where the attacker has batch-norm statistics from: running (public), exact or recovered (un-noised "
        "statistics of the batch: an oracle, under dp without epsilon and bound), none",
    ),
    _words("generator", "attack", "latent-projection: what was searched"),
    _words("labels", "attack", "`known`, `inferred` or `joint`: how the attacker has the labels"),
    _count("attack_seed", "attack", "seed of the attack", condition=False),
    _count("trained_parameters", "measured", "parameters that are trained and sent; empty where all are"),
    _count("frozen_parameters", "measured", "parameters that are not; empty where there are none"),
    _number("image_loss", "measured", "the victim's loss on the image", unit="nat"),
    _number("image_grad_share", "measured", "its gradient norm over the sum of the batch's, 0 to 1"),
    _number(
        "psnr_unbiased_probe",
        "measured",
        "planted layer: PSNR of the unbiased estimate; no bound, priors beat it",
        unit="dB",
    ),
    _count(
        "added_parameters",
        "measured",
        "malicious server: parameters that the model it sent has beyond the victim's",
    ),
    _number(
        "accuracy_drop",
        "measured",
        "malicious server: accuracy of the victim less that of the model it sent, on 199 images outside the "
        "batch, or as many as there are",
    ),
    _number(
        "loss_rise",
        "measured",
        "malicious server: mean loss of the model it sent less the victim's, on the same images",
        unit="nat",
    ),
    _number(
        "success", "measured", "informed attacker: share of trials in which it picked the true candidate"
    ),
    _number("success_low", "measured", "its exact 95 % interval (Clopper-Pearson), lower end"),
    _number("success_high", "measured", "upper end"),
    _number("success_bound", "measured", "ReRo bound on success, prior 1 / candidates"),
    _number(
        "membership",
        "measured",
        "informed attacker: share right on whether the sample is in the batch, prior 1/2",
    ),
    _number("membership_low", "measured", "its exact 95 % interval (Clopper-Pearson), lower end"),
    _number("membership_high", "measured", "upper end"),
    _number("membership_bound", "measured", "the most that differential privacy allows of it"),
    _flag(
        "ranked_first",
        "measured",
        "frontier: of the image and 199 decoys of its label, the image correlates best with any output; "
        "filled for one image a batch, chance 1/200",
    ),
    _number("best_correlation", "measured", "frontier: that image's best correlation with any output"),
    _count("best_output", "measured", "frontier: of which image's row that output is"),
    _number("release_norm", "measured", "l2 norm of the released gradient, the mean over the batch"),
    _number(
        "release_norm_limit",
        "measured",
        "the most that it can be with every sample clipped to C, noise included; empty where nothing is "
        "clipped, or where later stages do more than add noise",
    ),
    _flag(
        "release_repeats",
        "measured",
        "defended: made a second time from the same seed, the release was the same",
    ),
    _number("gradient_distance", "measured", "the attack's objective at the end, without priors"),
    _flag(
        "certified",
        "measured",
        "closed forms: the image was shown to explain the release to rounding; empty for searches",
    ),
    _number("residual", "measured", "closed forms: share of the release that the image leaves unexplained"),
    _words(
        "key", "provenance", "the cell: hash of everything that decides its outcome, and the name of its file"
    ),
    _words("engine", "provenance", "what ran the iterations"),
    _count("iterations", "provenance", "objective evaluations spent, over all restarts"),
    _number(
        "seconds",
        "provenance",
        "time of the search, compilation excluded; the same for all images of a cell",
        unit="s",
    ),
    _number("compile_seconds", "provenance", "time of compilation", unit="s"),
    _words("device", "provenance", "what it ran on"),
    _flag("decoys_known", "provenance", "what the attacker knew of images came from decoys, too"),
    _words("version", "provenance", "dpbench's version"),
    _words(
        "tuned",
        "provenance",
        "the file that the attack's parameters are from and the batches that they were tuned on; empty where "
        "they are the user's or the defaults",
    ),
    _flag("tuned_on", "provenance", "tuned: the image is one of those that they were tuned on"),
    _words(
        "per_sample",
        "provenance",
        "what took each sample's gradient, checked on the batch: `opacus`, `functorch` or `loop`; empty "
        "where the defence looks at the whole batch",
    ),
    _words("note", "provenance", "what the attack says of its own way, such as where a closed form stopped"),
    _words("status", "provenance", "`ok`, `failed` or `skipped`"),
    _words("error", "provenance", "why, where it is not `ok`"),
)
