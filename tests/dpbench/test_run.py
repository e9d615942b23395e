from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import dpbench
from dpbench import metrics
from dpbench.cell import parts
from dpbench.run import main
from dpbench.store import Store
from dpbench.sweep.executors import local
from dpbench.system.output import Notice
from tests.helpers.cells import without_times

pytestmark = pytest.mark.usefixtures("bare_exports")  # but for the run that all files are asked of
REFERENCE = Path(__file__).parents[2] / "results" / "reference"
QUICK = ["--iterations", "2", "--device", "cpu"]
DRAWN = ("reconstructions", "leakage", "search", "shares")
FILES = {
    *("config.toml", "cells.csv", "cells", "logs", "plots"),
    *("results.parquet", "results.csv", "summary.csv", "environment.json"),
    *("table.md", "table.tex", "report.html", "dpbench-entry.json"),
    *(f"{name}.png" for name in DRAWN),
}


def run(folder: Path, *words: str) -> int:
    return main([*words, *QUICK, "--out", str(folder)])


@pytest.fixture(scope="module")
def finished(figures_in_all_files, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "main"
    assert run(folder, "--defense", "dp", "--eps", "1") == 0
    return folder


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_main_command_leaves_all_its_files(finished):
    assert {path.name for path in finished.iterdir()} == FILES
    for name in ("reconstructions.png", "leakage.png"):
        pixels = np.asarray(Image.open(finished / name).convert("L"))
        assert pixels.std() > 5
    assert json.loads((finished / "environment.json").read_text())["packages"]["torch"]
    for kind in ("svg", "pdf", "png"):
        drawn = {path.stem for path in (finished / "plots").glob(f"*.{kind}")}
        assert drawn == {f"{name}{width}" for name in DRAWN for width in ("", "-column")}
    assert tomllib.loads((finished / "config.toml").read_text())["eps"] == [1.0]


def test_main_command_has_every_row_for_both_batch_sizes(finished):
    table = dpbench.load(finished)
    assert (table["status"] == "ok").all()
    floors = {f"floor:{name}" for name in ("mean-image", "constant-image", "noise-gradient", "start")}
    for size in (1, 4):
        part = table[table["batch_size"] == size]
        assert set(part["attack"]) == floors | {"inverting-gradients"}
        attacked = part[part["attack"] == "inverting-gradients"]
        assert sorted(attacked["defense"]) == ["dp"] * size + ["none"] * size
        assert attacked["psnr_floor"].notna().all()
        dp = attacked[attacked["defense"] == "dp"]
        assert (dp["eps"] == 1).all()
        assert (dp["steps"] == 1954).all()
        assert (dp["sample_rate"] == 256 / 50_000).all()
    assert table["noise_multiplier"].nunique() == 1  # whatever part of a batch is attacked
    assert pd.read_csv(finished / "results.csv").shape == table.shape


def test_tables_and_sentence_are_shown_on_the_terminal(copied, capsys):
    assert run(copied, "--defense", "dp", "--eps", "1") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "floor:mean-image" in said
    assert "Against the early convnet" in said
    assert "results.parquet" in said


def test_columns_change_what_is_shown_and_nothing_else(copied, capsys, monkeypatch):
    monkeypatch.setattr(local, "run_cell", lambda *_, **__: pytest.fail("a finished cell was run again"))
    before = (copied / "config.toml").read_bytes()
    assert run(copied, "--defense", "dp", "--eps", "1", "--columns", "psnr_q90,seconds") == 0
    header = capsys.readouterr().out.split("Batch of 1")[0].split()
    assert header[-3:] == ["PSNR", "q90", "seconds"]
    assert (copied / "config.toml").read_bytes() == before
    assert run(copied, "--defense", "dp", "--eps", "1", "--columns", "psnr_q9") == 2
    assert "(did you mean 'psnr_q90'?)" in capsys.readouterr().err


def test_quiet_says_nothing(copied, capfd):
    assert run(copied, "--defense", "dp", "--eps", "1", "--quiet") == 0
    assert capfd.readouterr() == ("", "")


def test_every_axis_of_the_issue_in_one_plan(tmp_path, capsys):
    line = "--defense none clip noise prune dp --eps 1 10 1000 --batch-size 1 4"
    line += " --attack dlg idlg inverting-gradients"
    assert run(tmp_path / "x", *line.split(), "--dry-run") == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 * (2 + 3 + 7 * 3) + 2
    assert len(set(said)) == len(said)
    assert not (tmp_path / "x").exists()


def test_same_command_runs_nothing_twice(copied, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in (copied / "cells").iterdir()}
    (copied / "results.csv").unlink()
    monkeypatch.setattr(local, "run_cell", lambda *_, **__: pytest.fail("a finished cell was run again"))
    assert run(copied, "--defense", "dp", "--eps", "1") == 0
    assert {path: path.stat().st_mtime_ns for path in (copied / "cells").iterdir()} == before
    assert (copied / "results.csv").exists()


def test_interrupted_run_goes_on_to_the_same_results(finished, copied, monkeypatch, capsys):
    cells = sorted((copied / "cells").iterdir())
    for path in cells[3:]:
        path.unlink()
    true = local.run_cell
    left = [1]

    def impatient(cell, progress, **more):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return true(cell, progress, **more)

    with monkeypatch.context() as patch:
        patch.setattr(local, "run_cell", impatient)
        assert run(copied, "--defense", "dp", "--eps", "1") == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(
        f"Interrupted: 4 of {len(cells)} cells kept in {copied}; go on with: python -m dpbench"
    )
    assert "--defense dp --eps 1" in said
    assert len(list((copied / "cells").iterdir())) == 4
    assert main(["--resume", "--out", str(copied)]) == 0
    times = ["seconds", "compile_seconds"]
    pd.testing.assert_frame_equal(
        dpbench.load(copied).drop(columns=times), dpbench.load(finished).drop(columns=times)
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-7],
        lambda whole: whole[:-7] + bytes([whole[-7] ^ 64]) + whole[-6:],  # one pixel
        lambda whole: whole.replace(b"psnr", b"pfnr", 1),
        lambda whole: whole.replace(b'"images":', b'"imagez":', 1),
    ],
    ids=["cut", "pixel", "row", "metadata"],
)
def test_damaged_cell_is_run_again(finished, copied, recwarn, damage):
    path = sorted((copied / "cells").iterdir())[0]
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert run(copied, "--defense", "dp", "--eps", "1") == 0
    before, after = (Store(folder).read(path.stem) for folder in (finished, copied))
    assert without_times(after.rows) == without_times(before.rows)
    assert np.array_equal(after.images, before.images)
    assert {"damaged" in str(w.message) for w in recwarn.list if w.category is Notice} == {True}


