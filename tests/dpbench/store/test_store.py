"""The store: what is written comes back, and nothing that goes wrong costs what was there."""

import errno
import json
import math
import os
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import torch

from dpbench.protocol import InputError
from dpbench.report import entries
from dpbench.report.export import export_data
from dpbench.store import Store, columns, load, open_run, schema

EXAMPLES = {"string": 'a|b, "c" & {d}\nε', "Int64": 2**53 + 1, "float64": 0.1 + 0.2, "boolean": True}


def full_row(**changes):
    """A row with a value in every column."""
    return {name: EXAMPLES[column.dtype] for name, column in columns().items()} | {"status": "ok"} | changes


def small_row(image=0, **changes):
    row = {"attack": "dlg", "defense": "none", "batch_size": 2, "image": image, "psnr": 20.0, "status": "ok"}
    return row | changes


def pictures(seed=0, count=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 8, 8, generator=generator), torch.rand(count, 3, 8, 8, generator=generator)


@pytest.fixture
def run(tmp_path):
    return open_run(tmp_path / "run", {"eps": [1.0]})


def test_every_column_comes_back_with_its_value_and_dtype(run):
    full, empty = full_row(key="cell", image=0), {"key": "cell", "image": 1, "psnr": math.inf}
    run.write("cell", [full, empty])
    export_data(run)
    from_cells, from_parquet = run.frame(), load(run.path)
    for table in (from_cells, from_parquet, load(run.path / "results.parquet")):
        assert list(table.columns) == list(columns())
        for column in columns().values():
            assert table[column.name].dtype == pd.Series([], dtype=column.dtype).dtype, column.name
            value = table.set_index("image", drop=False)[column.name]
            assert value[0] == full[column.name], column.name
            if column.name not in empty:
                assert pd.isna(value[1]), column.name
        assert table["psnr"].max() == math.inf
    pd.testing.assert_frame_equal(from_cells, from_parquet)


def test_csv_holds_the_same_table(run):
    run.write("cell", [full_row(key="cell", image=0), {"image": 1, "psnr": math.inf}])
    export_data(run)
    dtypes = {name: column.dtype for name, column in columns().items()}
    read = schema.conform(pd.read_csv(run.path / "results.csv", dtype=dtypes))
    pd.testing.assert_frame_equal(read, load(run.path))


def test_pictures_come_back_to_half_a_grey_level(run):
    images, originals = pictures()
    run.write("cell", [small_row(0), small_row(1)], images.requires_grad_(), originals)
    cell = run.read("cell")
    assert cell.images.dtype == np.uint8
    assert np.abs(cell.images / 255 - images.detach().numpy()).max() <= 0.5 / 255 + 1e-6
    assert np.abs(cell.originals / 255 - originals.numpy()).max() <= 0.5 / 255 + 1e-6
    assert cell.rows == [{"key": "cell"} | small_row(0), {"key": "cell"} | small_row(1)]


def test_pixels_outside_the_range_are_clamped_and_nan_is_black(run):
    images = torch.tensor([-1.0, 0.0, 0.5, 2.0, math.nan, math.inf]).reshape(1, 1, 1, 6)
    run.write("cell", [small_row()], images, images)
    assert run.read("cell").images.ravel().tolist() == [0, 0, 128, 255, 0, 255]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"pnsr": 1.0}, "pnsr"),
        ({"psnr": "high"}, "psnr"),
        ({"image": 1.5}, "image"),
        ({"image": True}, "image"),
        ({"psnr": True}, "psnr"),
        ({"adaptive": 1}, "adaptive"),
        ({"attack": 3}, "attack"),
    ],
)
def test_rows_that_do_not_fit_the_schema_are_refused(run, row, name):
    with pytest.raises(ValueError, match=name):
        run.write("cell", [row])
    assert run.keys() == []


def test_numpy_and_tensor_scalars_are_taken(run):
    given = {
        "psnr": torch.tensor(3.5),
        "ssim": np.float32(0.5),
        "image": np.int64(2),
        "adaptive": np.bool_(True),
    }
    run.write("cell", [given])
    expected = {"key": "cell", "psnr": 3.5, "ssim": 0.5, "image": 2, "adaptive": True}
    assert run.read("cell").rows == [expected]


