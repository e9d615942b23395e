"""The pictures of a frontier, drawn from nothing but its folder."""

import json

import numpy as np
import pytest

from dpbench.frontier.evidence import CHANCE, MARGIN, Verdict
from dpbench.frontier.result import Frontier, Level, Noise, Rate
from dpbench.report.plots import frontier as drawn
from dpbench.report.plots.style import COLUMN, FULL
from dpbench.store import Store
from tests.helpers.figures import assert_readable

ROW = {
    "attack": "instant",
    "defense": "dp",
    "threat_model": "honest",
    "data": "cifar10",
    "batch_size": 1,
    "status": "ok",
    "image": 0,
}


def level(sigma, verdict, *counts):
    noise = Noise(sigma=sigma, eps=8 / sigma if sigma else None, eps_release=2 / sigma if sigma else None)
    rates = tuple(Rate.of(f"attack {i}", *count) for i, count in enumerate(counts))
    return Level(noise=noise, rates=rates, verdict=verdict)


LEVELS = (
    level(0.0, Verdict.LEAK, (2, 2), (1, 2)),
    level(0.1, Verdict.LEAK, (1, 1), (1, 1)),
    level(0.3, Verdict.UNDECIDED, (6, 200), (2, 200)),
    level(1.0, Verdict.NONE, (0, 59), (1, 106)),
)


@pytest.fixture
def folder(tmp_path):
    """A run's folder with a frontier of two attacks, and eight ranked images at one level."""
    found = Frontier(
        threat_model="honest",
        attacks=("attack 0", "attack 1"),
        levels=LEVELS,
        leak_up_to=LEVELS[1].noise,
        none_from=LEVELS[3].noise,
        certified={"0.1": Noise(sigma=4.08), "0.005": Noise(sigma=1.02)},
    )
    (tmp_path / "frontier.json").write_text(json.dumps({"frontiers": [found.described()]}))
    store = Store(tmp_path)
    for i in range(8):
        row = ROW | {"batch_seed": 1000 + i, "original_index": i, "noise_multiplier": 1.0}
        row |= {"ranked_first": i == 5, "best_correlation": i / 10, "best_output": 0}
        store.write(f"cell{i}", [row], *np.full((2, 1, 3, 4, 4), i / 10))
    return store


def test_a_curve_for_each_attack_with_both_frontiers_and_epsilon(folder):
    figure = drawn.frontier(folder.frame(), folder)
    (panel,) = figure.axes
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["attack 0", "attack 1"]
    shares = [container.lines[0].get_ydata().tolist() for container in panel.containers]
    assert shares == [[1, 1, 0.03, 0], [0.5, 1, 0.01, 1 / 106]]
    vertical = {line.get_xdata()[0] for line in panel.lines if line.get_linestyle() == "--"}
    assert vertical == {4.08, 1.02}
    horizontal = [line.get_ydata()[0] for line in panel.lines if line.get_linestyle() == ":"]
    assert horizontal == [CHANCE, CHANCE + MARGIN]
    (upper,) = panel.child_axes
    assert [text.get_text() for text in upper.get_xticklabels()] == ["80", "26.7", "8"]
    assert "of the training" in upper.get_xlabel()
    shaded = [patch.get_extents().width for patch in panel.patches]
    assert len(shaded) == 2
    assert min(shaded) > 0


def test_every_attack_is_in_the_legend(folder):
    """Matplotlib leaves labels out that begin with an underscore, and does not break long ones."""
    path = folder.path / "frontier.json"
    names = ["_mine", "of $many$ words " * 8]
    found = json.loads(path.read_text())
    found["frontiers"][0]["attacks"] = names
    path.write_text(json.dumps(found))
    for width in (FULL, COLUMN):
        figure = drawn.frontier(folder.frame(), folder, width)
        written = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        said = [" ".join(text.replace("\\$", "$").split()) for text in written]
        assert said == [name.strip() for name in names]
        assert_readable(figure)


def test_the_most_exposed_come_first_and_the_first_of_200_is_framed(folder):
    figure = drawn.exposed(folder.frame(), folder)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["r 0.70", "r 0.60", "r 0.50", "r 0.40", "r 0.30"]
    outputs = figure.axes[1::2]
    assert [bool(axis.axison) for axis in outputs] == [False, False, True, False, False]


def test_a_folder_without_a_frontier_has_no_such_picture(tmp_path):
    store = Store(tmp_path)
    assert drawn.frontier(store.frame(), store) is None
    assert drawn.frontier(store.frame()) is None
    assert drawn.exposed(store.frame(), store) is None


def test_no_cell_is_read_where_no_image_was_ranked(folder, monkeypatch):
    table = folder.frame()
    monkeypatch.setattr(Store, "has", lambda store, key: pytest.fail("read"))
    assert drawn.exposed(table.assign(ranked_first=None), folder) is None
