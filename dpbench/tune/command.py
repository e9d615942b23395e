"""One call that tunes an attack and writes down what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

import attacks
from dpbench import store
from dpbench.cell import registered
from dpbench.cell.rows import describe
from dpbench.protocol import InputError, meant
from dpbench.report.export import export_data
from dpbench.store import Store, environment
from dpbench.sweep import executors
from dpbench.sweep.options import Options, checked, defaults
from dpbench.system import digest, process
from dpbench.system.paths import absolute, check_place
from dpbench.tune.measure import Measurement
from dpbench.tune.options import OWN, options
from dpbench.tune.progress import Display
from dpbench.tune.result import Outcome, write
from dpbench.tune.search import installed
from dpbench.tune.setting import Settings
from dpbench.tune.space import described, space


def tune(out: str | Path, *, progress: bool = True, **parameters: Any) -> list[Outcome]:
    """Chooses an attack's parameters in every setting, in a folder that can be taken up again.

    Args:
        out: the folder. Cells that are there already are not run again.
        progress: show how far it is, on stderr.
        parameters: options of `python -m dpbench.tune` by name, such as `attack`, `defense`, `trials`,
            `batch_size` or `iterations`.

    Returns:
        One outcome for each setting, undefended ones first. The folder has them as `tuned.toml`.

    Raises:
        InputError: where optuna is not installed, and for whatever cannot be tuned.
    """
    installed()
    check_place(out)  # before images are fetched
    with process.clean_state():
        registered.load(parameters.get("plugin", ()))
        given, own = _options(parameters)
        searched = space(attacks.kind(given.attack[0]), own["parameters"])
        seeds, trials, metric = own["batch_seed"], own["trials"], own["metric"]
        settings = Settings(given, seeds, own["check_seed"], searched, trials, metric)
        inputs = {
            each.batch.images_digest + each.batch.weights_digest + each.runtime.code: ""
            for setting in settings.all
            for each in (*setting.tuned, *setting.checked)
        }
        configuration = settings.configuration() | {
            "trials": trials,
            "metric": metric,
            "tuning_seed": own["tuning_seed"],
            "space": described(searched),
            "inputs": digest.described(inputs),
        }
        results = store.open_run(absolute(out), configuration)
        execute = executors.create(
            given.executor,
            settings.all[0].tuned[0].runtime.device,
            given.workers,
            given.ray_address,
            given.gpus_per_cell,
            [cell for setting in settings.all for cell in (*setting.tuned, *setting.checked)],
        )
        with Display(Console(stderr=True, emoji=False), quiet=not progress) as display:
            for line in settings.left_out:
                display.say(f"{line}.".replace("..", "."))
            measurement = Measurement(
                settings.all, searched, metric, own["tuning_seed"], results, execute, display
            )
            found = measurement.run(trials)
        results.expect((key, describe(cell)) for key, cell in measurement.counted.items())
        _write(results, found, configuration)
    return found


def _options(given: dict[str, Any]) -> tuple[Options, dict[str, Any]]:
    """The options of a sweep that `given` stands for, and those of a tuning alone.

    Raises:
        InputError: for one that is not known here, or a value that does not fit.
    """
    known = options()
    if unknown := [name for name in given if name not in known]:
        raise InputError(
            f"A tuning takes no {unknown[0]}{meant(unknown[0], known)}; it takes {', '.join(known)}."
        )
    values = {name: each.default for name, each in known.items()}
    values |= {name: known[name].given(value) for name, value in given.items()}
    names = {each.name for each in OWN}
    own = {name: values.pop(name) for name in names} | {"batch_seed": values["batch_seed"]}
    return checked(defaults().replaced(**values)), own


def _write(results: Store, found: list[Outcome], configuration: dict[str, Any]) -> None:
    """All files of the folder but the cells."""
    table = results.frame()
    export_data(results, table)
    places = table.groupby("key")["original_index"].agg(list)
    conditions = []
    for each in found:
        cells = (*each.setting.tuned, *each.setting.checked)
        own = sorted({int(place) for cell in cells for place in places[cell.key()]})
        conditions.append(each.described(own))
    write(
        results.path,
        {
            "about": "Written by python -m dpbench.tune, for python -m dpbench.run --tuned.",
        }
        | configuration
        | {
            "attack": configuration["attack"][0],
            "optuna": installed().__version__,
            "environment": environment.describe(),
            "conditions": conditions,
        },
    )
