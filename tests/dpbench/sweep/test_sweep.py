"""Sharing a folder, failing and trying again, status and estimates; with an attack that does nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from dpbench.cell import parts
from dpbench.protocol import InputError
from dpbench.run import main
from dpbench.store import Store, open_run
from dpbench.sweep import executors
from dpbench.sweep.claims import Claims, running
from dpbench.sweep.session import Session
from dpbench.sweep.status import describe
from tests.helpers.exports import BARE_RUN
from tests.helpers.sixty import SIXTY, check

pytestmark = pytest.mark.usefixtures("bare_exports")


def test_a_claim_is_one_process_es_until_it_ends(tmp_path):
    script = "import sys, time; from pathlib import Path; from dpbench.sweep.claims import Claims\n"
    script += "with Claims(Path(sys.argv[1])) as c: print(c.take('a'), flush=True); time.sleep(60)"
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "claims")], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "True\n"
    with Claims(tmp_path / "claims") as claims:
        assert not claims.take("a")
        assert claims.take("b")
        assert running(tmp_path / "claims").keys() == {"a", "b"}
        assert str(other.pid) in running(tmp_path / "claims")["a"]
        other.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, other.pid, os.WSTOPPED | os.WNOWAIT)
        assert running(tmp_path / "claims")["a"].endswith(f"process {other.pid}, stopped")
        other.kill()
        other.wait()
        assert running(tmp_path / "claims").keys() == {"b"}
        assert claims.take("a")
    assert not (tmp_path / "claims").exists()


def test_the_folder_may_be_removed_by_whoever_is_done(tmp_path):
    with Claims(tmp_path / "claims") as longer:
        with Claims(tmp_path / "claims") as shorter:
            assert shorter.take("a")
        assert not (tmp_path / "claims").exists()
        assert longer.take("a")


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "dead").write_text("")
    assert running(tmp_path / "claims") == {}
    with Claims(tmp_path / "claims"):
        pass
    assert not (tmp_path / "claims").exists()


def test_a_run_that_has_nothing_left_to_do_clears_it_away_too(tmp_path):
    """Its last cell was finished by a process that could not let go of it: the disk was read-only by then."""
    store = open_run(tmp_path / "run", {})
    (store.path / "running").mkdir()
    (store.path / "running" / "dead").write_text("")
    Session.begin(store, []).run([], executors.Local(), Console())
    assert not (store.path / "running").exists()


def test_without_locks_every_process_takes_every_cell(tmp_path, monkeypatch):
    import errno

    def none(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", none)
    with Claims(tmp_path / "claims") as one, Claims(tmp_path / "claims") as other:
        assert one.take("a")
        assert other.take("a")


def test_two_runs_in_one_folder_share_the_work(undisturbed, tmp_path):
    words, folder = [*SIXTY, "--quiet", "--out"], tmp_path / "run"
    other = subprocess.Popen([sys.executable, "-c", BARE_RUN, *words, str(folder)])
    while not list(folder.glob("logs/*.log")):
        assert other.poll() is None
        time.sleep(0.01)
    assert main([*words, str(folder)]) == 0
    assert other.wait(timeout=120) == 0
    check(folder, undisturbed)
    logs = [path.read_text() for path in folder.glob("logs/*.log")]
    assert all(text.count(" UTC, ") == 1 for text in logs)  # nothing was done twice
    assert 1 < sum(f"process {other.pid}:" in text for text in logs) < 60


def broken(monkeypatch, defense):
    true = parts.attack_of

    def refuse(cell):
        return (lambda *_, **__: 1 / 0) if cell.defence.name == defense else true(cell)

    monkeypatch.setattr(parts, "attack_of", refuse)


def test_failed_cells_have_their_traceback_and_are_retried(undisturbed, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        broken(patch, "clip")
        assert main([*SIXTY, "--out", str(folder), "--quiet"]) == 1
    said = describe(folder).splitlines()
    assert said[0] == f"{folder}: 50 cells done, 0 running, 10 failed, 0 left, of 60."
    assert "failed: 10 x ZeroDivisionError: division by zero (test_sweep.py" in said[1]
    log = said[2].split("traceback: ")[1]
    text = Path(log).read_text()
    assert "Traceback (most recent call last)" in text
    assert re.search(r"ZeroDivisionError: division by zero\nfailed after \d+\.\d s\n$", text)
    assert said[3].endswith(f"--resume --out {folder}")
    assert main(["--status", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == said
    assert main(["--resume", "--out", str(folder), "--quiet"]) == 0
    assert "ok after" in Path(log).read_text()
    assert not list((folder / "failed").iterdir())
    check(folder, undisturbed)


def test_a_cell_whose_process_dies_again_and_again_fails_alone(instant, tmp_path, monkeypatch, capfd):
    import dpbench_instant

    deadly = tmp_path / "deadly"
    deadly.mkdir()
    source = Path(dpbench_instant.__file__).read_text()
    assert "        for i in" in source
    fatal = "        import os\n        if task.release.defense: os.kill(os.getpid(), 9)\n        for i in"
    (deadly / "dpbench_instant.py").write_text(source.replace("        for i in", fatal))
    monkeypatch.syspath_prepend(str(deadly))
    folder = tmp_path / "run"
    words = ["--attack", "instant", "--defense", "none", "prune", "--batch-size", "1", "--device", "cpu"]
    words += ["--executor", "workers", "--workers", "1"]
    assert main([*words, "--out", str(folder), "--quiet"]) == 1
    said = describe(folder)
    assert "4 cells done, 0 running, 1 failed, 0 left" in said
    assert f"Its process ended {executors.TRIES} times without a result (signal 9)" in said


def test_status_of_what_is_no_run_or_no_longer_whole(tmp_path):
    with pytest.raises(InputError, match=r"no config\.toml"):
        describe(tmp_path)
    store = open_run(tmp_path / "run", {"version": "0.0.1"})
    store.write("a", [{"psnr": 1.0}])
    store.write("b", [{"status": "failed"}])
    (tmp_path / "run" / "failed" / "b.safetensors").write_bytes(b"cut")
    with pytest.warns(RuntimeWarning, match="damaged"):
        said = describe(tmp_path / "run")
    assert "1 cell done, 0 running, 1 failed, an unknown number left." in said
    assert "written by dpbench 0.0.1" in said
    assert "reason that is lost" in said
    (tmp_path / "run" / "cells.csv").write_bytes(b'\xff\x00"')
    with pytest.warns(RuntimeWarning):
        describe(tmp_path / "run")


def test_status_of_tables_without_cells_sends_nobody_on(tmp_path):
    """As results/reference has them: a run that is done must not be begun again in its own folder."""
    open_run(tmp_path / "run", {})
    (tmp_path / "run" / "results.csv").write_text("attack,defense\n")
    said = describe(tmp_path / "run")
    assert "its tables were kept without its cells" in said
    assert "--resume" not in said
    assert "cells done" not in said


def test_status_counts_only_the_cells_of_the_run(tmp_path):
    store = open_run(tmp_path / "run", {})
    store.expect([("a", "first"), ("b", "second")])
    for key, status in (("a", "ok"), ("old", "ok"), ("older", "failed")):
        store.write(key, [{"status": status, "image": 0}])
    first, second, *_ = describe(tmp_path / "run").splitlines()
    assert first.endswith("1 cell done, 0 running, 0 failed, 1 left, of 2.")
    assert second == "Not counted: 2 cells of other code or another run."


def test_cells_stay_while_another_process_is_at_work(tmp_path):
    store = open_run(tmp_path / "run", {})
    for key, status in (("old", "ok"), ("older", "failed")):
        store.write(key, [{"status": status, "image": 0}])
    session = Session.begin(store, [])
    with Claims(store.path / "running") as claims:
        assert claims.take("old")
        (line,) = session.sort_out()
        assert "so nothing is moved" in line
        assert store.keys() == ["old", "older"]
    (line,) = session.sort_out()
    assert " holds 2 cells of other code " in line
    assert store.keys() == []
    aside = Store(store.path / "set-aside")
    assert aside.counts() == ({"old"}, {"older"})
    assert session.sort_out() == []


def test_only_what_is_not_in_place_comes_back(tmp_path):
    store = open_run(tmp_path / "run", {})
    for value in (1.0, 2.0):
        store.write("a", [{"psnr": value}])
        if value == 1.0:
            store.set_aside(["a"])
    assert store.bring_back(["a"]) == 0
    assert store.read("a").rows[0]["psnr"] == 2.0


def test_dry_run_estimates_what_the_cells_take(instant, tmp_path, capsys):
    words = [
        "--attack",
        "instant",
        "--defense",
        "none",
        "prune",
        "--batch-size",
        "1",
        "--batch-seed",
        "0",
        "1",
    ]
    words += ["--iterations", "200", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()[-2]
    assert "(1 at a time, 5 shapes timed); the process takes about" in said
    assert not (tmp_path / "run").exists()
    assert main([*words, "--quiet"]) == 0
    logs = [path.read_text() for path in (tmp_path / "run").glob("logs/*.log")]
    took = sum(float(re.search(r"ok after ([\d.]+) s", text)[1]) for text in logs)
    estimated = float(re.match(r"About ([\d.]+) s ", said)[1])
    assert took / 4 < estimated < took * 4  # the machine may be busy at either moment


def test_a_long_search_is_estimated_without_running_it(instant, tmp_path, capsys):
    words = ["--attack", "instant", "--defense", "none", "--batch-size", "1", "--iterations", "14400000"]
    begun = time.monotonic()
    assert main([*words, "--device", "cpu", "--workers", "2", "--executor", "workers", "--dry-run"]) == 0
    assert time.monotonic() - begun < 30
    amount, unit = capsys.readouterr().out.splitlines()[-2].split()[1:3]
    assert unit == "hours"  # two searches of four hours or more, two at a time
    assert 4 < float(amount) < 48


def test_folder_of_an_older_version(undisturbed, tmp_path, capsys):
    store = open_run(tmp_path / "old", {"version": "0.0.1"})
    store.write("a", [{"psnr": 1.0, "image": 0}])
    before = {path: path.read_bytes() for path in (tmp_path / "old").rglob("*") if path.is_file()}
    assert main([*SIXTY, "--out", str(tmp_path / "old")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "was written by dpbench 0.0.1" in said
    assert "--out" in said
    assert {path: path.read_bytes() for path in (tmp_path / "old").rglob("*") if path.is_file()} == before


def test_cells_of_another_schema_count_as_damaged(tmp_path, monkeypatch):
    import json
    import zlib

    from safetensors.numpy import save

    store = open_run(tmp_path / "run", {})
    store.write("good", [{"psnr": 1.0, "image": 0}])
    for key, row in (("typed", {"psnr": "1 dB"}), ("renamed", {"psnr": 2.0, "snr": 3.0})):
        text = json.dumps([{"key": key, "image": 0} | row])
        sums = {"rows": text, "rows_crc32": str(zlib.crc32(text.encode())), "pixels_crc32": "0"}
        (store.path / "cells" / f"{key}.safetensors").write_bytes(save({}, metadata=sums))
    with pytest.warns(RuntimeWarning, match=r"typed.*schema"):
        table = store.frame()
    assert sorted(table["key"]) == ["good", "renamed"]
    assert Store(store.path).keys() == ["good", "renamed", "typed"]  # and nothing was thrown away


def test_links_in_a_runs_folder_lead_nowhere(tmp_path):
    """Whoever may write there could else have any file of the user's emptied or written to."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    store = open_run(tmp_path / "run", {})
    for folder, name in (("running", "a"), ("logs", "a.log")):
        (store.path / folder).mkdir()
        (store.path / folder / name).symlink_to(precious)
    with pytest.raises(InputError, match="Cannot write"), Claims(store.path / "running") as claims:
        claims.take("a")
    with pytest.raises(InputError, match="Cannot write"):
        store.log("a", "text")
    assert running(store.path / "running") == {}
    assert precious.read_text() == "mine"


def test_a_run_says_whom_it_waits_for(instant, tmp_path, monkeypatch, capsys):
    """Another process has the first cell in hand, and ends it while this one waits."""
    from dpbench.sweep import loop, progress

    folder, held = tmp_path / "x", []
    true = loop.Claims.take

    def take(claims, key):
        if not held:
            held.append(key)
        return false(key) if key == held[0] else true(claims, key)

    def false(key):
        if len(said := capsys.readouterr().err.split("Waiting for cells")) > 1:
            lines.append(said[1])
            (folder / "running" / key).unlink(missing_ok=True)
            held[0] = "nobody's"
        return False

    lines = []
    monkeypatch.setattr(progress, "WAITING", -1.0)
    monkeypatch.setattr(loop, "PATIENCE", 0.0)
    monkeypatch.setattr(loop.Claims, "take", take)
    monkeypatch.setattr(loop, "running", lambda _: {held[0]: "node, process 7"})
    words = ["--attack", "instant", "--defense", "none", "--batch-size", "1"]
    assert main([*words, "--out", str(folder)]) == 0
    assert "(node, process 7). A stopped process" in lines[0]
