"""Runs on disk that were never run."""

import numpy as np
import pytest

from dpbench.store import attach_floors, open_run
from dpbench.store.schema import frame


@pytest.fixture
def save(tmp_path):
    """Writes rows as the folder of a run."""

    def write(name, rows, images=None):
        store = open_run(tmp_path / name, {"defense": ["none"], "data": "samples"})
        attach_floors(frame(rows)).to_parquet(store.path / "results.parquet", index=False)
        for key in dict.fromkeys(row["key"] for row in rows) if images is not None else ():
            mine = [row for row in rows if row["key"] == key]
            pixels = np.stack([images(row) for row in mine])
            store.write(key, mine, pixels, pixels)
        return str(store.path)

    return write


@pytest.fixture
def batches(make_rows):
    """Rows of one setting: batches of two images, all photographs different; `psnr` by (seed, image)."""

    def rows(psnr, *, defense="none", attack="dlg", seeds=range(8), key="", **more):
        found = []
        for seed in seeds:
            own = {"original_index": None, "version": "0.2.0", "threat_model": "honest", "labels": "known"}
            cell = make_rows(
                attack,
                defense,
                2,
                0.0,
                0.5,
                seed=seed,
                key=f"{key or defense}-{attack}-{seed}",
                **own,
                **more,
            )
            for row in cell:
                row |= {
                    "original_index": 2 * seed + row["image"],
                    "label": 1,
                    "psnr": psnr(seed, row["image"]),
                }
                del row["label_correct"]
            found += cell
        return found

    return rows
