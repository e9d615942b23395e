"""The command that answers "which epsilon?", and the name under which all commands stand."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm

from dpbench import __main__ as program
from dpbench import privacy
from dpbench.data import datasets
from dpbench.decide import choices as deciding
from dpbench.decide.__main__ import main
from dpbench.decide.files import COLUMNS
from dpbench.decide.picture import picture
from dpbench.decide.table import _training
from tests.helpers.tiny import tiny

DOCUMENT = Path(__file__).parents[3] / "docs" / "decide.md"
TRAINING = ["--train-size", "20000", "--train-batch-size", "256", "--epochs", "30", "--delta", "1e-5"]


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """The issue's command: its output, and what it wrote."""
    folder = tmp_path_factory.mktemp("decide") / "new"
    words = [sys.executable, "-m", "dpbench", "decide", *TRAINING, "--out", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, encoding="utf-8")
    assert done.stderr == ""
    return done.stdout, folder


def test_the_issues_question_is_answered(answered):
    said, _ = answered
    assert max(map(len, said.splitlines()[:-1])) <= 80
    assert "q = 0.0128, T = 2,344" in " ".join(said.split())
    (line,) = (line for line in said.splitlines() if line.split()[:2] == ["1", "2.451"])
    assert " ".join(line.split()) == "1 2.451 1.6 0.192 0.155 0.823 0.105 0.00238 0.264 1e-04 14.9"
    assert "at most 15.5 % with the gradients of all" in " ".join(said.split())
    assert "safe" not in said


def test_what_is_printed_is_rounded_to_where_it_holds(answered):
    said, folder = answered
    with (folder / "decide.csv").open() as file:
        rows = list(csv.DictReader(file))
    printed = [line.split() for line in said.splitlines() if line.endswith(("∞", *"0123456789"))][-5:]
    names = ("noise_multiplier", "eps_release", "rero_release", "rero_training", "rero_server")
    names += ("advantage", "power")
    for row, line in zip(rows, printed, strict=True):
        for name, shown in zip(names, line[1:], strict=False):
            assert float(row[name]) <= float(shown) < float(row[name]) * 1.01 + 1e-3
        assert float(row["gaussian_distance"]) <= float(line[9]) <= 2 * float(row["gaussian_distance"])


def test_who_knows_the_batches_has_a_bound_of_its_own(answered):
    """A server that knows which 30 gradients hold the image has one Gaussian release with σ / √30."""
    said, folder = answered
    choice = json.loads((folder / "decide.json").read_text())["choices"][1]
    known = privacy.reconstruction_bound(choice["noise_multiplier"], steps=30)
    assert choice["rero_server"] == pytest.approx(known, abs=0.02)
    assert choice["rero_server"] > 4 * max(choice["rero_release"], choice["rero_training"])
    assert f"{privacy.epsilon(choice['noise_multiplier'], 1e-5, steps=30):.1f}" == "11.5"
    for page in (DOCUMENT, DOCUMENT.with_name("choose-an-epsilon.md")):
        assert "82.3 % at ε = 1" in page.read_text() or "At ε = 1 it is 82.3 %" in page.read_text()
    said = " ".join(said.split())
    assert (
        "at most 15.5 % with the gradients of all 2,344 steps if it does not know which of them hold it, in "
        "at most 82.3 % if it does (as a curious server may), and in at most 19.2 % with one gradient" in said
    )
    assert "if nobody knows which batches hold the image" in said


