"""Frontiers in which nothing is scripted: a planted layer, and a process that is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from dpbench.frontier import frontier, measure

ROOT = Path(__file__).parents[3]


def test_noise_hides_what_a_planted_layer_shows(usual, tmp_path):
    """Nothing is script here: the malicious server has the image, and with much noise it has not."""
    given = usual | {"attack": "analytic", "levels": (30.0,)}
    (found,) = frontier(tmp_path, **given, quick=True)
    undefended, defended = (level.rates[0].successes for level in found.levels)
    assert found.threat_model == "malicious-linear"
    assert undefended >= 9
    assert defended <= 2


def test_the_informed_attacker_picks_the_image_among_its_decoys(usual, tmp_path, monkeypatch):
    """It has the 200 images of the gallery as candidates, so by chance it is right once in 200 batches."""
    monkeypatch.setattr(measure, "QUICK", 5)
    given = usual | {"attack": "prior-aware", "levels": (300.0,), "batch_size": 2}
    (found,) = frontier(tmp_path, **given, quick=True)
    undefended, defended = (level.rates[0].successes for level in found.levels)
    assert found.threat_model == "informed"
    assert undefended == 5
    assert defended <= 1
    table = pd.read_parquet(tmp_path / "results.parquet")
    assert table["candidates"].tolist() == [200] * 10
    assert table["ranked_first"].tolist() == (table["success"] == 1).tolist()


def test_who_cannot_tell_candidates_apart_finds_the_true_one_by_chance(usual, tmp_path, monkeypatch):
    """All that percentile sends of this noise is clamped, so that all candidates are as likely."""
    monkeypatch.setattr(measure, "QUICK", 5)
    given = usual | {"attack": "prior-aware", "defense": "dp+percentile", "levels": (10.0,)}
    (found,) = frontier(tmp_path, **given, quick=True)
    undefended, defended = (level.rates[0].successes for level in found.levels)
    assert undefended == 5
    assert defended <= 1


REGISTER = """
from dpbench.data import datasets
from tests.helpers.tiny import tiny
from dpbench_instant import Instant
from dpbench.frontier import frontier
datasets._items["tiny"] = lambda argument, size: tiny()
frontier({folder!r}, quick=True, **{usual!r})
"""


def test_killed_and_taken_up_again_it_ends_as_if_nothing_had_happened(usual, tmp_path):
    folder, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    text = REGISTER.format(folder=str(folder), usual=usual)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ['PYTHONPATH']}"}
    process = subprocess.Popen([sys.executable, "-c", text], env=environment, cwd=ROOT)
    deadline = time.monotonic() + 60
    while len(list(folder.glob("logs/*.log"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("cells/*.safetensors")}
    assert before
    assert not (folder / "frontier.json").exists()
    assert frontier(folder, quick=True, **usual) == frontier(undisturbed, quick=True, **usual)
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("cells/*.safetensors")}
    assert before.items() <= after.items()
    assert (folder / "frontier.csv").read_text() == (undisturbed / "frontier.csv").read_text()
