"""What lies in the cache is checked before it is used."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dpbench import assets
from dpbench.assets import AssetUnavailable, cache, clients
from dpbench.assets.__main__ import main
from dpbench.assets.records import Asset, Source
from tests.helpers.assets import CONTENT, FACTS, SHA256, convert, damage_bit, one_sentence, toy_tensors


def damage_truncate(file):
    file.write_bytes(file.read_bytes()[:-3])


def damage_random_weights(file):
    save_file({k: torch.rand_like(v) for k, v in toy_tensors().items()}, file)


def damage_forged(file):
    tensors = {k: torch.rand_like(v) for k, v in toy_tensors().items()}
    cache.write(file, tensors, {**cache.facts(file), "digest": cache.digest(tensors)})


def damage_other_asset(file):
    cache.write(file, toy_tensors(), {**cache.facts(file), "asset": "other"})


def damage_facts(file):
    cache.write(file, toy_tensors(), {**cache.facts(file), "bn_eps": 0.5})


def damage_more_facts(file):
    cache.write(file, toy_tensors(), {**cache.facts(file), "std": [1e-9] * 3})


def damage_other_source(file):
    """As if it came from the source that nobody has converted yet."""
    tensors = {k: torch.rand_like(v) for k, v in toy_tensors().items()}
    digest = cache.digest(tensors)
    cache.write(file, tensors, {"asset": "toy", "source": "dead:a", "half": False, "digest": digest})


def damage_other_source_with_a_download(file):
    damage_other_source(file)
    cache.kept_download(file).write_bytes(b"another file")


def damage_null(file):
    save_file(toy_tensors(), file, metadata={"dpbench": "null"})


def damage_deep(file):
    save_file(toy_tensors(), file, metadata={"dpbench": "[" * 100_000})


def damage_no_file(file):
    file.write_bytes(b"")


@pytest.mark.parametrize(
    "damage",
    [
        *(damage_truncate, damage_bit, damage_random_weights, damage_forged, damage_other_asset),
        *(damage_facts, damage_more_facts, damage_other_source, damage_other_source_with_a_download),
        *(damage_null, damage_deep, damage_no_file),
    ],
)
def test_damage_is_noticed_and_repaired(home, damage):
    file = assets.path("toy")
    damage(file)
    with pytest.raises(AssetUnavailable, match="assets fetch toy") as error:
        assets.path("toy")
    one_sentence(error)
    assert assets.refresh("toy") == file
    assert torch.equal(load_file(assets.path("toy"))["layer.weight"], toy_tensors()["layer.weight"])


@pytest.mark.parametrize("name", ["lpips-alex", "lpips-vgg", "cifar10", "resnet50-imagenet"])
def test_a_poisoned_cache_is_noticed_whatever_source_it_claims(home, name, capsys):
    for source in assets.ASSETS[name].sources:
        tensors = {"features.0.weight": torch.rand(3)}
        noted = cache.note(assets.ASSETS[name], source, tensors, half=False)
        cache.write(cache.location(name), tensors, noted)
        with pytest.raises(AssetUnavailable, match="its sha256 differs"):
            assets.path(name)
        assert main(["verify"]) == 2
        assert "its sha256 differs" in capsys.readouterr().err


def test_same_size_and_time_do_not_hide_a_change(home):
    file = assets.path("toy")
    status = file.stat()
    damage_bit(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(AssetUnavailable, match="its sha256 differs"):
        assets.path("toy")


@pytest.fixture
def unpinned(home, monkeypatch):
    """`toy` from a source whose conversion nobody has pinned."""
    monkeypatch.setitem(
        assets.ASSETS, "toy", Asset("toy", "", "", (Source("alive", "c", SHA256, 10, convert, facts=FACTS),))
    )


def test_without_a_pinned_digest_the_download_vouches(unpinned, home, tmp_path):
    file = assets.path("toy")
    kept = cache.kept_download(file)
    assert kept.read_bytes() == CONTENT
    assert assets.path("toy") == file
    damage_forged(file)
    with pytest.raises(AssetUnavailable, match="its sha256 differs"):
        assets.path("toy")
    assets.refresh("toy")
    for spoil in (lambda: kept.write_bytes(CONTENT + b"!"), kept.unlink):
        spoil()
        with pytest.raises(AssetUnavailable, match="its sha256 differs"):
            assets.path("toy")
    assert assets.refresh("toy") == file
    assert main(["verify"]) == 0


@pytest.mark.parametrize("half", [[], ["--half"]])
def test_without_a_pinned_digest_the_download_is_exported_too(unpinned, home, tmp_path, monkeypatch, half):
    assets.path("toy")
    assert main(["export", *half, str(tmp_path / "away")]) == 0
    monkeypatch.setenv("DPBENCH_ASSETS", str(tmp_path / "away"))
    monkeypatch.setattr(clients, "CLIENTS", {})
    assert load_file(assets.path("toy"))["layer.weight"].dtype == (torch.float16 if half else torch.float32)


def test_a_source_that_holds_what_another_holds_needs_no_download(home, monkeypatch):
    pinned = assets.ASSETS["toy"].sources[1]
    other = Source("alive", "c", SHA256, 10, convert, facts=FACTS)
    monkeypatch.setitem(assets.ASSETS, "toy", Asset("toy", "", "", (other, pinned)))
    file = assets.path("toy")
    assert cache.facts(file)["source"] == "alive:c"
    assert not cache.kept_download(file).exists()


def test_digest_sees_names_types_shapes_and_values():
    base = {"a": torch.zeros(4), "b": torch.ones(2)}
    others = [
        {"a": torch.zeros(4), "c": torch.ones(2)},
        {"a": torch.zeros(4, dtype=torch.int32), "b": torch.ones(2)},
        {"a": torch.zeros(2, 2), "b": torch.ones(2)},
        {"a": torch.tensor([0, 0, 0, 1e-30]), "b": torch.ones(2)},
        {"a": torch.zeros(4)},
    ]
    assert len({cache.digest(t) for t in [base, *others]}) == 6
    assert cache.digest(dict(reversed(base.items()))) == cache.digest(base)


def test_interrupted_writes_leave_nothing(tmp_path, monkeypatch):
    def interrupted(*_args, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.write(tmp_path / "x.safetensors", toy_tensors(), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"DPBENCH_ASSETS": "/a", "DPBENCH_CACHE": "/b", "XDG_CACHE_HOME": "/c"}, "/a"),
        ({"DPBENCH_CACHE": "/b", "XDG_CACHE_HOME": "/c"}, "/b/assets"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/dpbench/assets"),
        ({"HOME": "/h"}, "/h/.cache/dpbench/assets"),
    ],
)
def test_where_assets_lie(monkeypatch, environment, expected):
    for name in ("DPBENCH_ASSETS", "DPBENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(cache.folder()) == expected
