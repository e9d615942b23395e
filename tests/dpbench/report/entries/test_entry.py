"""An entry says what its run shows; whatever was changed afterwards is found."""

import copy
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpbench import __main__ as program
from dpbench import load
from dpbench.privacy.intervals import anytime, clopper_pearson
from dpbench.report.entries import FILE, entry, results, write
from dpbench.report.entries.check import check
from dpbench.report.entries.schema import misshapen
from dpbench.store import Store
from dpbench.store.schema import frame

REFERENCE = Path(__file__).parents[4] / "results" / "reference"


def read(path):
    return json.loads(path.read_text())


def by_defence(path):
    return {each["defence"]["name"]: each for each in read(path)["results"]}


def test_the_strongest_attack_stands_for_a_result(enter, gallery):
    rows = gallery(30, defense="none") + gallery(3) + gallery(5, attack="idlg", psnr=9.0)
    found = by_defence(enter("run", rows))
    assert found["dp"]["attacks"] == ["dlg", "idlg"]
    success = found["dp"]["strongest"]["success"]
    assert (found["dp"]["strongest"]["attack"], success["right"], success["asked"]) == ("idlg", 5, 40)
    low, high = clopper_pearson(5, 40, 0.975)  # one of two attacks
    assert (success["low"], success["high"]) == (pytest.approx(low), pytest.approx(high))
    assert success["chance"] == pytest.approx(1 / 200)
    assert found["dp"]["guarantee"]["sampler"] == {"assumed": "poisson", "actual": "fixed batch"}
    assert found["dp"]["guarantee"]["eps"] == 1
    assert found["dp"]["bound"] == {"success": 0.8, "prior": 0.1}
    assert found["none"]["guarantee"] is None
    assert found["none"]["strongest"]["success"]["share"] == 0.75


def test_a_photograph_counts_once(enter, gallery):
    rows = [row | {"original_index": row["batch_seed"] % 10} for row in gallery(10)]
    strongest = by_defence(enter("run", rows))["dp"]["strongest"]
    assert (strongest["images"], strongest["photographs"], strongest["success"]["asked"]) == (40, 10, 10)


def test_the_informed_attackers_answers_are_its_trials(enter, gallery):
    informed = {
        "threat_model": "informed",
        "success": 0.3,
        "trials": 50,
        "candidates": 10,
        "success_bound": 0.4,
    }
    rows = [
        row | informed | {"identified": None, "psnr": None} for row in gallery(0, 4, attack="prior-aware")
    ]
    found = by_defence(enter("run", rows))["dp"]
    success = found["strongest"]["success"]
    assert (success["measure"], success["right"], success["asked"]) == ("picked", 60, 200)
    assert (success["chance"], found["bound"]) == (0.1, {"success": 0.4, "prior": 0.1})


def test_a_frontiers_entry_counts_ranks_as_the_frontier_does(enter, gallery):
    """Its decoys are others than a gallery's, and its batches end by what they show."""
    rows = gallery(2, 94, attack="lmmse") + gallery(3, 94)
    for row in rows:
        row["ranked_first"] = row["attack"] == "lmmse" and row["batch_seed"] in (7, 8, 9, 10)
    path = enter("run", rows)
    strongest = by_defence(path)["dp"]["strongest"]
    success = strongest["success"]
    assert strongest["attack"] == "lmmse"
    assert (success["measure"], success["right"], success["asked"]) == ("ranked", 4, 94)
    assert (success["low"], success["high"]) == pytest.approx(anytime(4, 94, 0.975))
    assert success["chance"] == 1 / 200
    assert check(path).faults == ()


def test_the_committed_frontiers_entry_counts_what_its_table_counts():
    home = REFERENCE / "decide-run"
    seen = pd.read_csv(home / "frontier.csv")
    found = [each for each in entry(home, load(home))["results"] if each["guarantee"]]
    for each in found:
        success, sigma = each["strongest"]["success"], each["defence"]["parameters"]["noise_multiplier"]
        alike = seen[(seen["threat_model"] == each["threat_model"]) & np.isclose(seen["sigma"], sigma)]
        assert (success["right"], success["asked"]) == (alike["successes"].max(), alike["trials"].iloc[0])
        if len(alike) == 1:
            assert (success["low"], success["high"]) == pytest.approx(
                (alike["low"].item(), alike["high"].item())
            )
    assert len(found) == 24


