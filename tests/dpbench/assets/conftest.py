import pytest
import torch

from dpbench import assets
from dpbench.assets import cache, clients
from dpbench.assets.errors import SourceFailed
from dpbench.assets.records import Asset, Source
from tests.helpers.assets import CONTENT, FACTS, SHA256, convert, toy_tensors


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache, two fake clients (the first always fails) and one asset that both know: `toy`."""
    monkeypatch.setenv("DPBENCH_ASSETS", str(tmp_path / "assets"))
    asked = []

    def dead(source, work, line):
        asked.append("dead")
        raise SourceFailed("nobody is there")

    def alive(source, work, line):
        asked.append("alive")
        (work / "file").write_bytes(CONTENT)
        return work / "file"

    both = frozenset(
        {
            cache.digest(toy_tensors()),
            cache.digest(
                {"layer.weight": torch.full((4,), 0.1).half(), "layer.running_var": torch.full((4,), 1e6)}
            ),
        }
    )
    toy = Asset(
        "toy",
        "a toy",
        "none",
        (Source("dead", "a", SHA256, 10, convert), Source("alive", "b", SHA256, 10, convert, both, FACTS)),
    )
    monkeypatch.setattr(clients, "CLIENTS", {"dead": dead, "alive": alive})
    monkeypatch.setitem(assets.ASSETS, "toy", toy)
    monkeypatch.setattr(assets, "_failed", {})
    alive.asked = asked
    return alive
