"""Ranks only where results can be compared and told apart."""

import json
import shutil

import pandas as pd
import pytest

from dpbench import __main__ as program
from dpbench.privacy.intervals import clopper_pearson
from dpbench.report.entries.boards import LEAST, Item, band, boards, ranks
from dpbench.report.entries.leaderboard import html, write

HOSTILE = '"><script>alert(1)</script>\u202e'


def items(path):
    found = json.loads(path.read_text())
    return [Item(found, result) for result in found["results"]]


def test_ties_within_the_interval_share_a_rank():
    intervals = [(0.0, 0.1), (0.05, 0.2), (0.15, 0.3), (0.25, 0.5), (0.6, 0.9)]
    assert ranks(intervals) == [1, 1, 2, 3, 5]
    assert ranks([]) == []


def test_bands_are_ten_points_wide():
    assert [band({"mean": value, "utility_model": "m"}) for value in (0.0, 0.5999, 0.6, 0.7, 1.0)] == [
        "accuracy 0 to 10 % (m)",
        "accuracy 50 to 60 % (m)",
        "accuracy 60 to 70 % (m)",
        "accuracy 70 to 80 % (m)",
        "accuracy 90 to 100 % (m)",
    ]


@pytest.fixture
def beside(gallery):
    """An undefended result beside a defended one, as a rank needs it."""
    return lambda right, count=60: gallery(right, count) + gallery(40, defense="none", psnr=30.0)


def test_the_best_defence_comes_first(enter, beside):
    paths = [enter(name, beside(right)) for name, right in (("bad", 40), ("good", 1), ("alike", 2))]
    (board,) = boards(item for path in paths for item in items(path))
    ranked = [
        (rank, item.entry["submission"]["name"])
        for rank, item in board.ranked
        if item.result["defence"]["name"] != "none"
    ]
    assert ranked == [(1, "good"), (1, "alike"), (3, "bad")]


def test_a_rank_takes_enough_images_and_an_undefended_result(enter, gallery, beside):
    paths = [enter("few", beside(0, 58)), enter("alone", gallery(0, 60)), enter("whole", beside(0))]
    (board,) = boards(item for path in paths for item in items(path))
    found = {
        item.entry["submission"]["name"]: (rank, item.unranked)
        for rank, item in board.ranked
        if item.result["defence"]["name"] == "dp"
    }
    assert found["whole"] == (1, "")
    assert found["few"] == (None, f"58 of at least {LEAST} images or trials")
    assert found["alone"][0] is None
    assert "no undefended result" in found["alone"][1]
    page = html([item for path in paths for item in items(path)], [])
    assert "no rank: 58 of at least 59 images" in page
    assert "fewer than 59 images or trials" in page
    _, high = clopper_pearson(0, LEAST)
    assert f"{high:.1%}" == "6.1%"


def test_what_cannot_be_compared_is_on_boards_of_its_own(enter, gallery, dp):
    trained = {
        "defense": "dp",
        "noise_multiplier": 0.5,
        "utility_model": "scattering-linear",
        "accuracy": 0.65,
    }
    paths = [
        enter("a", gallery(1)),
        enter("weaker attack", gallery(0, max_iterations=1)),
        enter("other attack", gallery(0, attack="idlg")),
        enter("other data", gallery(0, data="cifar10")),
        enter("other gallery", [row | {"gallery_size": 20} for row in gallery(0)]),
        enter("accuracy", gallery(1), pd.DataFrame([trained])),
        enter("other model", gallery(1), pd.DataFrame([trained | {"utility_model": "convnet-tanh"}])),
        enter("suite", gallery(1), config={"eps_scope": ["release"], "attack": ["prior-aware"]}),
        enter("undefended", gallery(30, defense="none", releases=None)),
    ]
    found = boards(item for path in paths for item in items(path))
    on = [{item.entry["submission"]["name"] for _, item in board.ranked} for board in found]
    assert sorted(map(sorted, on)) == sorted(
        [
            ["a", "suite", "undefended"],
            *(
                [name]
                for name in (
                    *("accuracy", "other attack", "other data", "other gallery", "other model"),
                    "weaker attack",
                )
            ),
        ]
    )
    assert {board.band for board in found} == {
        "accuracy not measured",
        "accuracy 60 to 70 % (scattering-linear)",
        "accuracy 60 to 70 % (convnet-tanh)",
    }