def test_failing_cell_is_a_row_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    true = parts.attack_of

    def broken(cell):
        return (lambda *_, **__: 1 / 0) if cell.defence.name == "clip" else true(cell)

    words = ["--defense", "clip", "prune", "--batch-size", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(parts, "attack_of", broken)
        assert run(tmp_path / "x", *words) == 1
    table = dpbench.load(tmp_path / "x")
    failed = table[table["status"] == "failed"]
    assert failed["defense"].tolist() == ["clip"]
    assert "ZeroDivisionError" in failed["error"].item()
    assert (table.loc[table["defense"] == "prune", "status"] == "ok").all()
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert run(tmp_path / "x", *words) == 0  # what failed is tried again
    assert (dpbench.load(tmp_path / "x")["status"] == "ok").all()


def test_without_a_source_lpips_is_empty_and_said_so(tmp_path, monkeypatch, capsys):
    def unavailable(name, fetch=True):
        raise dpbench.assets.AssetUnavailable("No source of lpips-alex answers.")

    monkeypatch.setattr(dpbench.assets, "path", unavailable)
    assert metrics.why_no_lpips(32, 32) is not None
    assert run(tmp_path / "x", "--defense", "clip", "--batch-size", "1") == 0
    said = capsys.readouterr()
    assert "The columns lpips and iip stay empty: No source of lpips-alex answers." in said.err
    table = dpbench.load(tmp_path / "x")
    assert table["lpips"].isna().all()
    assert table["lpips_net"].isna().all()
    assert table["psnr"].notna().all()


def test_user_folder_and_untrained_victim(tmp_path):
    generator = np.random.default_rng(0)
    for label in ("cats", "dogs"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for i in range(2):
            pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / label / f"{i}.png")
    data = ["--data", f"folder:{tmp_path / 'pets'}", "--victim", "untrained", "--batch-size", "2"]
    assert run(tmp_path / "x", "--defense", "clip", *data, "--image-size", "16") == 0
    table = dpbench.load(tmp_path / "x")
    assert set(table["label"]) == {0, 1}
    assert run(tmp_path / "y", "--defense", "clip", *data) == 2  # not square, and not to be resized unasked


def bad_lines(tmp_path: Path) -> dict[str, tuple[str, str]]:
    """Command line -> what must be said."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "cat").mkdir()
    (tmp_path / "broken" / "cat" / "0.png").write_bytes(b"not a picture")
    (tmp_path / "sizes" / "cat").mkdir(parents=True)
    for i, side in enumerate((32, 40)):
        Image.new("RGB", (side, side), (i, 9, 9)).save(tmp_path / "sizes" / "cat" / f"{i}.png")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    (tmp_path / "w.pt").write_bytes(b"no weights")
    return {
        "--defense encrypt": "none",
        "--attack guess": "known: analytic, deep",
        "--defense dp --eps 1e-30 --eps-scope release": "choose one from",
        "--defense dp --eps 1e-30": "choose at least 0.0001",
        "--defense dp --eps 1e18": "choose at most",
        "--defense dp --delta 1": "--delta",
        "--defense prune --prune-ratio 1": "--prune-ratio",
        "--defense prune+dp": "dp",
        "--batch-size 21 --label-draw random": "20 images",
        "--batch-size 9": "8 classes",
        "--data folder:/does/not/exist": "/does/not/exist",
        "--data flowers": "known: samples",
        f"--data folder:{tmp_path}/broken --victim untrained": "0.png",
        f"--data folder:{tmp_path}/sizes --victim untrained": "--image-size",
        f"--out {tmp_path}/foreign": "thesis.txt",
        "--model lenet": "--victim untrained",
        "--model resnet20 --norm none": "--norm",
        "--victim trained --data imagenet-samples": "--victim untrained",
        f"--weights {tmp_path}/w.pt": "w.pt",
        f"--weights {tmp_path}/none.pt": "none.pt",
        "--engine steam": "--engine does not take 'steam'",
        "--resume": "--out",
        f"--resume --out {tmp_path}/nowhere": "config.toml",
        "--eps one": "--eps",
    }


def test_bad_input_is_one_sentence_and_exit_status_2(tmp_path, capfd):
    for line, said in bad_lines(tmp_path).items():
        words = line.split()
        if "--out" not in words and "--resume" not in words:
            words += ["--out", str(tmp_path / "never")]
        status = main([*words, "--quiet", "--iterations", "1"] if "--resume" not in words else words)
        out, error = capfd.readouterr()
        assert (status, out) == (2, ""), line
        assert said in error, (line, error)
        assert len(error.strip().splitlines()) == 1, (line, error)
        assert not (tmp_path / "never" / "results.csv").exists()


def test_folder_of_another_configuration_is_left_alone(copied, capsys):
    before = (copied / "results.csv").read_bytes()
    assert run(copied, "--defense", "dp", "--eps", "1", "--max-grad-norm", "2") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "max_grad_norm is 'unset' there and [2.0] here" in said
    assert (copied / "results.csv").read_bytes() == before


def test_unwritable_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "x", "--defense", "clip") == 2
    assert "name a folder that you may write to" in capsys.readouterr().err


def test_name_of_the_folder_tells_and_differs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = set()
    for eps in ("1", "10"):
        assert main(["--defense", "dp", "--eps", eps, *QUICK, "--dry-run"]) == 0
        names.add(capsys.readouterr().out.split()[-1])
    assert len(names) == 2
    assert all(name.startswith("results/dp-eps1") for name in names)
    assert os.listdir() == []


def test_a_dry_run_refuses_what_the_run_would(tmp_path, capsys):
    """A file in the folder's place, other files in it, and the run of another configuration."""
    (tmp_path / "file").write_text("")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "thesis.doc").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text("eps = [2.0]")
    for name, why in (
        ("file", "is a file"),
        ("others", "holds other files"),
        ("run", "another configuration"),
    ):
        assert run(tmp_path / name, "--defense", "none", "--dry-run") == 2
        err = capsys.readouterr().err
        assert why in err
        assert "with --out" in err


