"""All registered parts, other people's included, and the columns that they bring."""

from __future__ import annotations

from collections.abc import Iterable

import attacks
import defenses
from dpbench import metrics
from dpbench.cell import threats
from dpbench.privacy import Aggregation, Budget
from dpbench.protocol import InputError
from dpbench.store.columns import add_parameters
from dpbench.system.plugins import imported


def load(plugins: Iterable[str] = ()) -> None:
    """Import other people's modules, and add the columns of every part.

    Args:
        plugins: modules by name (`package.module`), or files (`defence.py`).

    Raises:
        InputError: for a module that cannot be imported, or a part whose parameters clash with a column.
    """
    for name in plugins:
        imported(name)
    try:
        _add_columns()
    except TypeError as error:
        raise InputError(str(error)) from error
    metrics.registered()


def _add_columns() -> None:
    for part in (*attacks.attacks.values(), *threats.threat_models.values()):
        add_parameters(part, "attack")
    for part in (Budget, Aggregation, *defenses.defenses_registry.values()):
        add_parameters(part, "defence")
