"""Figures in README.md and docs/ come from results/reference by `python scripts/readme.py`."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import dpbench
from dpbench.data import load_data

ROOT = Path(__file__).parents[1]
FIGURE = re.compile(r"\d(?:\.\d+)? ?(?:%|dB)|\b\d+ of \d+\b")
METHOD = "exact 95 % intervals, those in dB 95 % bootstrap intervals"
"""What the README says of its intervals: no result."""


@pytest.fixture(scope="module")
def readme():
    """The script, imported as it runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        yield importlib.import_module("readme")


def test_no_page_is_out_of_date(readme, capsys):
    """If this fails: change the template in scripts/blocks and run `python scripts/readme.py`."""
    assert readme.main(["--check"]) == 0, capsys.readouterr().out


def test_a_figure_changed_by_hand_is_put_right(readme):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    wrong = text.replace("It gave 49 back", "It gave 50 back")
    assert wrong != text
    assert readme.filled(wrong) == text


def test_the_readme_has_no_result_outside_its_blocks(readme):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.BLOCK.findall(text)) >= 5
    outside = readme.BLOCK.sub("", text).replace(METHOD, "")
    assert FIGURE.findall(outside) == []


def test_the_readmes_plain_facts():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    samples = load_data("samples")
    assert (len(samples.images), len(samples.labels.unique())) == (20, 8)
    assert "the 20 CIFAR-10 test images that foolbox bundles (8 classes" in text
    sigma = dpbench.privacy.noise_multiplier(eps=8, delta=1e-5, sample_rate=256 / 50_000, steps=2_000)
    assert f"steps=2_000) # {sigma:.3f}" in text


def test_words_for_figures(readme):
    figures = importlib.import_module("reference_figures")
    assert [figures.percent(x) for x in (0, 0.0005, 0.123, 0.9949, 0.9996, 1)] == [
        *("0", "0.1", "12", "99", "99.9", "100"),
    ]
    assert [figures.upper(x) for x in (0.15462, 0.155)] == ["15.5", "15.5"]
    assert figures.release("0.2.0") == "0.2"
    assert figures.verdicts({"8": "leak shown", "1": "not seen by these attacks"}).endswith("to at ε = 1")
