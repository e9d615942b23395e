"""decide --run: frontiers, accuracy, and an answer for each epsilon, on noise and with scripted success."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from PIL import Image

from dpbench.accuracy import command as trainings
from dpbench.accuracy.networks import MODELS
from dpbench.data import datasets
from dpbench.decide import answer as answering
from dpbench.decide import attacked, costs
from dpbench.decide.__main__ import main
from dpbench.decide.choices import Training
from dpbench.frontier import cells
from dpbench.frontier.evidence import MEANING
from dpbench.protocol import InputError
from dpbench.report import export
from tests.helpers import frontiers
from tests.helpers.tiny import tiny

ROOT = Path(__file__).parents[3]
TRAINING = ["--train-size", "800", "--train-batch-size", "800", "--epochs", "1", "--eps", "1", "8"]
TRAINING += ["--images-per-user", "1"]
SETTING = ["--data", "tiny", "--attack", "instant", "--victim", "untrained", "--model", "lenet"]
RUN = [*TRAINING, *SETTING, "--device", "cpu", "--run", "--workers", "1", "--quiet"]


@pytest.fixture(scope="module")
def script(instant, tmp_path_factory):
    """Makes success a matter of the noise multiplier; returns the keys of the cells that are run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(datasets._items, "tiny", lambda argument, size: tiny())
        # figures have tests of their own, and take longer than all cells together
        patch.setattr(export, "plots", {})
        patch.setattr("dpbench_instant.time", SimpleNamespace(sleep=lambda seconds: None))
        yield partial(frontiers.script, patch)


@pytest.fixture(scope="module")
def measured(script, tmp_path_factory):
    """A leak at the noise of ε = 8, none at that of ε = 1: what was printed, and the folder."""
    folder = tmp_path_factory.mktemp("decide") / "run"
    with pytest.MonkeyPatch.context() as patch:
        said = StringIO()
        patch.setattr("sys.stdout", said)
        run = script(lambda sigma: sigma < 0.8)
        assert main([*RUN, "--out", str(folder)]) == 0
    return SimpleNamespace(said=said.getvalue(), folder=folder, run=run)


@pytest.fixture(autouse=True)
def plain(measured, monkeypatch):
    """One page is enough: that of the run above."""
    monkeypatch.setattr(export, "page", SimpleNamespace(write=lambda *given: given[0].path))


@pytest.fixture
def few_levels(monkeypatch):
    """Beside the choices, two levels will do where it is not asked which there are."""
    monkeypatch.setattr(attacked, "EVEN", 2)


def test_each_epsilon_has_its_verdict(measured):
    kept = json.loads((measured.folder / "decide.json").read_text())["measured"]
    ((small,), (large,)) = (each["seen"] for each in kept["choices"])
    assert (small["verdict"], large["verdict"]) == ("not seen by these attacks", "leak shown")
    assert (small["rates"][0]["successes"], small["rates"][0]["trials"]) == (0, 59)
    assert kept["undefended"]["seen"][0]["verdict"] == "leak shown"
    assert kept["without_accuracy"].startswith("accuracy is measured on cifar10 only")


def test_what_is_printed_equals_the_files(measured):
    kept = json.loads((measured.folder / "decide.json").read_text())
    assert answering.text(kept["measured"]) in measured.said
    assert max(map(len, measured.said.splitlines()[:-1])) <= 80
    rates = pd.read_csv(measured.folder / "frontier.csv")
    for each in kept["measured"]["choices"]:
        (line,) = rates[rates["sigma"] == each["noise_multiplier"]].to_dict("records")
        (rate,) = each["seen"][0]["rates"]
        assert {name: line[name] for name in rate} == rate
    with (measured.folder / "decide.csv").open() as file:
        assert [float(row["noise_multiplier"]) for row in csv.DictReader(file)] == [
            each["noise_multiplier"] for each in kept["measured"]["choices"]
        ]
    for sentence in (each["sentence"] for each in _frontiers(measured.folder)):
        assert sentence in kept["measured"]["frontiers"]
    assert "safe" not in measured.said
    assert MEANING in " ".join(measured.said.split())
    assert "5 points above chance" in MEANING
    # of many gradients somebody gains more: that of σ = 4.08 / √T
    assert "From one such gradient, no attacker at all gains more" in " ".join(measured.said.split())


