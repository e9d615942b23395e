"""How assets are fetched, checked and refused; every client here is a fake, so no test needs a network."""

import hashlib
import io
import os
import pickle
import shutil
import sys
import time
import urllib.error
import urllib.request

import pytest
import torch
from safetensors.torch import load_file, save_file

from dpbench import assets
from dpbench.assets import AssetUnavailable, cache, clients
from dpbench.assets.__main__ import main
from dpbench.assets.errors import SourceFailed
from dpbench.assets.records import Asset, Source
from dpbench.protocol import InputError

CONTENT = b"what the source delivers"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


FACTS = {"bn_eps": 1e-3}


def toy_tensors(_file=None):
    return {"layer.weight": torch.full((4,), 0.1), "layer.running_var": torch.full((4,), 1e6)}


def convert(file):
    assert file.read_bytes() == CONTENT
    return toy_tensors()


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


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


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


# What lies in the cache is checked before it is used.


def damage_truncate(file):
    file.write_bytes(file.read_bytes()[:-3])


def damage_bit(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


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

    monkeypatch.setattr(cache, "save_file", interrupted)
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


# Clients.


def source(client="npm", item="toy@1.0.0"):
    return Source(client, item, SHA256, len(CONTENT), convert)


@pytest.mark.parametrize("behaviour", ["silent", "stalls"])
def test_clients_that_say_nothing_are_given_up(tmp_path, monkeypatch, behaviour):
    stopped = []

    def silent(_source, work, line):
        if behaviour == "stalls":
            line.connected.set()
            (work / "part").write_bytes(b"x" * 200)
        stopped.append(line.cancelled.wait(20))

    monkeypatch.setitem(clients.CLIENTS, "npm", silent)
    monkeypatch.setattr(clients, "ANSWER", 0.3 if behaviour == "silent" else 20)
    monkeypatch.setattr(clients, "STALL", 0.3 if behaviour == "stalls" else 20)
    started = time.monotonic()
    with pytest.raises(SourceFailed, match="no answer within 0 s"):
        clients.download(source(), tmp_path)
    assert stopped == [True]
    assert time.monotonic() - started < 5


def test_slow_downloads_are_waited_for_while_bytes_arrive(tmp_path, monkeypatch):
    def slow(_source, work, line):
        line.connected.set()
        with open(work / "file", "wb", buffering=0) as out:
            for byte in CONTENT:
                out.write(bytes([byte]))
                time.sleep(0.05)
        return work / "file"

    monkeypatch.setitem(clients.CLIENTS, "npm", slow)
    monkeypatch.setattr(clients, "ANSWER", 0.0)
    monkeypatch.setattr(clients, "STALL", 0.9)  # the whole takes longer, each pause is shorter
    assert clients.download(source(), tmp_path).read_bytes() == CONTENT


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_npm_is_asked_for_the_exact_version_without_scripts(tmp_path, monkeypatch):
    fake = program(
        tmp_path / "npm",
        'echo "$@" >> ../asked\n'
        'for a in "$@"; do case $a in --pack-destination=*) to=${a#*=}; esac; done\n'
        f'if [ "$to" ]; then printf "{CONTENT.decode()}" > $to/t.tgz; fi',
    )
    monkeypatch.setattr(shutil, "which", lambda name: str(fake))
    work = tmp_path / "work"
    work.mkdir()
    assert clients.download(source(), work).read_bytes() == CONTENT
    view, pack = (tmp_path / "asked").read_text().splitlines()
    assert view.startswith("view toy@1.0.0 ")
    assert pack.startswith("pack toy@1.0.0 ")
    assert "--ignore-scripts" in pack
    assert "--fetch-retries=0" in view


def test_npm_says_why_it_failed(tmp_path, monkeypatch):
    fake = program(tmp_path / "npm", "echo notice; echo npm error code EAI_AGAIN >&2; echo more >&2; exit 1")
    monkeypatch.setattr(shutil, "which", lambda name: str(fake))
    with pytest.raises(SourceFailed, match=r"^npm error code EAI_AGAIN$"):
        clients.download(source(), tmp_path)


def test_npm_may_be_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SourceFailed, match="npm is not installed"):
        clients.download(source(), tmp_path)


def test_pip_is_told_the_hash_before_it_opens_the_sdist(tmp_path, monkeypatch):
    fake = program(
        tmp_path / "python",
        'echo "$@" >> ../asked; cp requirements.txt ..\n'
        'for a in "$@"; do case $a in --dest=*) to=${a#*=}; esac; done\n'
        f'if [ "$to" ]; then mkdir $to; printf "{CONTENT.decode()}" > $to/t; fi',
    )
    monkeypatch.setattr(sys, "executable", str(fake))
    work = tmp_path / "work"
    work.mkdir()
    assert clients.download(source("pip", "toy==1.0"), work).read_bytes() == CONTENT
    assert (tmp_path / "requirements.txt").read_text().strip() == f"toy==1.0 --hash=sha256:{SHA256}"
    probe, download = (tmp_path / "asked").read_text().splitlines()
    assert probe.startswith("-m pip index versions toy --retries=0")
    assert download.startswith("-m pip download --no-deps --no-binary=toy ")


