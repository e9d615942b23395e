"""A run is compared with what was stored of it, row by row."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpbench.report import check
from dpbench.run import main
from tests.helpers.exports import bare

HOME = Path(__file__).parent
REFERENCE = HOME / "reference"


@pytest.fixture(scope="module")
def checked(tmp_path_factory) -> tuple[Path, int, str]:
    """The committed reference, run again and checked: the folder, the exit status and what was said."""
    folder, said = tmp_path_factory.mktemp("check") / "run", io.StringIO()
    with contextlib.redirect_stdout(said), pytest.MonkeyPatch.context() as patch:
        bare(patch)
        words = ["--suite", str(HOME / "tiny.toml"), "--check", str(REFERENCE), "--out", str(folder)]
        status = main(words)
    return folder, status, said.getvalue()


@pytest.fixture
def rerun(checked) -> Path:
    """Its folder."""
    return checked[0]


@pytest.fixture
def stored(rerun) -> check.Stored:
    """The rerun as if it had been stored."""
    return check.read(rerun)


@pytest.fixture
def elsewhere(stored) -> check.Stored:
    """The same from another machine."""
    return replace(stored, environment=dict(stored.environment) | {"platform": "another"})


def edited(run: check.Stored, column: str, change, where=lambda table: table["attack"].notna()):
    """`run` with a column changed in some rows."""
    table = run.table.copy()
    rows = where(table)
    table.loc[rows, column] = change(table.loc[rows, column])
    return replace(run, table=table)


def attacked(table):
    return table["floor"].isna() & (table["defense"] == "none")


def repeated(run: check.Stored, times: int) -> check.Stored:
    """`run` with its undefended rows as those of many batches."""
    table = run.table[attacked(run.table)]
    rows = table.loc[np.repeat(table.index, times)].reset_index(drop=True)
    rows["batch_seed"] = np.tile(np.arange(times), len(table))
    return replace(run, table=rows)


def test_the_committed_reference_is_regenerated(checked):
    _, status, said = checked
    assert status == 0
    assert f"Checked against {REFERENCE} (dpbench 0.2.0, commit" in said
    assert "14 rows compared." in said
    assert "Departs" not in said
    assert said.rstrip().endswith("It agrees.")


def test_a_run_agrees_with_itself_to_the_last_digit(stored):
    found = check.compare(stored, stored)
    assert (found.compared, found.exact) == (14, 14)
    assert check.lines(stored, found)[1:] == [
        "Same machine, packages and code: equal to the last digit.",
        "It agrees.",
    ]
    (found,) = check.compare(edited(stored, "ssim", lambda values: values + 1e-9), stored).departures[:1]
    assert found.column == "ssim"


@pytest.mark.usefixtures("bare_exports")
def test_a_run_that_departs_ends_with_status_1_and_says_where(rerun, tmp_path, capsys):
    folder = tmp_path / "stored"
    folder.mkdir()
    for name in ("config.toml", "environment.json"):
        shutil.copy(rerun / name, folder)
    table = check.read(rerun).table
    table.loc[table["defense"] == "dp", "psnr"] += 1e-9
    table.to_csv(folder / "results.csv", index=False)
    assert main(["--resume", "--out", str(rerun), "--check", str(folder), "--quiet"]) == 1
    said = capsys.readouterr().out
    assert "Departs: psnr of inverting-gradients on dp (2 rows): " in said
    assert "; batch of 2, seed 0, image " in said
    assert said.rstrip().endswith("It departs in 1 place.")


def test_on_another_machine_rounding_is_no_departure(stored, elsewhere):
    same = edited(elsewhere, "psnr", lambda values: values + 1e-4)
    assert check.compare(same, stored).agrees
    floor = edited(elsewhere, "psnr", lambda values: values + 0.1, lambda t: t["floor"] == "mean-image")
    (found,) = check.compare(floor, stored).departures
    assert (found.kind, found.column, found.rows) == (("floor:mean-image", "none"), "psnr", 2)
    searched = edited(elsewhere, "psnr", lambda values: values + 0.1, attacked)
    assert check.compare(searched, stored).agrees  # two images of a search say nothing finer
    far = edited(elsewhere, "psnr", lambda values: values + 7, attacked)
    assert [each.column for each in check.compare(far, stored).departures] == ["psnr"]


def test_the_mean_of_many_searches_is_held_closely(stored, elsewhere):
    rng = np.random.default_rng(0)
    here = repeated(stored, 40)
    noisy = edited(repeated(elsewhere, 40), "psnr", lambda values: values + rng.normal(0, 0.5, len(values)))
    assert check.compare(noisy, here).agrees
    worse = edited(noisy, "psnr", lambda values: values + 1.0)
    (found,) = check.compare(worse, here).departures
    assert (found.column, found.rows) == ("psnr", 80)
    assert "the mean over 40 batches is off by -" in found.example


def test_flags_of_a_search_may_flip_here_and_there(stored, elsewhere):
    here = edited(repeated(stored, 40), "identified", lambda values: False)
    some = edited(repeated(elsewhere, 40), "identified", lambda v: [i % 40 == 0 for i in range(len(v))])
    assert check.compare(some, here).agrees
    (found,) = check.compare(edited(some, "identified", lambda values: True), here).departures
    assert "40 batches lost some and 0 gained some" in found.example


def test_the_images_of_a_batch_flip_together(stored, elsewhere):
    """Ten images each of four batches: a test of 40 images would not believe that this is rounding."""

    def of_four(run):
        table = repeated(run, 20).table
        place = np.arange(len(table))
        return replace(run, table=table.assign(batch_seed=place % 4, image=place // 4))

    lost = edited(of_four(elsewhere), "identified", lambda values: True)
    kept = edited(of_four(stored), "identified", lambda values: False)
    assert check.compare(lost, kept).agrees


def test_rows_of_one_run_only(stored):
    fewer = replace(stored, table=stored.table[stored.table["defense"] != "dp"])
    (found,) = check.compare(stored, fewer).departures
    assert (found.kind, found.column, found.rows) == (("inverting-gradients", "dp"), "row", 2)
    assert found.example == "stored and not in this run; batch of 2, seed 0, image 0"
    (found,) = check.compare(fewer, stored).departures
    assert found.example.startswith("in this run and not stored")


def test_rows_that_only_one_run_was_asked_for_are_named(stored):
    asked = dict(stored.asked) | {"batch_seed": [0, 1]}
    more = stored.table.copy()
    more["batch_seed"] = 1
    both = replace(stored, asked=asked, table=pd.concat([stored.table, more], ignore_index=True))
    for there, here in ((both, stored), (stored, both)):
        found = check.compare(there, here)
        assert found.agrees
        assert any("as the two were asked for different batch_seed" in line for line in found.left_out)
    lost = replace(both, table=both.table[both.table["batch_seed"] == 1])
    assert {each.column for each in check.compare(lost, stored).departures} == {"row"}


def test_other_parameters_depart_and_hide_no_pair(stored):
    other = edited(stored, "learning_rate", lambda values: 0.5, attacked)
    found = check.compare(stored, other)
    assert found.compared == 14
    assert [(each.column, each.rows) for each in found.departures] == [("learning_rate", 2)]
    assert found.departures[0].example == "0.1 there, 0.5 here"
    (found,) = check.compare(stored, edited(stored, "noise_multiplier", lambda v: v * 1.01)).departures
    assert (found.kind[1], found.column) == ("dp", "noise_multiplier")


def test_results_of_another_version(stored):
    table = stored.table.drop(columns=["learning_rate", "image_loss"])
    old = replace(stored, table=table, asked=dict(stored.asked) | {"version": "0.1.0"}, environment={})
    found = check.compare(old, stored)
    assert found.agrees
    assert (found.compared, found.exact) == (14, 0)
    (line,) = found.left_out
    assert line == "columns that are empty in what was stored: learning_rate, image_loss"
    earlier = replace(old, asked=stored.asked, columns=stored.columns - {"learning_rate", "image_loss"})
    assert check.compare(earlier, stored).left_out == [line]
    emptied = check.compare(replace(old, asked=stored.asked), stored)
    assert {each.column for each in emptied.departures} == {"learning_rate", "image_loss"}
    assert emptied.left_out == []


def test_other_photographs_are_not_compared(stored):
    other = edited(stored, "original_index", lambda values: values + 1)
    found = check.compare(edited(other, "psnr", lambda values: values + 9), stored)
    assert found.compared == 0
    assert {each.column for each in found.departures} == {"original_index"}
    assert "Nothing could be compared" not in check.lines(stored, found)[-1]


def test_a_failed_row_departs(stored):
    found = check.compare(stored, edited(stored, "status", lambda values: "failed", attacked))
    assert [(each.column, each.rows) for each in found.departures] == [("status", 2)]


def test_what_a_missing_network_measures_is_not_compared(stored):
    blind = edited(stored, "lpips_net", lambda values: None)
    blind = edited(blind, "lpips", lambda values: np.nan)
    found = check.compare(stored, edited(blind, "lpips_floor", lambda values: np.nan))
    assert found.agrees
    assert any(line.startswith("lpips of ") for line in found.left_out)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (None, "There is no folder"),
        ({}, "it has no config.toml"),
        ({"config.toml": ""}, "holds no rows"),
        ({"config.toml": "", "results.csv": "a,b\n1,2\n"}, "no readable table"),
        ({"config.toml": "a = [", "results.csv": "attack,defense\ndlg,none\n"}, "no TOML"),
        (
            {"config.toml": "", "results.csv": "attack,defense\ndlg,none\n", "environment.json": "{"},
            "environment.json cannot be read",
        ),
    ],
)
def test_what_nothing_can_be_checked_against_is_said_before_anything_runs(tmp_path, capsys, files, said):
    folder = tmp_path / "stored"
    if files is not None:
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_text(content)
    out = tmp_path / "out"
    assert main(["--defense", "none", "--check", str(folder), "--out", str(out)]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_a_run_is_not_checked_against_its_own_folder(tmp_path, capsys):
    """It agreed, whatever would come out today."""
    table = "attack,defense,status\ndlg,none,ok\n"
    for name, content in (("config.toml", ""), ("environment.json", "{}"), ("results.csv", table)):
        (tmp_path / name).write_text(content)
    assert (
        main(["--defense", "none", "--check", str(tmp_path), "--out", f"{tmp_path}/../{tmp_path.name}"]) == 2
    )
    said = capsys.readouterr().err
    assert "would be compared with themselves: give a folder by --out that is not that of --check." in said


def test_the_committed_reference_says_where_it_is_from():
    said = json.loads((REFERENCE / "environment.json").read_text())["git"]
    assert said["commit"]
    assert said["dirty"] is False