def test_as_a_program_without_a_terminal(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "dpbench.run", "--eps", "nan"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "--eps must be a finite number below 2**63, not nan."


@pytest.fixture
def does(monkeypatch):
    """Has every attack on `clip` do something before its search."""

    def arrange(something):
        true = parts.attack_of

        def attack_of(cell):
            if cell.defence.name == "clip":
                something()
            return true(cell)

        monkeypatch.setattr(parts, "attack_of", attack_of)

    return arrange


CLIP = ["--defense", "clip", "prune", "--batch-size", "1"]


def test_an_attack_that_ends_the_program_fails_alone(tmp_path, does):
    does(lambda: sys.exit(0))
    assert run(tmp_path / "x", *CLIP) == 1
    table = dpbench.load(tmp_path / "x")
    assert table.loc[table["status"] == "failed", "defense"].tolist() == ["clip"]
    assert "SystemExit" in table.loc[table["status"] == "failed", "error"].item()


def test_an_attack_that_goes_elsewhere_takes_nothing_along(tmp_path, does, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    does(lambda: os.chdir(tmp_path / "elsewhere"))
    assert run(Path("x"), *CLIP) == 0
    assert Path.cwd() == tmp_path
    assert (dpbench.load(tmp_path / "x")["status"] == "ok").all()
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("how", [lambda folder: folder.rename(folder.with_name("y")), shutil.rmtree])
def test_a_folder_that_goes_away_during_the_run_is_said(tmp_path, does, capsys, how):
    folder = tmp_path / "x"
    does(lambda: how(folder))
    assert run(folder, *CLIP) == 2
    assert f"The folder {folder}" in capsys.readouterr().err.splitlines()[-1]
    assert not folder.exists()  # it is not made again without its configuration
    if (tmp_path / "y").exists():
        (tmp_path / "y").rename(folder)
        assert Store(folder).done()


def test_a_run_of_an_older_version_is_read_and_not_resumed(copied, capsys):
    config = copied / "config.toml"
    text = config.read_text()
    (written,) = [line for line in text.splitlines() if line.startswith("version")]
    config.write_text(text.replace(written, 'version = "0.0.9"') + 'an_older_option = "x"\n')
    for words in (["--resume"], ["--defense", "dp", "--eps", "1", *QUICK]):
        assert main([*words, "--out", str(copied)]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"{copied} was written by dpbench 0.0.9" in said
        assert "dpbench.load" in said
    assert len(dpbench.load(copied))


@pytest.mark.parametrize(
    "folder", sorted(file.parent for file in REFERENCE.glob("*/results.csv")), ids=lambda folder: folder.name
)
def test_reference_runs_of_version_0_1_can_be_read(folder):
    table = dpbench.load(folder)
    assert len(table)
    assert table["attack"].notna().all()
    floors = table["attack"].str.startswith("floor:")
    assert (table["floor"].notna() == floors).all()
    assert floors.any()
    assert table["psnr"].notna().any() or table["success"].notna().any()


def test_planning_that_takes_long_says_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("dpbench.run.running.PATIENCE", -1.0)
    words = ["--batch-seed", "0", "1", "2", "--batch-size", "1", "--defense", "none"]
    assert run(tmp_path / "x", *words, "--attack", "deepinversion", "--dry-run") == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Planning: ")]
    assert said == ["Planning: 3 cells so far.", "Planning: 6 cells so far."]
