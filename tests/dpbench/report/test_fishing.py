"""A fishing server is judged by the images that it fishes for, and not by those that it guesses."""

import pandas as pd
import pytest

from dpbench.report.entries.results import result, settings
from dpbench.report.flags import flags
from dpbench.report.notes import fishing
from dpbench.report.page.changes import changes
from dpbench.report.page.exposure import panels
from dpbench.report.sentence import sentence
from dpbench.report.summary import summary
from dpbench.store import Store
from dpbench.store.schema import frame

BATCH = 8


@pytest.fixture
def caught(make_rows) -> pd.DataFrame:
    """One batch, of which the first image comes back at 115 dB and the others are the mean image."""
    rows = []
    for floor in (None, "mean-image", "noise-gradient"):
        name = "peel" if floor is None else f"floor:{floor}"
        more = {"floor": floor, "floor_of": "peel" if floor == "noise-gradient" else None}
        cell = make_rows(name, "none", BATCH, 13.0, 0.5, key=f"{floor}", **more)
        for row in cell:
            row |= {"label": (row["image"] + 3) % 10, "original_index": row["image"], "gallery_size": 200}
            row |= {"identified": False, "gallery_labels": "same", "threat_model": "fishing"}
            row |= {"psnr_floor": 13.0, "lpips_floor": 0.5} if floor is None else {}
            row["label_correct"] = row["image"] == 0
        if floor is None:
            cell[0] |= {"psnr": 115.0, "lpips": 0.0, "identified": True}
        rows += cell
    return frame(rows)


def test_an_image_that_comes_back_is_no_attack_that_fails(caught):
    assert flags(caught) == []
    said = sentence(caught)
    assert "peel rebuilds the undefended image (1 image: 115.0 dB PSNR" in said
    assert "those count that it fishes for, 1 of 8" in said
    assert "not enough" not in said


def test_summary_and_entry_count_what_is_fished_for(caught):
    (line,) = summary(caught).query("floor.isna()").to_dict("records")
    assert (line["images"], line["cells"], line["psnr_median"], line["identified_of"]) == (1, 1, 115.0, 1)
    (setting,) = settings(caught)
    strongest = result(setting)["strongest"]
    assert (strongest["psnr"], strongest["success"]["right"], strongest["success"]["asked"]) == (115.0, 1, 1)


def test_the_class_that_was_asked_for_counts_and_not_the_first_images(caught):
    (line,) = summary(caught.assign(target=5)).query("floor.isna()").to_dict("records")
    assert (line["images"], line["psnr_median"]) == (
        1,
        pytest.approx(13.0, abs=0.3),
    )  # the third image, which was missed


def test_other_servers_have_heard_every_image(caught):
    honest = caught.assign(threat_model="honest")
    assert summary(honest).query("floor.isna()")["images"].item() == BATCH
    assert fishing(honest) == ""


def test_a_batch_of_one_class_is_heard_whole(caught):
    assert fishing(caught.assign(label=3)) == ""
    assert summary(caught.assign(label=3)).query("floor.isna()")["images"].item() == BATCH


def test_the_page_shows_and_counts_the_same_images(caught, tmp_path):
    said = {change.what: change.why for change in changes(caught, Store(tmp_path))}
    assert said["More images"].startswith("There is 1 result for 1 image.")
    (panel,) = panels(caught)
    assert panel.images == 1
