"""Whole frontiers of attacks that take milliseconds: stopping, resuming, refusing, and what is written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from dpbench.frontier import frontier
from dpbench.frontier.__main__ import main
from dpbench.frontier.evidence import Verdict
from dpbench.protocol import InputError
from tests.helpers.tiny import tiny

ROOT = Path(__file__).parents[3]


def test_each_level_stops_at_its_verdict_and_nothing_is_run_twice(usual, scripted, tmp_path):
    run = scripted(lambda sigma, seed: sigma < 1)
    (found,) = frontier(tmp_path / "run", **usual)
    assert [level.verdict for level in found.levels] == [Verdict.LEAK, Verdict.LEAK, Verdict.NONE]
    assert [level.rates[0].trials for level in found.levels] == [1, 1, 59]
    assert (found.leak_up_to.sigma, found.none_from.sigma) == (0.1, 1.0)
    assert len(run) == len({*run}) == 2 + 2 + 60  # two batches are begun together
    run.clear()
    assert frontier(tmp_path / "run", **usual) == [found]
    assert run == []


def test_a_defence_that_leaks_everything_never_passes(usual, scripted, tmp_path):
    scripted(lambda sigma, seed: True)
    (found,) = frontier(tmp_path / "run", **usual)
    assert (found.leak_up_to.sigma, found.none_from) == (1.0, None)
    assert "there is no level from which on none is seen by these attacks" in found.sentence()


def test_it_refuses_where_the_attack_fails_undefended(usual, scripted, tmp_path):
    scripted(lambda sigma, seed: False)
    with pytest.raises(InputError, match="not seen to succeed without a defence"):
        frontier(tmp_path / "run", **usual)
    assert not (tmp_path / "run" / "frontier.json").exists()


def test_several_attacks_are_a_set_and_one_that_leaks_is_enough(usual, scripted, tmp_path):
    """The attack with two iterations succeeds at every level; that with one only undefended."""
    scripted(lambda sigma, seed: True)
    (found,) = frontier(tmp_path / "run", **usual | {"iterations": (1, 2)})
    assert found.attacks == ("instant", "instant (iterations 2)")
    assert all(len(level.rates) == 2 for level in found.levels)


def test_what_is_written(usual, scripted, tmp_path):
    scripted(lambda sigma, seed: sigma < 1)
    (found,) = frontier(tmp_path, **usual | {"train_size": 20_000, "epochs": 3.0})
    (stored,) = json.loads((tmp_path / "frontier.json").read_text())["frontiers"]
    assert stored["sentence"] == found.sentence()
    rows = pd.read_csv(tmp_path / "frontier.csv")
    assert rows["verdict"].tolist() == ["leak shown", "leak shown", "not seen by these attacks"]
    assert rows["sigma"].tolist() == [0, 0.1, 1]
    assert rows["rate"].tolist() == [1, 1, 0]
    assert rows["eps_release"].iloc[1:].is_monotonic_decreasing
    assert rows["eps"].iloc[1:].is_monotonic_decreasing
    table = pd.read_parquet(tmp_path / "results.parquet")
    assert table.loc[table["noise_multiplier"] == 1, "ranked_first"].tolist() == [False] * 59
    assert all((tmp_path / name).stat().st_size for name in ("frontier.png", "frontier-exposed.png"))


def test_the_words_say_what_was_seen_and_promise_nothing(usual, scripted, tmp_path):
    scripted(lambda sigma, seed: sigma < 1)
    (found,) = frontier(tmp_path, **usual)
    words = found.sentence()
    assert "a leak is shown up to σ 0.1 (" in words
    assert "from σ 1 (" in words
    assert "on none is seen by these attacks; what lies between is undecided." in words
    assert "safe" not in (tmp_path / "frontier.json").read_text()


def test_the_certified_frontier_stands_beside_it(usual, scripted, tmp_path):
    scripted(lambda sigma, seed: True)
    (found,) = frontier(tmp_path, **usual, quick=True)
    assert {kappa: round(noise.sigma, 2) for kappa, noise in found.certified.items()} == {
        "0.1": 4.08,
        "0.005": 1.02,
    }
    assert not found.tested
    assert "curve without verdicts" in found.sentence()
    assert [level.rates[0].trials for level in found.levels] == [10, 10, 10]


def test_noise_hides_what_a_planted_layer_shows(usual, tmp_path):
    """Nothing is scripted here: the malicious server has the image, and with much noise it has not."""
    given = usual | {"attack": "analytic", "levels": (30.0,)}
    (found,) = frontier(tmp_path, **given, quick=True)
    undefended, defended = (level.rates[0].successes for level in found.levels)
    assert found.threat_model == "malicious-linear"
    assert undefended >= 9
    assert defended <= 2


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


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"data": "samples"}, "A frontier needs 200 images of each label or more"),
        ({"defense": "prune"}, "of one `defense` that takes a noise multiplier, such as dp"),
        ({"defense": ("dp", "none")}, "of one `defense` that takes a noise multiplier"),
        ({"batch_size": (1, 2)}, "of one setting: give one value of each option but `attack`"),
        ({"attack_seed": (0, 1)}, "of one setting: give one value of each option but `attack`"),
        ({"attack": "label-restoration"}, "rebuilds no images, and a frontier ranks images"),
        ({"model": "resnet20", "bn_stats": "exact"}, "`bn_stats` leave the client without noise"),
        ({"levels": (0.0,)}, "`levels` must be different noise multipliers above 0"),
        ({"eps": 1.0}, "takes no eps; it takes"),
        ({"batch_seed": 3}, "takes no batch_seed; it takes"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_sentence(usual, tmp_path, changed, sentence):
    with pytest.raises(InputError, match=sentence):
        frontier(tmp_path / "run", **usual | changed)
    assert not (tmp_path / "run").exists()


def test_a_malicious_server_without_public_statistics_would_know_the_decoys(usual, tmp_path, monkeypatch):
    from dataclasses import replace

    from dpbench.data import datasets

    monkeypatch.setitem(datasets._items, "bare", lambda argument, size: replace(tiny(), statistics=None))
    with pytest.raises(InputError, match="would have them from the decoys: give `data`"):
        frontier(tmp_path, **usual | {"data": "bare", "attack": "analytic"})


def test_another_setting_does_not_go_into_the_same_folder(usual, scripted, tmp_path):
    scripted(lambda sigma, seed: True)
    frontier(tmp_path, **usual, quick=True)
    with pytest.raises(InputError, match="holds a run of another configuration"):
        frontier(tmp_path, **usual | {"levels": (0.1,)}, quick=True)


def test_the_command_line(usual, scripted, tmp_path, capsys):
    scripted(lambda sigma, seed: True)
    words = ["--data", "tiny", "--attack", "instant", "--victim", "untrained", "--model", "lenet"]
    words += ["--batch-size", "1", "--levels", "0.1", "1", "--device", "cpu", "--quick"]
    assert main(words) == 2
    assert capsys.readouterr().err == "Give the folder for the results as --out.\n"
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert "10 of 10 undefended, 10 of 10 at σ 0.1, 10 of 10 at σ 1" in capsys.readouterr().out
    assert main([*words, "--out", str(tmp_path / "run"), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main([*words, "--out", str(tmp_path / "new"), "--defense", "clip"]) == 2
    assert "one --defense that takes a noise multiplier" in capsys.readouterr().err