@pytest.mark.parametrize("key", ["", "../x", "a/b", "a.b", "a\0b"])
def test_a_key_cannot_leave_the_folder(run, key):
    with pytest.raises(ValueError, match="key"):
        run.write(key, [small_row()])


def test_failed_cells_are_kept_but_not_done(run):
    run.write(
        "bad", [small_row(status="failed", error="boom")], torch.empty(0, 3, 1, 1), torch.empty(0, 3, 1, 1)
    )
    run.write("none", [small_row(status="skipped", error="cannot")])
    assert not run.has("bad")
    assert run.has("none")
    assert run.frame()["error"].tolist() == ["boom", "cannot"]


def test_a_cell_written_again_takes_the_place_of_the_old(run):
    run.write("cell", [small_row(status="failed")])
    run.write("cell", [small_row(psnr=30.0)])
    assert run.has("cell")
    assert run.frame()["psnr"].tolist() == [30.0]


KILLED = """
import os, sys
from dpbench.store import Store
def killed(*_):
    os._exit(9)
os.replace = killed
Store(sys.argv[1]).write("cell", [{"seconds": 99.0}])
"""


def test_a_process_killed_before_the_rename_leaves_the_old_state(run):
    run.write("cell", [small_row(psnr=20.0)])
    before = (run.path / "cells" / "cell.safetensors").read_bytes()
    done = subprocess.run([sys.executable, "-c", KILLED, str(run.path)], timeout=300)
    assert done.returncode == 9
    leftovers = [path for path in (run.path / "cells").iterdir() if path.suffix == ".tmp"]
    assert len(leftovers) == 1  # it was killed in between, not before
    assert (run.path / "cells" / "cell.safetensors").read_bytes() == before
    again = open_run(run.path, {"eps": [1.0]})
    assert again.keys() == ["cell"]
    assert again.frame()["psnr"].tolist() == [20.0]
    assert not leftovers[0].exists()


WRITING = """
import sys, time
from pathlib import Path
from dpbench.system.atomic import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    sys.stdin.readline()
    temporary.write_text("whole")
"""


