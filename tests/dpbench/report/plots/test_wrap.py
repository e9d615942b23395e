"""Text is broken by its width as drawn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpbench.report.plots.wrap import width, wrap


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Zs"]), max_size=60))
def test_no_line_is_too_wide_and_nothing_is_lost(text):
    lines = wrap(text, 0.6, 8).split("\n")
    assert all(width(line, 8) <= 0.6 or len(line) == 1 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_lines_are_filled():
    lines = wrap("ab " * 200, 2.0, 8).split("\n")
    assert len(lines) <= 1.2 * width("ab " * 200, 8) / 2.0 + 1


@pytest.mark.parametrize("length", [1_000, 100_000])
def test_each_letter_is_measured_once(length, monkeypatch):
    measured = []
    monkeypatch.setattr(
        "dpbench.report.plots.wrap._advance", lambda letter, size: measured.append(letter) or 0.1
    )
    assert wrap("x" * length, 1.05, 8).count("\n") == length // 10 - 1
    assert len(measured) < 6 * length