def test_accuracy_is_that_of_the_same_noise_and_training(enter, gallery, dp):
    same = {"defense": "dp", "noise_multiplier": 0.5 + 1e-9, "max_grad_norm": 1.0}
    same |= {name: dp[name] for name in ("sample_rate", "steps")} | {"utility_model": "convnet-tanh"}
    trained = [same | {"utility_seed": i, "accuracy": 0.5 + i / 100} for i in range(3)]
    trained += [same | {"sample_rate": 0.1, "accuracy": 0.9}, same | {"max_grad_norm": 2.0, "accuracy": 0.8}]
    trained += [{"defense": "none", "utility_model": "convnet-tanh", "accuracy": 0.7, "sample_rate": 0.1}]
    found = by_defence(enter("run", gallery(0) + gallery(30, defense="none"), pd.DataFrame(trained)))
    (dp_accuracy,), (none_accuracy,) = found["dp"]["utility"], found["none"]["utility"]
    assert {n: dp_accuracy[n] for n in ("seeds", "mean", "min", "max")} == {
        "seeds": 3,
        "mean": pytest.approx(0.51),
        "min": 0.5,
        "max": 0.52,
    }
    assert none_accuracy["mean"] == 0.7


def test_what_a_submitter_wrote_stays(enter, gallery):
    path = enter("run", gallery(3))
    assert read(path)["submission"]["name"] == "run"
    submission = {"name": "Ours <b>", "authors": ["Å. Ö."], "date": "2026-01-31"}
    path.write_text(json.dumps(read(path) | {"submission": submission}))
    write(Store(path.parent), load(path.parent))
    assert read(path)["submission"] == submission
    assert check(path).faults == ()
    path.write_text(json.dumps(read(path) | {"submission": {"name": ""}}))
    write(Store(path.parent), load(path.parent))
    assert read(path)["submission"]["name"] == "run"


def test_infinities_are_text(enter, gallery):
    rows = [row | {"psnr": float("inf")} for row in gallery(40)]
    path = enter("run", rows)
    assert by_defence(path)["dp"]["strongest"]["psnr"] == "inf"
    assert check(path).faults == ()


@pytest.mark.parametrize("name", ["main", "epsilon", "clip", "rero", "batch-size"])
def test_reference_runs_have_sound_entries(name, tmp_path):
    folder = shutil.copytree(REFERENCE / name, tmp_path / name)
    found = check(write(Store(folder), load(folder)))
    assert found.faults == ()
    assert found.unchecked == ()
    assert len(found.found["results"]) > 1
    named = {"epsilon": "epsilon", "clip": "clip"}  # the others changed options, or had no suite
    assert found.found["suite"] == named.get(name)


def mutations():
    def at(*place, value):
        def change(found):
            for step in place[:-1]:
                found = found[step]
            found[place[-1]] = value

        return change

    yield "another file", at("schema", value="something")
    yield "version 0", at("schema_version", value=0)
    yield "text for a version", at("schema_version", value="1")
    yield "unknown key", at("note", value="x")
    yield "no author but text", at("submission", "authors", value="me")
    yield "impossible date", at("submission", "date", value="2026-13-01")
    yield "empty name", at("submission", "name", value="")
    yield "share above 1", at("results", 0, "strongest", "success", "share", value=1.5)
    yield "number as text", at("results", 0, "strongest", "psnr", value="12")
    yield "no image", at("results", 0, "strongest", "images", value=0)
    yield "unknown sampler", at("results", 0, "guarantee", "sampler", "assumed", value="shuffled")
    yield "nested settings", at("results", 0, "scene", "model", value={"a": 1})
    yield "short hash", at("provenance", "files", "results.csv", value="abc")
    yield "foreign file", at("provenance", "files", "/etc/passwd", value="0" * 64)
    yield "no results", lambda found: found.pop("results")
    yield "no guarantee key", lambda found: found["results"][0].pop("guarantee")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = shutil.copytree(REFERENCE / "epsilon", tmp_path_factory.mktemp("sound") / "epsilon")
    found = entry(folder, load(folder))
    found["results"] = [each for each in found["results"] if each["guarantee"]]
    assert misshapen(found) == []
    return found


@pytest.mark.parametrize(("name", "change"), list(mutations()))
def test_the_schema_rejects(sound, name, change):
    changed = copy.deepcopy(sound)
    change(changed)
    assert misshapen(changed), name


def validated(capsys, *paths):
    status = program.main(["compare", "--validate", *map(str, paths)])
    out, err = capsys.readouterr()
    return status, out, err