def test_the_levels_hold_the_choices_and_reach_beyond_the_certified_frontier(measured):
    (found,) = _frontiers(measured.folder)
    sigmas = [level["noise"]["sigma"] for level in found["levels"]]
    kept = json.loads((measured.folder / "decide.json").read_text())
    assert {each["noise_multiplier"] for each in kept["choices"]} <= set(sigmas)
    assert sigmas[:2] == [0, 0.01]
    assert sigmas[-1] >= found["certified"]["0.1"]["sigma"]


def test_the_folder_holds_a_whole_run(measured):
    expected = {"results.csv", "frontier.csv", "table.md", "decide.png", "report.html"}
    assert expected <= set(os.listdir(measured.folder))


def test_the_same_command_again_runs_nothing_and_says_the_same(script, measured, capsys):
    run = script(lambda sigma: sigma < 0.8)
    assert main([*RUN, "--out", str(measured.folder)]) == 0
    assert run == []
    answer = json.loads((measured.folder / "decide.json").read_text())["measured"]
    assert answering.text(answer) in capsys.readouterr().out


def test_it_refuses_where_the_attacks_fail_undefended(script, tmp_path, capsys):
    script(lambda sigma: False)
    assert main([*RUN, "--out", str(tmp_path / "run")]) == 2
    assert "not seen to succeed without a defence" in capsys.readouterr().err
    assert not (tmp_path / "run" / "decide.json").exists()


REGISTER = """
import sys
from dpbench.data import datasets
from tests.helpers.tiny import tiny
from dpbench_instant import Instant
from dpbench.decide import attacked
from dpbench.decide.__main__ import main
from dpbench.report import export
attacked.EVEN = 2
export.plots = {}
export.page.write = lambda store, table: store.path
datasets._items["tiny"] = lambda argument, size: tiny()
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.usefixtures("few_levels")
def test_interrupted_it_keeps_what_it_has_and_goes_on(script, tmp_path, capsys):
    """It goes on in this process; `--quick` gives no verdicts."""
    words = [*RUN, "--quick", "--out", str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ['PYTHONPATH']}"}
    process = subprocess.Popen(
        [sys.executable, "-c", REGISTER, *words], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("run/logs/*.log"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130, said
    assert "Interrupted: what was measured is kept; the same command goes on." in said
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("run/cells/*")}
    assert kept
    assert not (tmp_path / "run" / "decide.json").exists()
    run = script(lambda sigma: True)
    assert main(words) == 0
    levels = len(_frontiers(tmp_path / "run")[0]["levels"])
    assert len(kept) + len(run) == 10 * levels
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("run/cells/*")}
    assert kept.items() < after.items()
    said = " ".join(capsys.readouterr().out.split())
    answer = json.loads((tmp_path / "run" / "decide.json").read_text())["measured"]
    assert [each["seen"][0]["verdict"] for each in answer["choices"]] == [None, None]
    assert "leak shown" not in said
    assert "curve without verdicts" in said
    assert MEANING not in said


@pytest.mark.usefixtures("few_levels")
def test_ones_own_folder_of_images(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(cells._PICKED, "candidates", (4,))  # each level takes the gradients of all of them
    images = tiny(each=210).images.permute(0, 2, 3, 1).numpy()
    for place, pixels in enumerate(images):
        home = tmp_path / "own" / f"class{place % 2}"
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(home / f"{place}.png")
    script(lambda sigma: True)
    words = [*TRAINING, "--data", f"folder:{tmp_path / 'own'}", "--victim", "untrained", "--model", "lenet"]
    words += ["--device", "cpu", "--workers", "1", "--run", "--quick", "--quiet"]
    words += ["--threat-model", "informed"]
    assert main([*TRAINING, "--out", str(tmp_path / "run")]) == 0  # what it leaves makes way for the run
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    (found,) = _frontiers(tmp_path / "run")
    assert (found["threat_model"], found["attacks"]) == ("informed", ["prior-aware"])
    assert main([*words, "malicious-linear", "--out", str(tmp_path / "other")]) == 2
    assert "no set of attacks for --threat-model malicious-linear" in capsys.readouterr().err


def test_the_sets_are_those_of_the_data():
    bare = tiny()
    given, note = attacked.attackers(bare)
    assert given == {"iterations": 100, "preset": "paper", "attack": ("inverting-gradients", "prior-aware")}
    assert note.startswith("malicious-linear is left out")
    assert attacked.attackers(bare, ("dlg",)) == (
        {"iterations": 100, "attack": ("dlg",), "threat_model": ()},
        "",
    )
    with pytest.raises(InputError, match="no set of attacks for `threat_model` malicious-linear"):
        attacked.attackers(bare, (), ("malicious-linear",))


def test_levels_near_a_choice_are_left_out_and_the_largest_stays():
    def levels(*noise):
        return attacked.levels([SimpleNamespace(noise_multiplier=sigma) for sigma in noise])

    assert levels(1.11, 0.71, 0.53) == (0.01, 0.034, 0.12, 0.39, 0.53, 0.71, 1.11, 4.5)
    assert levels(3.9) == (0.01, 0.034, 0.12, 0.39, 1.3, 3.9, 4.5)
    assert levels(5.0) == (0.01, 0.034, 0.12, 0.39, 1.3, 5.0)


@pytest.fixture
def small(script, monkeypatch):
    """CIFAR-10 with 60 images of 8 pixels a side, and a model that is trained in milliseconds."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8, generator=generator)
    for module in (costs, trainings):
        monkeypatch.setattr(module, "cifar10", lambda split: (images, torch.arange(60) % 2))
    monkeypatch.setattr(trainings, "MODELS", {"convnet-tanh": MODELS["convnet-tanh"]})
    monkeypatch.setattr(trainings, "SEEDS", (0, 1))


