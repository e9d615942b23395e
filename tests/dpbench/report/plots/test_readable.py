"""Every plot at both widths: nothing outside, nothing on anything else, and its SVG stands alone."""

import json
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from dpbench.report.plots import plots
from dpbench.report.plots.files import draw
from dpbench.report.plots.style import COLUMN, FULL
from dpbench.store import Store
from dpbench.store.schema import frame
from dpbench.system.output import plain
from tests.helpers.figures import assert_readable

HOSTILE = "at$tack_<b>&\x1b[31m"
NOISE = {0.3: (40.0, 9.0), 1.1: (4.0, 1.0), 3.0: (1.2, 0.3)}
"""Sigma to the epsilons of release and training."""


@pytest.fixture
def folder(make_rows, dp, tmp_path):
    """A run with everything that any plot draws: attacks, budgets, threat models, histories, accuracies."""
    store, rows, trained = Store(tmp_path), [], []
    for size in (2, 4, 8):
        for attack in ("inverting-gradients", HOSTILE):
            cells = [("none", {}), ("clip", {"max_grad_norm": 1.0})]
            for sigma, (release, training) in NOISE.items():
                given = {"noise_multiplier": sigma, "eps_release": release, "eps": training}
                cells.append(("dp", dp | given))
            for i, (defense, more) in enumerate(cells):
                key = f"{defense}{i}-{size}-{len(attack)}"
                made = make_rows(attack, defense, size, 24 - 3 * i, 0.05 + 0.1 * i, key=key, **more)
                _filled(made, size)
                store.write(key, made, history=np.geomspace(1, 0.01 * (i + 1), 40).tolist())
                rows += made
            key, own = f"f{size}-{len(attack)}", {"floor_of": attack, "iterations": 100}
            floor = make_rows("floor:noise-gradient", "none", size, 10, 0.5, key=key, **own)
            store.write(key, floor, history=[1.0, 0.9, 0.9])
            rows += floor
    for sigma, (release, training) in NOISE.items():
        row = make_rows("prior-aware", "dp", 4, 0, 0, key=f"p{10 * sigma:g}", **dp)[0]
        row |= {"noise_multiplier": sigma, "eps_release": release, "eps": training}
        row |= {
            "threat_model": "informed",
            "releases": 1,
            "candidates": 10,
            "trials": 40,
            "success": 0.25,
            "success_bound": 0.9,
        }
        rows.append({k: v for k, v in row.items() if "psnr" not in k and "lpips" not in k})
    for defense, more in (("none", {}), ("clip", {"max_grad_norm": 1.0})):
        trained += [{"defense": defense, "accuracy": 0.6 + i / 100, **more} for i in range(3)]
    for sigma in NOISE:
        own = {"defense": "dp", "noise_multiplier": sigma, "max_grad_norm": 1.0}
        trained += [own | {"accuracy": 0.6 - 0.1 * sigma + i / 100} for i in range(3)]
    pd.DataFrame(trained).assign(utility_model="convnet-tanh").to_csv(tmp_path / "utility.csv", index=False)
    return frame(rows), store


def _filled(rows, size):
    for row in rows:
        share = (row["image"] + 1) / (size * (size + 1) / 2)
        row |= {"threat_model": "honest", "releases": 1, "iterations": 100, "max_iterations": 100}
        row |= {"gallery_size": 20, "identified": row["image"] == 0}
        row |= {"image_loss": 0.1 + row["image"], "image_grad_share": share}


SOMETIMES = ("noise.png", "tradeoff.png", "shares.png", "search.png", "utility.png", "threats.png")
EVERY = (*SOMETIMES, "leakage.png", "batches.png", "confidence.png")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", EVERY)
def test_a_figure_is_readable_at_each_width(folder, name):
    table, store = folder
    if name == "confidence.png":
        table = table.assign(logit_scale=(table["attack"] == HOSTILE).map({True: 0.5, False: 1.0}))
    for width in (FULL, COLUMN):
        figure = plots[name](table, store, width)
        assert figure.get_figwidth() == width
        assert_readable(figure)
        assert all(len({line.get_linestyle() for line in axis.lines}) <= 6 for axis in figure.axes)
    assert len(plots[name].alt(table, store)) > len(plots[name].title) > 10


@pytest.mark.usefixtures("figures_in_all_files")
def test_a_drawing_says_what_it_shows(folder):
    table, store = folder
    files = draw(plots["tradeoff.png"], table, store)
    drawings = [ElementTree.fromstring(file.read_bytes()) for file in files if file.suffix == ".svg"]
    said = plain(plots["tradeoff.png"].alt(table, store))
    assert [drawing.get("aria-label") for drawing in drawings] == [said] * 2


def test_nothing_to_draw(tmp_path, make_rows):
    (tmp_path / "utility.csv").write_text("another,table\n1,2\n")
    for table in (frame([]), frame(make_rows("dlg", "none", 1, 20, 0.1, status="failed")), pd.DataFrame()):
        for name in SOMETIMES:
            assert plots[name](table, Store(tmp_path), COLUMN) is None
            assert plots[name](table) is None


def test_a_frontier_is_shaded(folder):
    table, store = folder
    ends = {"leak_up_to": {"sigma": 0.3}, "none_from": {"sigma": 3.0}}
    (store.path / "frontier.json").write_text(json.dumps({"frontiers": [ends | {"threat_model": "honest"}]}))
    figure = plots["noise.png"](table, store)
    for axis in figure.axes:
        assert {patch.get_gid() for patch in axis.patches} == {"leak_up_to", "none_from"}
    assert_readable(figure)