def test_tampering_is_found(enter, gallery, capsys):
    path = enter("run", gallery(3))
    assert validated(capsys, path)[:2] == (0, f"{path}: sound.\n")
    original = read(path)
    table = path.with_name("results.csv").read_text()
    # the table was changed
    lines = table.splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if ",true,200," in line)
    lines[place] = lines[place].replace(",true,200,", ",false,200,")
    path.with_name("results.csv").write_text("".join(lines))
    status, out, _ = validated(capsys, path)
    assert status == 1
    assert "results.csv is not the file that the entry was made from." in out
    assert "results/0/strongest/success/right is 3 where 2 follows from the files." in out
    # the number was changed
    path.with_name("results.csv").write_text(table)
    changed = copy.deepcopy(original)
    changed["results"][0]["strongest"]["success"]["right"] = 1
    path.write_text(json.dumps(changed))
    assert "right is 1 where 3 follows" in validated(capsys, path)[1]
    assert "it was made by" not in validated(capsys, path)[1]
    # it was made by other code, which counted otherwise
    changed["provenance"]["packages"]["dpbench"] = "0.1.0"
    path.write_text(json.dumps(changed))
    status, out, _ = validated(capsys, path)
    assert status == 1
    assert re.search(
        r"right is 1 where 3 follows.*\n.*it was made by dpbench 0\.1\.0.*makes its entry again", out
    )
    # the table and its hash were not, but a result was dropped
    path.write_text(json.dumps(original | {"results": []}))
    assert "results has 0 items where 1 follow from the files" in validated(capsys, path.parent)[1]
    # accuracy appeared
    path.write_text(json.dumps(original))
    path.with_name("utility.csv").write_text("defense,utility_model,accuracy\nnone,convnet-tanh,.9\n")
    assert "utility.csv came after the entry: export the run again." in validated(capsys, path)[1]


def test_a_removed_flag_is_found(enter, gallery, mean_images):
    """Two images show nothing of an undefended attack, and the entry says so beside its results."""
    path = enter("run", mean_images(2, 11.0, 0.6) + gallery(0, 2, defense="none") + gallery(0, 2))
    found = read(path)
    (flag,) = (each for each in found["flags"] if each["kind"] == "the attack fails undefended")
    assert by_defence(path)["none"]["id"] in flag["results"]
    path.write_text(json.dumps(found | {"flags": [*found["flags"], flag | {"kind": "another"}]}))
    assert check(path).faults == ()
    path.write_text(json.dumps(found | {"flags": []}))
    assert f"a flag is missing: {flag['text']}" in check(path).faults


def test_cells_are_part_of_the_hash(enter, gallery, make_rows):
    rows = gallery(1, 3)
    path = enter("run", rows)
    assert read(path)["provenance"]["cells"] is None
    store = Store(path.parent)
    for row in rows:
        store.write(row["key"], [row])
    write(store, load(path.parent))
    assert read(path)["provenance"]["cells"]["count"] == 3
    assert check(path).faults == ()
    store.write(rows[0]["key"], [rows[0] | {"psnr": 99.0}])
    assert check(path).faults == ("the cells are not those that the entry was made from",)
    shutil.rmtree(path.parent / "cells")
    assert check(path).unchecked == ("its cells are not beside it",)


def test_an_entry_without_its_run_is_read_as_it_is(enter, gallery, tmp_path, capsys):
    alone = tmp_path / "alone.json"
    shutil.copy(enter("run", gallery(3)), alone)
    status, out, _ = validated(capsys, alone)
    assert status == 0
    assert "sound, but results.csv is not beside it" in out


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "nonsense", '{"a": NaN}', "[" * 100_000, '{"schema_version": "9"}']
)
def test_whatever_is_no_entry_is_a_fault(content, tmp_path, capsys):
    (tmp_path / FILE).write_text(content)
    status, out, _ = validated(capsys, tmp_path)
    assert status == 1
    assert out.startswith(f"{tmp_path / FILE}: ")


def test_what_cannot_be_checked_is_refused(enter, gallery, tmp_path, capsys):
    newer = tmp_path / "newer.json"
    newer.write_text(json.dumps(read(enter("run", gallery(3))) | {"schema_version": 2}))
    (tmp_path / "empty").mkdir()
    for path, said in (
        (newer, "schema version 2, and this dpbench knows those up to 1"),
        (tmp_path / "empty", f"holds no {FILE}"),
        (tmp_path / "nothing", "There is no file or folder"),
    ):
        status, _, err = validated(capsys, path)
        assert status == 2
        assert said in err
        assert len(err.splitlines()) == 1


def test_a_flag_that_is_worded_otherwise_is_none_that_is_missing(enter, gallery, mean_images):
    path = enter("run", mean_images(1, 11.0, 0.6) + gallery(0, 1, defense="none") + gallery(0, 1))
    found = read(path)
    assert found["flags"]
    changed = [flag | {"text": "As another version says it."} for flag in found["flags"]]
    path.write_text(json.dumps(found | {"flags": changed}))
    assert check(path).faults == ()


def test_a_column_without_values_changes_no_id(gallery, monkeypatch):
    table = frame(gallery(0, 2))
    (before,) = results.settings(table)
    names = results.really_run()
    assert table["prune_ratio"].isna().all()
    assert "prune_ratio" in names
    monkeypatch.setattr(results, "really_run", lambda: tuple(n for n in names if n != "prune_ratio"))
    (after,) = results.settings(table)
    assert after.id == before.id
