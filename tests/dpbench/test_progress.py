from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console

from dpbench import progress
from dpbench.grid import Cell
from dpbench.trial import CellResult

CELL = Cell(
    data="samples",
    images_digest="",
    image_size=None,
    model="convnet",
    norm="none",
    victim="early",
    weights=None,
    weights_digest="",
    batch_size=2,
    batch_seed=0,
    label_draw="distinct",
    labels="known",
    bn_stats="none",
    attack="dlg",
    attack_seed=0,
    device="cpu",
    version="0",
)


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
