from __future__ import annotations

import io
import math

import pytest
import torch
from rich.console import Console

from dpbench.cell.result import CellResult
from dpbench.sweep import progress
from tests.helpers.cells import cell

CELL = cell("dlg", victim="early")


def result(*psnr: float, status: str = "ok", error: str | None = None) -> CellResult:
    rows = [{"psnr": value, "status": status, "error": error} for value in psnr]
    return CellResult(rows, torch.empty(0, 3, 1, 1), torch.empty(0, 3, 1, 1))


@pytest.fixture
def shown():
    return Console(file=io.StringIO(), width=200)


def test_line_per_cell_where_there_is_no_terminal(shown):
    with progress.Display([CELL, CELL], shown) as display:
        display.finished(CELL, result(10.0, 20.0, 99.0))  # the third row is the start's, a floor
    assert shown.file.getvalue().startswith("[1/2] convnet/none/early B=2 (batch 0): dlg on none: 15.0 dB")


def test_images_that_a_fishing_server_guesses_do_not_count(shown):
    """It fishes for the class of the first image unless it is told another one."""
    for target, said in ((None, "100.0 dB"), (1, "12.0 dB")):
        found = result(100.0, 12.0)
        for row, label in zip(found.rows, (0, 1), strict=True):
            row |= {"threat_model": "fishing", "label": label, "target": target}
        with progress.Display([CELL], shown) as display:
            display.finished(CELL, found)
        line = shown.file.getvalue().splitlines()[-1]
        assert f"dlg on none: {said}, " in line
        assert f"best {said}" in line


def test_long_cell_says_that_it_lives_but_not_all_the_time(shown, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.Display([CELL], shown) as display:
        for i in range(100):
            clock[0] += 0.5
            display.iteration(CELL, i + 1, 200, 1.0)
    lines = shown.file.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[1].endswith("82/200 iterations, 2 it/s, about 59 s left")


def test_compiling_is_said_at_once_and_counts_neither_for_the_speed_nor_for_the_search(shown, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    found = result(10.0, 20.0)
    found.rows[0]["compile_seconds"] = 41.0
    with progress.Display([CELL, CELL], shown) as display:
        for clock[0], done, value in ((1, 0, math.nan), (42, 0, math.inf), (63, 42, 1.0), (65, 46, 1.0)):
            display.iteration(CELL, done, 100, value)
        display.finished(CELL, found)
        display.finished(CELL, result(10.0, 20.0))
    first, second, third, fourth = shown.file.getvalue().splitlines()
    assert first.endswith("dlg on none: compiling")
    assert second.endswith("42/100 iterations, 2 it/s, about 29 s left")
    assert "65.0 s, 41.0 s of it compiling; so far 1/2 cells, best 20.0 dB, 41 s compiling" in third
    assert "0.0 s; so far 2/2 cells, best 20.0 dB, 41 s compiling" in fourth


def test_bar_says_that_it_compiles():
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    found = result(1.0, 1.0)
    found.rows[0]["compile_seconds"] = 200.0
    with progress.Display([CELL, CELL], console) as display:
        display.iteration(CELL, 0, 100, math.nan)
        display._bar.refresh()
        assert "compiling: dlg on none" in console.file.getvalue()
        display.iteration(CELL, 0, 100, math.inf)
        display.finished(CELL, found)
    assert "3.3 minutes compiling" in console.file.getvalue().replace("\n", " ")


def test_failure_is_said_even_where_all_else_is_quiet(shown):
    with progress.Display([CELL], shown, quiet=True) as display:
        display.iteration(CELL, 1, 2, 1.0)
        display.finished(CELL, result(1.0, 1.0, status="failed", error="KeyError: x"))
    assert shown.file.getvalue().strip().endswith("failed. KeyError: x")


def test_quiet_is_without_a_line(shown):
    with progress.Display([CELL], shown, quiet=True) as display:
        display.finished(CELL, result(1.0, 1.0))
    assert shown.file.getvalue() == ""


def test_bar_on_a_terminal_fits_eighty_columns():
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with progress.Display([CELL], console) as display:
        display.iteration(CELL, 50, 100, 1.0)
        display.finished(CELL, result(1.0, 1.0))
    said = console.file.getvalue()
    assert "1/1 cells" in said
    assert "it/s" in said


def test_whom_a_run_waits_for_is_said_after_a_while_and_once(shown, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.Display([CELL], shown) as display:
        display.waiting({CELL: "node, process 7"})
        assert shown.file.getvalue() == ""
        clock[0] = progress.WAITING + 1
        for who in ("node, process 7", "node, process 7", "node, process 7, stopped"):
            display.waiting({CELL: who})
    first, second = shown.file.getvalue().splitlines()
    assert "dlg on none (node, process 7). " in first
    assert "(node, process 7, stopped)" in second


def test_quiet_waits_in_silence(shown, monkeypatch):
    monkeypatch.setattr(progress, "WAITING", -1.0)
    with progress.Display([CELL], shown, quiet=True) as display:
        display.waiting({CELL: "node, process 7"})
    assert shown.file.getvalue() == ""


def test_escapes_in_errors_and_names_do_not_reach_the_terminal(shown):
    with progress.Display([CELL], shown) as display:
        display.finished(CELL, result(math.nan, status="failed", error="\x1b[31mred\nnext [bold]"))
    (line,) = shown.file.getvalue().splitlines()
    assert "\x1b" not in line
    assert line.endswith("[31mred next [bold]")