@pytest.mark.usefixtures("few_levels")
def test_accuracy_stands_beside_what_was_seen(small, script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(costs, "why_not", lambda training, data: "")
    script(lambda sigma: True)
    words = ["--train-size", "60", "--train-batch-size", "20", "--epochs", "1", "--eps", "1"]
    words += ["--target-advantage", "0.3", *SETTING, "--device", "cpu", "--run", "--workers", "1", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    table = pd.read_csv(tmp_path / "run" / "utility.csv")
    assert table["status"].tolist() == ["ok"] * 6
    assert table.groupby("defense")["noise_multiplier"].nunique().to_dict() == {"dp": 2, "none": 0}
    kept = json.loads((tmp_path / "run" / "decide.json").read_text())["measured"]
    for each in [kept["undefended"], *kept["choices"]]:
        rows = table[table["defense"] == "none"]
        if "noise_multiplier" in each:
            rows = table[(table["noise_multiplier"] - each["noise_multiplier"]).abs() < 1e-6]
        (reached,) = each["accuracy"]
        assert reached["mean"] == pytest.approx(rows["accuracy"].mean())
        assert f"convnet-tanh {100 * reached['mean']:.1f} % (" in said
        assert (reached["min"], reached["max"]) == (rows["accuracy"].min(), rows["accuracy"].max())
    assert "safe" not in (tmp_path / "run" / "decide.json").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--run", "Give the folder for what --run measures as --out."),
        ("--quick", "--quick is about what is attacked: give --run with it."),
        ("--data cifar10 --attack lmmse", "--attack is about what is attacked: give --run with it."),
        ("--run --out x --workers 3", "--workers must be at most 2"),
    ],
)
def test_bad_input_is_one_sentence(words, said, capsys):
    assert main(words.split()) == 2
    assert said in capsys.readouterr().err


def test_a_training_that_is_larger_than_cifar10_has_no_accuracy(small):
    training = Training(train_size=61, train_batch_size=20, epochs=1, delta=1e-3)
    assert "60 training images are fewer than yours" in costs.why_not(training, "cifar10")
    assert "dpbench.utility" in costs.why_not(training, "folder:x")


def _frontiers(folder):
    return json.loads((folder / "frontier.json").read_text())["frontiers"]
