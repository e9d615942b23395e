"""Workers that share a graphics card: a folder stands in for it, with as many locked files as cells fit."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch

from dpbench.cell import run
from dpbench.cell.result import CellResult
from dpbench.sweep.executors import TRIES, workers
from dpbench.sweep.executors.workers import Workers
from dpbench.system.locks import lock
from tests.helpers.cells import cell

REAL = workers._serve


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def serve(line, card):
    """A worker whose cells take `batch_size` units of their card each, and keep them until it ends."""
    held = []

    def run_cell(given, progress, card):
        folder, batch = Path(given.batch.data), given.batch
        together, gone = int(batch.label_draw), int(batch.norm)

        def meet(event, count):
            """Wait until as many workers have come to the same point."""
            (folder / f"{event} {os.getpid()}").touch()
            wait_for(lambda: len(list(folder.glob(f"{event} *"))) >= count)

        def ended():
            return [path for path in folder.glob("tried *") if not Path(f"/proc/{path.name[6:]}").exists()]

        def work():
            if given.attack.name == "stopping":
                os.kill(os.getpid(), signal.SIGSTOP)
            if given.attack.name == "deadly":
                os._exit(9)
            progress(0, 1, 0.0)
            units = iter(sorted(folder.glob(f"card {card}/*")))
            try:
                while len(held) < batch.batch_size:
                    if (unit := next(units, None)) is None:
                        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
                    descriptor = os.open(unit, os.O_RDWR)
                    if lock(descriptor):
                        held.append(descriptor)
                        meet("holds", min(together, len(list(folder.glob("card */*")))))
                    else:
                        os.close(descriptor)
            finally:
                meet("tried", together)
            wait_for(lambda: len(ended()) >= gone)
            return CellResult([{"status": "ok", "pid": os.getpid()}], torch.ones(1, 3, 8, 8), torch.ones(1))

        return run.guarded(given, work)

    workers.run_cell = run_cell
    REAL(line, card)


@pytest.fixture
def team_of(tmp_path, monkeypatch):
    """Makes `count` workers for cards with `room` units each."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))  # the workers import this module
    monkeypatch.setattr(workers, "_serve", serve)

    def made(count, room, cards=1, device="cuda"):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
        for card in range(cards) if device == "cuda" else [None]:
            (tmp_path / f"card {card}").mkdir()
            for i in range(room):
                (tmp_path / f"card {card}" / str(i)).touch()
        return Workers(device, count)

    return made


@pytest.fixture
def wanting(tmp_path):
    """Makes a cell that takes `units` of its card.

    It ends when `together` workers have tried to begin one, and if that went well, when `gone` have ended.
    """

    def made(seed, units=1, together=1, gone=0, attack="dlg"):
        # the two numbers travel in words of the batch that nobody reads here
        asked = {"batch_seed": seed, "batch_size": units, "label_draw": str(together), "norm": str(gone)}
        return cell(attack, data=str(tmp_path), **asked)

    return made


def ran(execute, cells):
    """Each cell's results, which are there once."""
    found = list(execute(iter(cells), lambda *_: None))
    assert sorted(c.batch.batch_seed for c, _ in found) == sorted(c.batch.batch_seed for c in cells)
    return {c.batch.batch_seed: result for c, result in found}


def statuses(found):
    return [found[seed].status for seed in sorted(found)]


def test_as_many_workers_stay_as_fit(team_of, wanting):
    execute = team_of(4, room=2)
    assert execute.slots == 4
    cells = [wanting(seed, together=4, gone=2) for seed in range(12)]
    with pytest.warns(RuntimeWarning, match="Graphics card 0 ran out of memory") as said:
        found = ran(execute, cells)
    assert statuses(found) == ["ok"] * 12
    assert execute.slots == 2
    assert ["4 cells at a time; 3 continue" in str(w.message) for w in said] == [True, False]
    assert ["3 cells at a time; 2 continue" in str(w.message) for w in said] == [False, True]
    assert all(torch.equal(result.images, torch.ones(1, 3, 8, 8)) for result in found.values())


def test_all_that_fit_is_not_less_than_asked_for(team_of, wanting, recwarn):
    execute = team_of(2, room=2)
    assert statuses(ran(execute, [wanting(seed, together=2) for seed in range(4)])) == ["ok"] * 4
    assert execute.slots == 2
    assert not recwarn.list


def test_workers_that_starve_each_other_do_not_both_leave(team_of, wanting):
    """Both hold half the card when they want the other half: one goes, the other has another try."""
    execute = team_of(2, room=2)
    with pytest.warns(RuntimeWarning, match="with 2 cells at a time; 1 continue"):
        found = ran(execute, [wanting(0, units=2, together=2), wanting(1, units=2, together=2)])
    assert statuses(found) == ["ok", "ok"]
    assert found[0].rows[0]["pid"] == found[1].rows[0]["pid"]
    assert execute.slots == 1


def test_a_cell_that_does_not_fit_alone_fails_and_the_others_run(team_of, wanting):
    execute = team_of(3, room=2)
    cells = [wanting(seed, units=3 if seed == 1 else 1, together=3, gone=1) for seed in range(5)]
    with pytest.warns(RuntimeWarning, match="continue"):
        found = ran(execute, cells)
    assert statuses(found) == ["ok", "failed", "ok", "ok", "ok"]
    assert found[1].out_of_memory
    assert found[1].rows[0]["error"].startswith("Out of memory: use a smaller `batch_size`")


def test_a_worker_leaves_its_own_card_only(team_of, wanting):
    execute = team_of(3, room=1, cards=2)  # two workers on the first card, one on the second
    with pytest.warns(RuntimeWarning, match="Graphics card 0 .* with 2 cells at a time; 1 continue"):
        found = ran(execute, [wanting(seed, together=3, gone=1) for seed in range(6)])
    assert statuses(found) == ["ok"] * 6
    assert execute._cards.count(0) == execute._cards.count(1) == 1


@pytest.mark.parametrize(("count", "device"), [(1, "cuda"), (2, "cpu")])
def test_who_shares_no_card_reports_at_once(team_of, wanting, device, count, recwarn):
    execute = team_of(count, room=2, device=device)
    found = ran(execute, [wanting(seed, units=3 if seed == 0 else 1) for seed in range(2)])
    assert found[0].status == "failed"
    assert found[0].out_of_memory
    assert execute.slots == count
    assert not recwarn.list


def test_killed_is_not_out_of_memory(team_of, wanting, recwarn):
    execute = team_of(2, room=2)
    found = ran(execute, [wanting(0, attack="deadly"), wanting(1), wanting(2)])
    assert statuses(found) == ["failed", "ok", "ok"]
    assert f"Its process ended {TRIES} times" in found[0].rows[0]["error"]
    assert execute.slots == 2
    assert not recwarn.list


def test_a_stopped_worker_is_named_and_may_go_on(team_of, wanting, monkeypatch):
    said = []

    def warn(text, *_, **__):
        said.append(text)
        os.kill(int(re.match(r"Process (\d+) is stopped", text).group(1)), signal.SIGCONT)

    monkeypatch.setattr(workers, "SILENCE", 0.05)
    monkeypatch.setattr(workers.warnings, "warn", warn)
    assert statuses(ran(team_of(1, room=1), [wanting(0, attack="stopping")])) == ["ok"]
    assert len(said) == 1