def writing(path):
    """A process that has begun to write `path`, and its temporary file."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITING, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, Path(process.stdout.readline().strip())


def test_what_another_process_is_writing_stays_until_it_is_killed(run):
    folder = run.path / "cells"
    (one, half), (other, lost) = writing(folder / "one"), writing(folder / "other")
    stranger = folder / ".writing-elsewhere-abc.tmp"
    stranger.write_text("of another machine, whose locks may not reach this one")
    old = folder / ".writing-elsewhere-old.tmp"
    old.write_text("")
    os.utime(old, (0, 0))
    os.utime(half, (0, 0))  # a slow writer is a writer
    open_run(run.path, {"eps": [1.0]})
    assert half.exists()
    assert lost.exists()
    assert stranger.exists()
    assert not old.exists()
    other.kill()
    other.wait()
    open_run(run.path, {"eps": [1.0]})
    assert {path.name for path in folder.iterdir()} == {half.name, stranger.name}
    one.communicate("\n")
    assert one.returncode == 0
    assert (folder / "one").read_text() == "whole"


def test_leftovers_stay_where_there_are_no_locks(run, monkeypatch):
    process, lost = writing(run.path / "cells" / "other")
    process.kill()
    process.wait()

    def none(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", none)
        open_run(run.path, {"eps": [1.0]})
        run.write("cell", [small_row()])
        assert lost.exists()
    open_run(run.path, {"eps": [1.0]})
    assert not lost.exists()
    assert run.has("cell")


def test_a_file_taken_for_a_leftover_before_it_was_locked_is_begun_anew(run, monkeypatch):
    from dpbench.system import atomic

    true, taken = atomic.lock, []

    def late(descriptor, *kind):
        if not taken:
            taken.extend(path for path in (run.path / "cells").iterdir() if path.suffix == ".tmp")
            taken[0].unlink()
        return true(descriptor, *kind)

    monkeypatch.setattr(atomic, "lock", late)
    run.write("cell", [small_row()])
    assert run.has("cell")
    assert [path.name for path in (run.path / "cells").iterdir()] == ["cell.safetensors"]


def test_a_run_killed_before_its_configuration_can_start_again(tmp_path):
    script = KILLED.replace('Store(sys.argv[1]).write("cell", [{"seconds": 99.0}])', "")
    script += "\nfrom dpbench.store import open_run\nopen_run(sys.argv[1], {'a': 1})"
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path / "run")], timeout=300).returncode == 9
    assert list((tmp_path / "run").iterdir())
    open_run(tmp_path / "run", {"a": 2})


@pytest.mark.parametrize("damage", ["cut", "empty", "header", "rows", "pixels", "noise"])
def test_a_damaged_cell_counts_as_missing_with_a_warning(run, damage):
    run.write("good", [small_row()])
    run.write("hurt", [small_row(0), small_row(1)], *pictures())
    path = run.path / "cells" / "hurt.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[:-7]
    elif damage == "empty":
        data = b""
    elif damage == "header":
        data = data[:20]
    elif damage == "rows":
        data = data.replace(b"20.0", b"29.0")
    elif damage == "pixels":
        data[-1] ^= 0x10
    else:
        data = os.urandom(len(data))
    path.write_bytes(data)
    with pytest.warns(RuntimeWarning, match=r"hurt.*damaged"):
        assert not run.has("hurt")
    with pytest.warns(RuntimeWarning), pytest.raises(KeyError):
        run.read("hurt")
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        table = run.frame()
    assert table["key"].tolist() == ["good"]
    run.write("hurt", [small_row()])
    assert run.has("hurt")


def test_a_missing_cell_is_no_warning(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not run.has("nothing")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["write_bytes", "fsync"])
def test_a_full_disk_is_one_sentence_and_earlier_cells_stay(run, monkeypatch, code, call):
    run.write("first", [small_row(psnr=20.0)])
    export_data(run)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}

    def full(*_, **__):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(*(("pathlib.Path.write_bytes", full) if call == "write_bytes" else ("os.fsync", full)))
        for key in ("second", "first"):
            with pytest.raises(InputError, match=r"disk is full.*free some space") as caught:
                run.write(key, [small_row(psnr=99.0)])
            assert "\n" not in str(caught.value)
    after = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert after == before  # nothing lost, nothing half-written left lying
    run.write("second", [small_row()])
    assert run.keys() == ["first", "second"]


def test_a_disk_that_fills_during_export_leaves_the_older_files(run, monkeypatch):
    run.write("first", [small_row()])
    export_data(run)
    before = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    run.write("second", [small_row()])

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pyarrow.parquet, "write_table", full)
    with pytest.raises(InputError, match="disk is full"):
        export_data(run)
    assert {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == before


def test_a_really_full_file_system(run):
    """The kernel's own refusal, through a limit on file size; with its signal ignored, write(2) fails."""
    script = """
import resource, signal, sys
import numpy as np
from dpbench.protocol import InputError
from dpbench.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
store = Store(sys.argv[1])
store.write("small", [{"seconds": 1.0}])
try:
    store.write("large", [{"seconds": 1.0}], np.zeros((1, 3, 99, 99)), np.zeros((1, 3, 99, 99)))
except InputError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(run.path)], capture_output=True, text=True, timeout=300
    )
    assert "Cannot write" in done.stdout, done.stderr
    assert [path.name for path in (run.path / "cells").iterdir()] == ["small.safetensors"]


def test_configuration_is_written_first_and_read_back(tmp_path):
    config = {
        "eps": (1.0, 10.0),
        "weights": None,
        "out": tmp_path,
        "adaptive": True,
        "nested": {"a": 1, "b": None},
    }
    open_run(tmp_path / "run", config)
    held = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert held == {"eps": [1.0, 10.0], "out": str(tmp_path), "adaptive": True, "nested": {"a": 1}}
    open_run(tmp_path / "run", config)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"eps": [8.0]}, r"eps is \[1.0\] there and \[8.0\] here"),
        ({"eps": [1.0], "delta": 1e-6}, "delta is 'unset' there and 1e-06 here"),
        ({}, r"eps is \[1.0\] there and 'unset' here"),
        ({"eps": [2.0], "a": 1, "b": 2, "c": 3, "d": 4}, "and 2 more"),
    ],
)
def test_a_folder_of_another_configuration_is_refused(run, config, said):
    with pytest.raises(InputError, match=said) as caught:
        open_run(run.path, config)
    assert "`out`" in str(caught.value)
    assert tomllib.loads((run.path / "config.toml").read_text()) == {"eps": [1.0]}


def test_changed_files_are_no_option_that_could_be_given(tmp_path):
    held = {"eps": [1.0], "inputs": "7c06"}
    open_run(tmp_path, held)
    with pytest.raises(InputError, match="The weights, the images or the tuned settings have changed since"):
        open_run(tmp_path, held | {"inputs": "30f4"})
    with pytest.raises(InputError, match=r"configuration \(eps is \[1.0\] there and \[2.0\] here\); choose"):
        open_run(tmp_path, {"eps": [2.0], "inputs": "30f4"})


def test_a_folder_that_is_no_run_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis.doc.*`out`"):
        open_run(tmp_path, {"a": 1})
    (tmp_path / "cells.csv").write_text("cell,kind\n1,neuron\n")
    with pytest.raises(InputError, match=r"cells.csv.*`out`"):
        open_run(tmp_path, {"a": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells.csv", "thesis.doc"]
    with pytest.raises(InputError, match="is a file"):
        open_run(tmp_path / "thesis.doc", {"a": 1})
    with pytest.raises(InputError, match="Cannot write"):
        open_run(tmp_path / "thesis.doc" / "run", {"a": 1})


def test_a_damaged_export_is_written_by_the_runs_command(run, tmp_path):
    (run.path / "results.parquet").write_bytes(b"PAR1")
    for name in (run.path, run.path / "results.parquet"):
        with pytest.raises(InputError, match=r"no readable Parquet .*; give the run's command again\.$"):
            load(name)
    (tmp_path / "other.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"; name a run's folder or its results.parquet\.$"):
        load(tmp_path / "other.parquet")


def test_a_damaged_configuration_is_refused(run):
    (run.path / "config.toml").write_bytes(b"eps = [1.0\xff")
    with pytest.raises(InputError, match=r"config.toml is damaged.*`out`"):
        open_run(run.path, {"eps": [1.0]})


@pytest.mark.parametrize("left", [None, "", "eps = ["])
def test_a_run_whose_configuration_is_lost_keeps_its_cells(run, left):
    config = run.path / "config.toml"
    asked = tomllib.loads(config.read_text())
    run.write("a", [small_row()])
    run.expect([("a", "the first")])
    config.unlink()
    if left is not None:
        config.write_text(left)
        with pytest.raises(InputError, match=": restore that file, or remove it and start the same run"):
            open_run(run.path, asked)
        config.unlink()
    assert open_run(run.path, asked).has("a")
    assert tomllib.loads(config.read_text()) == asked


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_an_unwritable_folder_is_refused_before_any_work(run, monkeypatch, code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(InputError, match=r"Cannot write .*name a folder"):
        open_run(run.path, {"eps": [1.0]})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    with pytest.raises(InputError, match="Cannot write"):
        open_run(folder / "run", {})


def test_the_table_does_not_depend_on_the_order_of_writing(tmp_path):
    cells = [
        (f"k{n}", [small_row(image, batch_seed=n % 3, psnr=float(n)) for image in (1, 0)]) for n in range(7)
    ]
    tables = []
    for name, order in (("one", cells), ("two", cells[::-1])):
        store = open_run(tmp_path / name, {})
        for key, rows in order:
            store.write(key, rows)
        tables.append(store.frame())
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["batch_seed"].is_monotonic_increasing


def test_load_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match=r"no config\.toml"):
        load(tmp_path)
    with pytest.raises(InputError, match="no results at"):
        load(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_text("not parquet")
    with pytest.raises(InputError, match="no readable Parquet"):
        load(tmp_path / "bad.parquet")


def test_load_takes_unfinished_runs_and_older_columns(run):
    run.write("cell", [small_row()])
    assert load(run.path)["psnr"].tolist() == [20.0]
    export_data(run)
    older = pd.read_parquet(run.path / "results.parquet").drop(columns=["rero_release", "identified"])
    older.assign(extra=1).to_parquet(run.path / "results.parquet")
    table = load(run.path)
    assert list(table.columns) == [*columns(), "extra"]
    assert table["identified"].dtype == "boolean"
    assert table["rero_release"].isna().all()


@pytest.mark.parametrize("case", ["another cell", "a failed one succeeds", "other code", "nothing"])
def test_load_knows_what_an_export_lacks(run, case):
    """A run that was taken up again and has not ended: its export is of an earlier state."""
    run.expect([("a", "the first"), ("b", "the second")])
    run.write("a", [small_row()])
    if case != "another cell":
        run.write("b", [small_row(psnr=21.0, status="failed" if case == "a failed one succeeds" else "ok")])
    export_data(run)
    if case == "other code":
        run.expect([("c", "the first"), ("d", "the second")])
        run.set_aside("ab")
        run.write("c", [small_row(psnr=23.0)])
    elif case != "nothing":
        run.write("b", [small_row(psnr=22.0)])
    assert load(run.path)["psnr"].tolist() == {"other code": [23.0], "nothing": [20.0, 21.0]}.get(
        case, [20.0, 22.0]
    )


def test_an_export_outlives_its_cells(run):
    run.expect([("a", "the first")])
    run.write("a", [small_row()])
    export_data(run)
    (run.path / "cells" / "a.safetensors").unlink()
    assert load(run.path)["psnr"].tolist() == [20.0]


def test_a_folder_whose_name_is_not_utf8_is_exported_and_read(tmp_path):
    run = open_run(tmp_path / os.fsdecode(b"d\xe9"), {"eps": [1.0]})
    run.write("a", [small_row()])
    export_data(run)
    entry = json.loads(entries.write(run, run.frame()).read_text())
    assert entry["submission"]["name"] == "d?"
    for name in ("", "results.parquet", "results.csv"):
        assert load(run.path / name)["psnr"].tolist() == [20.0]


def test_an_empty_run_exports(run):
    files = export_data(run)
    assert all(path.stat().st_size for path in files)
    assert len(load(run.path)) == 0


def test_environment_names_versions_and_source(run):
    export_data(run)
    said = json.loads((run.path / "environment.json").read_text())
    assert said["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert said["packages"]["torch"].startswith(torch.__version__.split("+")[0])
    assert set(said["git"]) == {"commit", "dirty"}


def test_git_state_follows_the_checkout(tmp_path):
    from dpbench.store.environment import git_state

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    file = tmp_path / "code.py"
    file.write_text("1")
    git("init", "-q")
    assert git_state(file) == {"commit": None, "dirty": None}
    git("add", "code.py")
    git("commit", "-qm", "first")
    assert git_state(file) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    file.write_text("2")
    assert git_state(file)["dirty"] is True


def test_the_schema_is_well_formed():
    assert all(column.meaning and column.dtype in EXAMPLES for column in columns().values())
    measured = {"psnr", "lpips", "batch_seed", "attack_seed", "image", "key", "iterations", "seconds"}
    assert not measured & {column.name for column in columns().values() if column.condition}


def test_design_columns_are_all_there():
    asked = {
        *(
            "attack",
            "adaptive",
            "defense",
            "eps",
            "eps_release",
            "delta",
            "noise_multiplier",
            "max_grad_norm",
        ),
        *("prune_ratio", "sample_rate", "steps", "accountant", "eps_scope", "rero_release", "threat_model"),
        *(
            "releases",
            "model",
            "norm",
            "mode",
            "victim",
            "victim_accuracy",
            "bn_stats",
            "labels",
            "label_draw",
        ),
        *(
            "data",
            "batch_size",
            "batch_seed",
            "attack_seed",
            "image",
            "image_loss",
            "image_grad_share",
            "psnr",
        ),
        *(
            "ssim",
            "lpips",
            "fft2d",
            "identified",
            "gallery_size",
            "label_correct",
            "psnr_floor",
            "lpips_floor",
        ),
        *(
            "gradient_distance",
            "engine",
            "iterations",
            "seconds",
            "compile_seconds",
            "device",
            "status",
            "error",
        ),
    }
    assert not asked - set(columns())


def test_store_needs_no_open_run_to_be_read(run):
    run.write("cell", [small_row()])
    assert Store(str(run.path)).has("cell")
