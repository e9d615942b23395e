from __future__ import annotations

import sys

import lpips
import pytest
import torch
from safetensors.torch import save_file

from dpbench import assets
from dpbench.metrics import METRICS, base, perceptual
from dpbench.store import columns


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """The `lpips` package's modules with random trunks, and these trunks as files for `dpbench.assets`."""
    modules, files = {}, {}
    for net in ("alex", "vgg"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            modules[net] = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        trunk = {"features." + name.split(".", 1)[1]: p for name, p in modules[net].net.state_dict().items()}
        files[net] = tmp_path_factory.mktemp("trunks") / f"{net}.safetensors"
        save_file(trunk, files[net])
    return modules, files


@pytest.fixture
def random_trunks(packages, monkeypatch):
    """`dpbench.assets` hands out the random trunks; returns the package's modules that hold the same."""
    modules, files = packages
    monkeypatch.setattr(assets, "path", lambda name, fetch=True: files[name.removeprefix("lpips-")])
    return modules


@pytest.fixture
def no_trunks(monkeypatch):
    """No source has a trunk; returns the list of what was asked for and whether downloads were allowed."""
    asked = []

    def path(name, fetch=True):
        asked.append((name, fetch))
        raise assets.AssetUnavailable(f"{name}: no source answered." if fetch else f"{name}: not here.")

    monkeypatch.setattr(assets, "path", path)
    monkeypatch.setattr(perceptual, "_refusals", {})
    return asked


@pytest.fixture
def scratch_registry(monkeypatch):
    """Metrics and columns that a test registers are gone after it."""
    monkeypatch.setattr(METRICS, "_items", dict(METRICS._items))
    monkeypatch.setattr(base, "_declared", dict(base._declared))
    monkeypatch.setattr(sys.modules["dpbench.store.columns"], "_columns", dict(columns()))