def test_pip_may_be_missing(tmp_path, monkeypatch):
    fake = program(tmp_path / "python", "echo python: No module named pip >&2; exit 1")
    monkeypatch.setattr(sys, "executable", str(fake))
    with pytest.raises(SourceFailed, match="No module named pip"):
        clients.download(source("pip", "toy==1.0"), tmp_path)


@pytest.mark.parametrize("item", ["CIFAR10", "AlexNet_Weights.IMAGENET1K_V1"])
def test_torchvisions_own_address_is_used(tmp_path, monkeypatch, item):
    asked = []

    def urlopen(url, timeout):
        asked.append(url)
        return io.BytesIO(CONTENT)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert clients.download(source("torchvision", item), tmp_path).read_bytes() == CONTENT
    assert "cifar-10-python" in asked[0] or "alexnet-owt-7be5be79" in asked[0]


def test_torchvision_without_a_network(tmp_path, monkeypatch):
    def urlopen(url, timeout):
        raise urllib.error.URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(SourceFailed, match="Name or service not known"):
        clients.download(source("torchvision", "CIFAR10"), tmp_path)


def test_records_agree_with_torchvisions_file_names():
    from torchvision import models

    checked = 0
    for asset in assets.ASSETS.values():
        for s in asset.sources:
            if s.client == "torchvision" and "." in s.item:
                weights, member = s.item.split(".")
                stem = getattr(models, weights)[member].url.rsplit("-", 1)[1]
                assert s.sha256.startswith(stem.removesuffix(".pth"))
                checked += 1
    assert checked == 3


def test_real_clients_without_a_network_end_within_seconds(tmp_path, monkeypatch, capsys):
    dead = "http://127.0.0.1:9"  # the discard port: refused at once
    for name in (
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "PIP_INDEX_URL",
        "npm_config_registry",
    ):
        monkeypatch.setenv(name, dead)
    for name in ("no_proxy", "NO_PROXY", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("DPBENCH_ASSETS", str(tmp_path))
    monkeypatch.setattr(assets, "_failed", {})
    started = time.monotonic()
    for name in ("lpips-alex", "resnet50-imagenet"):
        with pytest.raises(AssetUnavailable, match="no source delivered it") as error:
            assets.path(name)
        one_sentence(error)
    assert time.monotonic() - started < 60  # a few seconds, on a machine that is not shared


# The command line.


def test_list_shows_what_is_here(home, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assets.path("toy")
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in ("lpips-alex", "lpips-vgg", "cifar10", "resnet50-imagenet", "toy"):
        assert name in text
    assert text.count(" no ") == 4
    assert " 0 MB " in text


def test_fetch_and_verify(home, capsys):
    assert main(["fetch", "toy"]) == 0
    assert main(["verify"]) == 0
    out = capsys.readouterr().out
    assert "toy: good" in out
    assert "cifar10: not on this machine" in out
    damage_bit(cache.location("toy"))
    assert main(["verify"]) == 2
    assert "assets fetch toy" in capsys.readouterr().err
    assert main(["fetch", "toy"]) == 0
    assert main(["verify"]) == 0


def test_fetch_goes_on_after_a_failure(home, capsys, monkeypatch):
    lost = Asset("lost", "", "", (Source("dead", "a", SHA256, 10, convert),))
    monkeypatch.setitem(assets.ASSETS, "lost", lost)
    assert main(["fetch", "lost", "toy"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "lost is not on this machine" in captured.err
    assert "toy: " in captured.out


@pytest.mark.parametrize(
    ("arguments", "text"), [(["fetch"], "Name at least one"), (["fetch", "x"], "Unknown asset 'x'")]
)
def test_names_are_needed_and_known(home, capsys, arguments, text):
    assert main(arguments) == 2
    assert text in capsys.readouterr().err


def test_export_in_half_precision_keeps_statistics_and_verifies_elsewhere(
    home, tmp_path, capsys, monkeypatch
):
    assets.path("toy")
    away = tmp_path / "away"
    assert main(["export", "--half", str(away)]) == 0
    assert "cifar10: not on this machine, left out" in capsys.readouterr().out
    monkeypatch.setenv("DPBENCH_ASSETS", str(away))
    monkeypatch.setattr(clients, "CLIENTS", {})  # no network over there
    tensors = load_file(assets.path("toy"))
    assert tensors["layer.weight"].dtype == torch.float16
    assert tensors["layer.running_var"].dtype == torch.float32
    assert tensors["layer.running_var"].isfinite().all()  # 1e6 would be infinite in half precision
    assert cache.facts(assets.path("toy"))["half"] is True


def test_export_in_full(home, tmp_path):
    original = assets.path("toy")
    assert main(["export", str(tmp_path / "away"), "--names", "toy"]) == 0
    assert cache.digest(load_file(tmp_path / "away" / "toy.safetensors")) == cache.digest(load_file(original))


def test_export_never_overwrites_the_cache(home, tmp_path, capsys):
    file = assets.path("toy")
    before = file.read_bytes()
    assert main(["export", "--half", str(tmp_path / "assets" / ".." / "assets")]) == 2
    assert "export to another folder" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_export_to_where_nothing_can_be_written(home, tmp_path, capsys):
    assets.path("toy")
    (tmp_path / "file").write_text("")
    assert main(["export", str(tmp_path / "file")]) == 2
    assert "Cannot write to" in capsys.readouterr().err
