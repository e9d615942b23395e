"""One of a kind is no plural in what is printed."""

from pathlib import Path

import pandas as pd
import pytest

from dpbench.data.image_files import _note
from dpbench.privacy.calibration import sampling
from dpbench.protocol import InputError
from dpbench.report import terminal
from dpbench.report.informed import _measured
from dpbench.report.published import _figures
from dpbench.report.tables import to_markdown
from dpbench.store import open_run
from dpbench.store.schema import frame
from dpbench.sweep.own_checks import _draw
from dpbench.sweep.session import Session


def test_one_file_trial_image_and_conversion():
    assert terminal._names([Path("run/a.csv"), Path("run/plots/b.svg")]) == ["a.csv", "plots/ (1 file)"]
    row = {"candidates": 10, "success": 1.0, "trials": 1, "success_low": 0.03, "success_high": 1.0}
    assert "100 % of 1 trial, " in _measured(row)
    rows = frame([{"attack": "dlg", "psnr": 20.0}])
    assert _figures(rows) == "median PSNR 20.00 dB of 1 image"
    assert _note(["", "greyscale"]) == "1 of 2 images is not plain RGB and was converted (1 greyscale)"


def test_one_image_or_sample_in_complaints():
    with pytest.raises(InputError, match=r"the data set has 1 image\."):
        _draw(1, 2, 0)
    with pytest.raises(InputError, match="A training set of 1 sample has no batches of 2"):
        sampling(1, 2, 1)


def test_one_cell_set_aside_and_brought_back(tmp_path):
    store = open_run(tmp_path / "run", {})
    store.write("old", [{"status": "ok", "image": 0}])
    (line,) = Session.begin(store, []).sort_out()
    assert (
        line
        == f"{store.path} holds 1 cell of other code or another run, set aside in {store.path}/set-aside."
    )
    session = Session.begin(store, [])
    session.cells["old"] = None
    assert session.sort_out() == [f"1 cell of this run had been set aside in {store.path}; brought back."]


def test_an_image_that_was_attacked_twice_is_not_called_two(make_run):
    run = make_run(batch_sizes=(1,))
    again = run[run["floor"].isna()].assign(attack_seed=1)
    said = "an image that was attacked several times counts as often"
    assert said not in to_markdown(run)
    assert said in to_markdown(pd.concat([run, again], ignore_index=True))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"trainable": "head"}, "trainable head"),
        ({"victim": "untrained", "victim_accuracy": None}, "victim's accuracy"),
    ],
)
def test_what_one_of_two_victims_lacks_is_not_said_of_both(make_rows, other, said):
    rows = make_rows("dlg", "none", 1, 20, 0.1)
    more = [row | other | {"key": "other"} for row in rows]
    notes = [line for line in to_markdown(frame(rows + more)).splitlines() if line.startswith("- ")]
    assert not any(said in line for line in notes)


def test_three_galleries_are_a_list(make_rows):
    rows = [
        row | {"identified": False, "gallery_size": 21 - size, "key": f"{size}"}
        for size in (1, 2, 4)
        for row in make_rows("dlg", "none", size, 20, 0.1)
    ]
    assert "picked out of a gallery of 17, 19 and 20, of all" in to_markdown(frame(rows))
