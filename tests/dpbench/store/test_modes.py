"""The mode of a cell whose process was killed: that of the same victim's other cells."""

import pandas as pd
import pytest

from dpbench.store import open_run


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([{"mode": "eval"}, {"mode": "eval"}], "eval"),
        ([{"mode": "eval", "victim": "early"}], None),
        ([{"mode": "eval"}, {"mode": "train"}], None),
        ([], None),
    ],
    ids=["known", "another victim", "both", "nobody knows"],
)
def test_a_killed_cell_is_about_the_same_victim(tmp_path, others, expected):
    run, own = open_run(tmp_path / "run", {"eps": [1.0]}), {"model": "net.py:make", "victim": "trained"}
    row = own | {"attack": "dlg", "defense": "none", "batch_size": 1, "image": 0}
    run.write("killed", [row | {"status": "failed", "attack": "dies"}])
    for key, other in enumerate(others):
        run.write(f"done{key}", [row | {"status": "ok"} | other])
    (found,) = run.frame().set_index("attack")["mode"].loc[["dies"]]
    assert pd.isna(found) if expected is None else found == expected
