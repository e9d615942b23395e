"""Everything that parts of one's own are noted in, put back as it was: as good as a new process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from attacks.base import attacks
from defenses import defenses_registry
from dpbench.cell.threats import threat_models
from dpbench.data.datasets import datasets
from dpbench.metrics import base
from dpbench.protocol import parameters
from dpbench.report.plots.registry import plots
from dpbench.sweep import inputs
from dpbench.system import source

GROUPS = {
    "attacks": attacks,
    "defenses": defenses_registry,
    "threat_models": threat_models,
    "data": datasets,
    "metrics": base.METRICS,
    "plots": plots,
}
"""Entry-point group, without `dpbench.`, to its registry."""


@contextmanager
def as_in_a_new_process() -> Iterator[None]:
    """What is registered and imported within the block is forgotten after it, and entry points are read."""
    for registry in GROUPS.values():
        _ = list(registry)
    noted = [registry._items for registry in GROUPS.values()]
    noted += [base._declared, sys.modules["dpbench.store.columns"]._columns]
    noted += [sys.modules[parameters.__module__]._MEANINGS]
    before = [dict(each) for each in noted]
    modules = set(sys.modules)
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        for group, registry in GROUPS.items():
            patch.setattr(registry, "_group", f"dpbench.{group}")
        _forget_code()
        stack.callback(_forget_code)
        try:
            yield
        finally:
            for each, was in zip(noted, before, strict=True):
                each.clear()
                each.update(was)
            for name in set(sys.modules) - modules:
                if "mine" in name:
                    del sys.modules[name]


def _forget_code() -> None:
    for cached in (source._closure, source._file, inputs._code):
        cached.cache_clear()