def test_a_single_sampled_step_may_not_hold_the_image(capsys):
    words = ["--train-size", "100", "--train-batch-size", "50", "--epochs", "0.5", "--delta", "1e-3"]
    assert main([*words, "--eps", "1"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "with the gradient of its one step if it does not know whether it is in it, in at most" in said


def test_the_files_hold_every_number(answered):
    _, folder = answered
    assert {file.name for file in folder.iterdir()} == {
        *("decide.csv", "decide.json", "decide.png", "report.html"),
    }
    with (folder / "decide.csv").open() as file:
        rows = list(csv.DictReader(file))
    kept = json.loads((folder / "decide.json").read_text())
    assert kept["training"]["steps"] == 2344
    assert [row["eps"] for row in rows] == ["0.5", "1.0", "2.0", "4.0", "8.0"]
    assert set(rows[0]) == set(COLUMNS) == set(kept["choices"][0])
    assert kept["choices"][-1]["eps_user"] is None
    assert rows[-1]["eps_user"] == "inf"
    for row, choice in zip(rows, kept["choices"], strict=True):
        assert all(float(row[name]) == value for name, value in choice.items() if value is not None)
        sigma, rate, steps = float(row["noise_multiplier"]), 0.0128, 2344
        assert float(row["rero_training"]) == pytest.approx(
            privacy.reconstruction_bound(sigma, rate, steps), rel=1e-4
        )
        assert float(row["rero_release"]) == privacy.reconstruction_bound(sigma)
        assert float(row["eps_release"]) == privacy.epsilon(sigma, 1e-5)
    pixels = np.asarray(Image.open(folder / "decide.png").convert("L"))
    assert pixels.std() > 5


def test_several_targets_are_rows_in_order(capsys):
    training = ["--train-size", "50", "--train-batch-size", "50", "--epochs", "4", "--delta", "1e-3"]
    targets = ["--target-bound", "0.4", "--target-server-bound", "0.3", "--target-advantage", "0.1"]
    assert main([*training, *targets]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    first, second, third = lines[lines.index([]) + 3 :][:3]
    assert (first[6], second[5], third[4]) == ("0.100", "0.300", "0.400")
    assert float(first[1]) > float(second[1]) > float(third[1])


def test_a_prior_of_ones_own_has_a_column(capsys):
    assert main([*TRAINING, "--eps", "1", "--kappa", "0.01", "--images-per-user", "1"]) == 0
    said = capsys.readouterr().out
    assert "at κ: 0.01 without them" in " ".join(said.split())
    (row,) = (line.split() for line in said.splitlines() if line.split()[:2] == ["1", "2.451"])
    # the Gaussian curve nearby has Phi(Phi^-1(0.01) + 0.264)
    assert float(row[6]) == pytest.approx(norm.cdf(norm.ppf(0.01) + 0.264), rel=0.02)
    # who knows the batches has about 30 gradients
    assert float(row[7]) == pytest.approx(norm.cdf(norm.ppf(0.01) + math.sqrt(30) / 2.451), abs=0.02)
    assert "person" not in said
    assert max(map(len, said.splitlines())) <= 80


def test_the_prior_is_rounded_down_and_its_bounds_up(capsys):
    """At a prior of .143 the bound would be above what is printed for .1421."""
    assert main([*TRAINING, "--eps", "1", "--kappa", "0.1421"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "rebuild an image in 14.2 % of cases" in said
    main([*TRAINING, "--eps", "1", "--kappa", "0.14299"])
    said = " ".join(capsys.readouterr().out.split())
    assert "rebuild an image in 14.2 % of cases" in said
    assert "at κ: 0.142 without them" in said


def test_one_of_a_thing_is_no_plural(capsys):
    words = [
        "--train-size",
        "50",
        "--train-batch-size",
        "50",
        "--epochs",
        "1",
        "--delta",
        "1e-3",
        "--eps",
        "1",
    ]
    assert main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "50 images in batches of 50 (expected; Poisson sampling), 1 epoch: q = 1, T = 1." in said
    assert "with the gradient of its one step, and in at most" in said


def test_the_widest_table_fits_a_terminal(capsys):
    words = ["--eps", "0.125", "50", "--kappa", "0.0012", "--images-per-user", "1000"]
    assert main([*TRAINING, *words]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_million_steps_are_answered(capsys):
    words = ["--train-size", "60000", "--train-batch-size", "60", "--epochs", "1000", "--eps", "1"]
    assert main(words) == 0
    assert "T = 1,000,000" in capsys.readouterr().out


def test_a_training_whose_batch_is_everything(capsys):
    assert (
        main(
            [
                "--train-size",
                "100",
                "--train-batch-size",
                "100",
                "--epochs",
                "4",
                "--delta",
                "1e-3",
                "--eps",
                "1",
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    choice = deciding.for_eps(
        deciding.Training(train_size=100, train_batch_size=100, epochs=4, delta=1e-3),
        1.0,
        kappa=0.1,
        images_per_user=1,
    )
    assert choice.gaussian_mu == pytest.approx(2 / choice.noise_multiplier, rel=1e-3)
    assert f" {math.ceil(1000 * choice.noise_multiplier) / 1000:.3f} " in said


@pytest.mark.parametrize(("steps", "eps"), [(1, 1000), (3, 1000), (3, 1)])
def test_without_sampling_mu_is_that_of_the_noise(steps, eps):
    """At ε = 1,000 the curve is all corner, and no search could tell one Gaussian from another."""
    training = deciding.Training(train_size=1000, train_batch_size=1000, epochs=steps, delta=1e-6)
    choice = deciding.for_eps(training, eps, kappa=0.1, images_per_user=1)
    assert choice.gaussian_mu == pytest.approx(math.sqrt(steps) / choice.noise_multiplier)
    assert choice.gaussian_distance == 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("samples", "A frontier needs 200 images of each label or more"),
        ("two-labels", "take a smaller --batch-size or --label-draw random."),
        ("two-labels --label-draw random", "A verdict takes up to"),
    ],
)
def test_data_that_no_frontier_can_be_of_are_refused_before_any_work(
    data, said, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(datasets._items, "two-labels", lambda argument, size: tiny(each=220))
    monkeypatch.setattr(deciding, "choices", lambda *given, **more: pytest.fail("worked"))
    words = f"--run --data {data} --batch-size 4 --victim untrained --model lenet --device cpu".split()
    words += ["--attack", "inverting-gradients"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--train-size 100", "--train-batch-size"),
        ("--train-batch-size batch", "--train-batch-size"),
        ("--target-bound 0.05", "--target-bound 0.05 is not above --kappa 0.1"),
        ("--target-server-bound 0.05", "--target-server-bound 0.05 is not above --kappa 0.1"),
        ("--target-advantage 1.5", "--target-advantage must be below 1"),
        ("--target-advantage 1e-12", "out of reach"),
        ("--kappa 1", "--kappa must be below 1"),
        ("--eps 0", "--eps must be above 0"),
        ("--eps 1e7", "--eps 1e+07 is out of reach"),
        ("--eps 1e-9", "--eps 1e-09 is out of reach over a training: choose at least 0.0001.\n"),
        ("--delta 0", "--delta must be above 0"),
        ("--images-per-user 1001", "--images-per-user must be at most 1000"),
        (
            "--train-size 300 --images-per-user 301",
            "301 images of 300: lower --images-per-user, or give the --train-size of your training.",
        ),
        ("--epochs 1e300", "--epochs must be a finite number"),
        ("--eps 1 --out /dev/null/x", "Cannot write"),
        ("--eps 1 --out /proc/x", "The folder /proc/x cannot be made; name another one."),
        ("--nonsense", "nonsense"),
    ],
)
def test_bad_input_is_one_sentence(words, said, capsys):
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" or "--out" in words
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("out", "said"), [("", "An empty path"), (__file__, "is a file, not a folder")])
def test_a_folder_that_is_none_is_refused_before_the_answer_is_computed(out, said, capsys):
    assert main(["--eps", "1", "--out", out]) == 2
    shown, err = capsys.readouterr()
    assert shown == ""
    assert said in err


def test_a_delta_that_is_too_large_is_said(capsys):
    assert main([*TRAINING[:-1], "1e-3", "--eps", "1"]) == 0
    assert "--delta 0.001 is not below 1 / --train-size" in capsys.readouterr().err


def test_the_documentation_shows_what_is_printed(answered, capsys):
    """Every line of it runs, and the table is that of the first one."""
    blocks = re.findall(
        r"^```(\w*)\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    commands = [line for kind, block in blocks if not kind for line in block.splitlines() if "-m " in line]
    assert len(commands) == 4
    assert any(answered[0].startswith(block.rstrip()) for kind, block in blocks if not kind)
    for command, expected in zip(commands[1:], ("1.570", "12.421", "2.559"), strict=True):
        python, m, module, *words = command.split()
        assert (python, m, module) == ("python", "-m", "dpbench.decide")
        assert main(words) == 0
        assert f"σ = {expected}" in DOCUMENT.read_text()
        assert f" {expected} " in capsys.readouterr().out
    (code,) = (block for kind, block in blocks if kind == "python")
    exec(code, {})


def test_one_command_for_all(capsys):
    assert program.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dpbench ")
    for words in ([], ["--help"]):
        assert program.main(words) == 0
        said = capsys.readouterr().out
        assert all(name in said for name in ("run", "decide", "audit", "assets"))
    assert program.main(["rum"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "dpbench has no 'rum' (did you mean 'run'?): give one of run, decide, frontier, tune, audit,"
    )
    assert program.main(["run", "--eps", "0"]) == 2
    assert program.main(["audit", "--eps", "0"]) == 2
    assert program.main(["assets", "fetch"]) == 2


def test_its_help_imports_nothing_heavy():
    """What takes seconds is imported by the subcommand that needs it."""
    code = "import sys; from dpbench.__main__ import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_picture_says_whom_its_curves_hold_for():
    """Without sampling everybody knows the batches, and nothing has to be said."""
    for batch, said in ((50, True), (100, False)):
        training = deciding.Training(train_size=100, train_batch_size=batch, epochs=2, delta=1e-5)
        title = picture(
            training, [deciding.for_eps(training, 2.0, kappa=0.1, images_per_user=1)]
        ).get_suptitle()
        assert ("who do not know the batches" in title) == said


def test_a_delta_is_never_shown_smaller_than_it_is():
    training = deciding.Training(train_size=20_000, train_batch_size=256, epochs=1, delta=1.0000004e-5)
    assert "δ = 1.00001e-05, one image" in " ".join(_training(training).split())