def test_an_epsilon_stands_beside_its_delta(enter, gallery):
    page = html(items(enter("careless", [row | {"delta": 0.1} for row in gallery(0)])), [])
    assert " at δ 0.1" in page
    assert " at δ 1e-05" in html(items(enter("usual", gallery(0))), [])


def test_noise_is_not_rounded_to_less_than_there_was(enter, gallery):
    """Neither here nor in any other table."""
    page = html(items(enter("noisy", gallery(0, noise_multiplier=1.1139))), [])
    assert "σ=1.12" in page


def test_a_result_without_a_success_has_no_rank(enter, gallery):
    rows = [row | {"identified": None, "gallery_size": None} for row in gallery(0)]
    (board,) = boards(items(enter("run", rows)))
    assert [rank for rank, _ in board.ranked] == [None]


def test_the_page(enter, gallery, tmp_path, capsys):
    path = enter("run", gallery(4) + gallery(30, defense="none"))
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"submission": found["submission"] | {"name": HOSTILE}}))
    enter("broken", gallery(1)).write_text('{"<script>": 1}')
    newer = enter("newer", gallery(2))
    newer.write_text(json.dumps(json.loads(newer.read_text()) | {"schema_version": 9}))
    out = tmp_path / "pages" / "board.html"
    assert program.main(["compare", "--leaderboard", str(tmp_path / "runs"), "--out", str(out)]) == 0
    assert "1 entry, 2 left out" in capsys.readouterr().out
    page = out.read_text()
    assert "<script" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "10% (4 of 40), dlg" in page
    assert "install a newer dpbench" in page
    assert "safe" not in page.replace("'unsafe-inline'", "")


def test_flagged_results_are_marked(enter, gallery):
    item = items(enter("run", gallery(4)))[0]
    flag = {"kind": "a floor beats the attack", "text": HOSTILE, "results": [item.result["id"]]}
    other = flag | {"results": ["00000000"]}
    page = html([Item(item.entry | {"flags": [flag, other]}, item.result, ("x is not beside it",))], [])
    assert "1 flagged" in page
    assert "unchecked: x is not beside it" in page
    assert "<script" not in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--leaderboard", "."], "--out"),
        (["--leaderboard", "nowhere", "--out", "x.html"], "There is no file"),
    ],
)
def test_bad_input_is_one_sentence(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert program.main(["compare", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_an_attack_that_fails_undefended_ranks_no_defence(enter, gallery, mean_images):
    path = enter("weak", mean_images(40, 15.0, 0.3) + gallery(0, defense="none") + gallery(0))
    assert [rank for board in boards(items(path)) for rank, _ in board.ranked] == [None, None]


def test_a_copy_is_not_ranked_twice(enter, gallery, tmp_path):
    path = enter("run", gallery(1))
    shutil.copytree(path.parent, path.parent.with_name("then"))
    page, entries, left_out = write(tmp_path / "runs", tmp_path / "board.html")
    assert (entries, left_out) == (1, 1)
    assert "it has the same results as run/dpbench-entry.json" in page.read_text(encoding="utf-8")


def test_a_bound_does_not_stand_beside_a_larger_prior_than_it_is_for(enter, gallery):
    rows = [row | {"success_bound": 0.3, "candidates": 7} for row in gallery(0)]
    assert "30 % (14.28 %)" in html(items(enter("informed", rows)), [])  # one in seven is 14.2857 %
