"""How assets are fetched and refused; every client here is a fake, so no test needs a network."""

import errno
import pickle

import pytest
import torch
from safetensors.torch import load_file

from dpbench import assets
from dpbench.assets import AssetUnavailable, cache, clients
from dpbench.assets.records import Asset, Source
from dpbench.protocol import InputError
from tests.helpers.assets import CONTENT, SHA256, one_sentence, toy_tensors


def test_sources_are_asked_in_order_and_once(home, tmp_path):
    file = assets.path("toy")
    assert home.asked == ["dead", "alive"]
    assert torch.equal(load_file(file)["layer.weight"], toy_tensors()["layer.weight"])
    assert cache.facts(file)["source"] == "alive:b"
    assert cache.facts(file)["bn_eps"] == 1e-3
    assert assets.path("toy") == file
    assert home.asked == ["dead", "alive"]
    assert [entry.name for entry in (tmp_path / "assets").iterdir()] == ["toy.safetensors"]


def test_no_source_answers_in_one_sentence_and_is_not_asked_again(home, monkeypatch):
    monkeypatch.setitem(clients.CLIENTS, "alive", clients.CLIENTS["dead"])
    for _ in range(3):
        with pytest.raises(AssetUnavailable) as error:
            assets.path("toy")
        text = one_sentence(error)
        assert "dead:a: nobody is there; alive:b: nobody is there" in text
        assert "DPBENCH_ASSETS" in text
    assert home.asked == ["dead", "dead"]
    with pytest.raises(AssetUnavailable):
        assets.refresh("toy")
    assert len(home.asked) == 4


def test_unavailable_is_an_error_of_the_user():
    assert issubclass(AssetUnavailable, InputError)


def test_nothing_is_fetched_unless_asked(home):
    with pytest.raises(AssetUnavailable, match="assets fetch toy"):
        assets.path("toy", fetch=False)
    assert home.asked == []


def test_unknown_asset_lists_the_known(home):
    with pytest.raises(InputError, match="lpips-alex, lpips-vgg, cifar10, resnet50-imagenet"):
        assets.path("lpips")


def test_another_file_is_refused(home, monkeypatch):
    def liar(source, work, line):
        (work / "file").write_bytes(CONTENT + b"!")
        return work / "file"

    monkeypatch.setitem(clients.CLIENTS, "alive", liar)
    with pytest.raises(AssetUnavailable, match="delivered another file"):
        assets.path("toy")


@pytest.mark.parametrize(
    "error", [KeyError("Conv_0"), ValueError("odd"), pickle.UnpicklingError("os.system")]
)
def test_a_file_that_cannot_be_read(home, monkeypatch, error):
    def broken(file):
        raise error

    source = Source("alive", "b", SHA256, 10, broken)
    monkeypatch.setitem(assets.ASSETS, "toy", Asset("toy", "", "", (source,)))
    with pytest.raises(AssetUnavailable, match="its file cannot be read") as raised:
        assets.path("toy")
    one_sentence(raised)


def test_a_folder_that_cannot_be_written(home, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DPBENCH_ASSETS", str(tmp_path / "file" / "assets"))
    with pytest.raises(AssetUnavailable, match="Cannot write to") as error:
        assets.path("toy")
    one_sentence(error)


def test_without_a_home_folder(home, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for name in ("DPBENCH_ASSETS", "DPBENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", homeless)
    with pytest.raises(AssetUnavailable, match="set DPBENCH_ASSETS"):
        assets.path("toy")


def test_a_folder_that_cannot_be_written_any_more(home, monkeypatch):
    """It is there, as on a disk that is mounted to be read only."""

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    cache.folder().mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    with pytest.raises(AssetUnavailable, match=r"Cannot write to .* \(Read-only file system\)"):
        assets.path("toy")
