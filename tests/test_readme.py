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
    (suites,) = re.findall(r"`--suite ([^`]+)`", text)
    there = {path.stem for path in (ROOT / "dpbench" / "sweep" / "suites").glob("*.toml")}
    assert set(suites.split("\\|")) == there


def test_words_for_figures(readme):
    words = importlib.import_module("figure_words")
    said = [words.percent(x) for x in (0, 0.0005, 0.123, 0.9949, 0.9996, 1)]
    assert said == ["0", "0.1", "12", "99", "99.9", "100"]
    assert [words.upper(x) for x in (0.15462, 0.155)] == ["15.5", "15.5"]
    assert [words.plain(x, 3, True) for x in (-0.0584, 0.02)] == ["−.058", "+.020"]
    assert [words.plain(x, 1) for x in (-0.04, 21.34)] == ["−0.0", "21.3"]
    assert [words.power(x) for x in (1, 0.22, 1.2e-4, 8.9e-116)] == ["1", ".2", "1e-4", "9e-116"]
    assert words.decimals({"count": 49, "of": 50, "low": 0.8935, "high": 0.9995}) == "49: .98 [.89, 1.00]"
    assert words.release("0.2.0") == "0.2"
    verdicts = {"8": "leak shown", "3": "leak shown", "1": "not seen by these attacks"}
    assert words.verdicts(verdicts) == "is shown to find images at ε = 3 and 8 and is not seen to at ε = 1"


def test_stored_folders_that_cannot_be_loaded_are_named():
    stored = ROOT / "results" / "reference"
    bare = sorted(f"`{d.name}`" for d in stored.iterdir() if d.is_dir() and not (d / "config.toml").exists())
    said = f"{', '.join(bare[:-1])} and {bare[-1]}, which have no `config.toml`"
    assert said in (stored / "README.md").read_text(encoding="utf-8")
