"""Runs with their entries, made up."""

import pytest

from dpbench.report import entries
from dpbench.report.export import export_data
from dpbench.store import attach_floors, open_run
from dpbench.store.schema import frame


@pytest.fixture
def enter(tmp_path):
    """Writes rows as a run's folder with data and entry; the entry's path."""

    def write(name, rows, utility=None, config=None):
        folder = tmp_path / "runs" / name
        folder.parent.mkdir(exist_ok=True)
        store = open_run(folder, {"defense": ["none", "dp"], "data": "samples"} | (config or {}))
        table = attach_floors(frame([row | {"version": "0.2.0"} for row in rows]))
        export_data(store, table)
        if utility is not None:
            utility.to_csv(folder / "utility.csv", index=False)
        return entries.write(store, table)

    return write


@pytest.fixture
def gallery(make_rows, dp):
    """Rows of single images, of which the first `right` are identified."""

    def rows(right, count=40, *, defense="dp", attack="dlg", psnr=12.0, **more):
        found = []
        given = (dp if defense == "dp" else {}) | {"threat_model": "honest", "labels": "known", "releases": 1}
        for seed in range(count):
            (row,) = make_rows(attack, defense, 1, psnr, 0.4, seed=seed, **given | more)
            del row["label_correct"]
            row |= {"original_index": seed, "identified": seed < right, "gallery_size": 200}
            found.append(row)
        return found

    return rows


@pytest.fixture
def mean_images(make_rows):
    """Floors of single images, of the same originals as those of `gallery`."""

    def rows(count, psnr, lpips):
        return [
            row | {"original_index": seed}
            for seed in range(count)
            for row in make_rows("floor:mean-image", "none", 1, psnr, lpips, seed=seed)
        ]

    return rows
