"""The comparison of the default attack's presets, on numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.default_attack import Options, compared, interval, measured
from benchmarks.measure import kept


def test_gains_are_paired_by_image():
    seeds, images = np.repeat(np.arange(10), 2), np.tile([0, 1], 10)
    paper = pd.DataFrame({"batch_seed": seeds, "image": images, "psnr": seeds + 10.0, "lpips": 0.2})
    tuned = paper.assign(psnr=paper["psnr"] + 3 + images, lpips=0.1).sample(frac=1, random_state=0)
    table = pd.concat([paper.assign(preset="paper"), tuned.assign(preset="tuned")])
    (found,) = compared(table.assign(victim="early", batch_size=2, seconds=1.0))
    assert found["gain"] == pytest.approx(3.5)
    assert found["low"] == pytest.approx(found["high"]) == pytest.approx(3.5)  # every batch gains as much
    assert (found["images"], found["better"]) == (20, 20)
    assert found["median ratio"] == pytest.approx(0.5)


def test_the_interval_is_that_of_a_mean():
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(4 * values.std() / 20, rel=0.1)


def test_rows_that_were_measured_before_a_failure_are_kept(tmp_path):
    def rows():
        yield {"image": 0, "psnr": 20.0}
        raise RuntimeError("the third search failed")

    with pytest.raises(RuntimeError, match="third"):
        kept(rows(), ("image", "psnr"), tmp_path / "images.csv")
    assert (tmp_path / "images.csv").read_text().split() == ["image,psnr", "0,20.0"]


def test_both_presets_attack_each_batch(monkeypatch):
    """One search each, with the same seed, and only the attack's own rows."""
    seen = []

    def run(cell):
        seen.append((cell.batch.batch_seed, cell.attack.given["preset"], cell.search_seed()))
        own = {"attack": "inverting-gradients", "status": "ok", "image": 0, "psnr": 20.0}
        return type("Result", (), {"rows": [own, own | {"attack": "floor:start"}]})

    monkeypatch.setattr("benchmarks.default_attack.run_cell", run)
    rows = list(measured(Options(victim=("early",), batch_size=(1,), images=2, engine="eager")))
    assert [(row["preset"], row["psnr"]) for row in rows] == [("paper", 20.0), ("tuned", 20.0)] * 2
    assert [each[:2] for each in seen] == [(s, p) for s in (1000, 1001) for p in ("paper", "tuned")]
    assert seen[0][2] == seen[1][2] != seen[2][2]
