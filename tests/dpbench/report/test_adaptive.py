"""The comparison of attacks that know the defence with the same attacks that do not."""

import numpy as np
import pandas as pd
import pytest

from dpbench.report.adaptive import gains, readable, verdict
from dpbench.report.export import export_data
from dpbench.report.page.results import results
from dpbench.report.tables import of_gains
from dpbench.store import Store
from dpbench.store.schema import frame


@pytest.fixture
def both_ways(make_rows):
    """Eight batches of one image at some strengths, with the gains of an attack that knows, dB and LPIPS."""

    def made(gained, batches=8):
        rows = []
        for ratio, (db, lpips) in gained.items():
            for seed in range(batches):
                for knows in (False, True):
                    (row,) = make_rows("dlg", "prune", 1, 20, 0.2, seed=seed, key=f"{ratio}-{seed}-{knows}")
                    row |= {"adaptive": knows, "prune_ratio": ratio, "original_index": seed}
                    if knows:
                        spread = 0.01 * np.sin(seed)
                        row |= {
                            "psnr": row["psnr"] + db + spread,
                            "lpips": row["lpips"] + lpips + spread / 10,
                        }
                    rows.append(row)
        return frame(rows)

    return made


def test_gains_are_paired_and_judged_by_their_intervals(both_ways):
    found = gains(both_ways({0.5: (2.0, 0.05), 0.9: (-0.1, -0.05), 0.99: (-1.0, 0.0)})).set_index("defense")
    assert found.index.tolist() == ["prune ratio=0.5", "prune ratio=0.9", "prune ratio=0.99"]
    assert found["images"].tolist() == found["batches"].tolist() == [8, 8, 8]
    assert found["psnr_gain"].tolist() == pytest.approx([2.0, -0.1, -1.0], abs=0.02)
    assert found["lpips_gain"].tolist() == pytest.approx([0.05, -0.05, 0.0], abs=0.002)
    assert found["psnr_verdict"].tolist() == ["better", "no worse", "worse"]
    assert found["lpips_verdict"].tolist() == ["worse", "better", "no worse"]
    assert (found["psnr_low"] < found["psnr_gain"]).all()
    assert (found["psnr_gain"] < found["psnr_high"]).all()


def test_few_batches_have_no_interval_and_no_verdict(both_ways):
    found = gains(both_ways({0.5: (2.0, 0.05)}, batches=5))
    assert found["psnr_low"].isna().all()
    assert found["psnr_verdict"].tolist() == [""]
    (row,) = readable(found).rows
    assert "+2.0" in row
    assert verdict(float("nan"), float("nan"), 1) == ""


def test_there_is_no_table_where_nothing_ran_both_ways(both_ways, make_rows):
    assert gains(frame(make_rows("dlg", "none", 1, 20, 0.2, adaptive=None))).empty
    table = both_ways({0.5: (2.0, 0.05)})
    assert readable(gains(table[table["adaptive"]])) is None


def test_the_table_is_found_in_what_a_run_writes(both_ways, tmp_path):
    table = both_ways({0.5: (2.0, 0.05), 0.9: (1.0, 0.0)})
    text = of_gains(readable(gains(table)))
    assert "### What knowing the defence gains" in text
    assert "| dlg | prune ratio=0.5 |" in text.replace("\\", "")
    assert "| better |" in text
    shown = results(table, Store(tmp_path))
    assert "What knowing the defence gains" in shown
    assert shown.count("<td>better</td>") == text.count("| better |")
    export_data(Store(tmp_path), table)
    assert pd.read_csv(tmp_path / "adaptive.csv")["psnr_verdict"].tolist() == ["better", "better"]


def test_attack_seeds_are_no_images(both_ways):
    table = both_ways({0.5: (2.0, 0.05)})
    again = pd.concat([table, table.assign(attack_seed=1, key=table["key"] + "-1")], ignore_index=True)
    assert gains(again)["images"].tolist() == gains(table)["images"].tolist() == [8]
