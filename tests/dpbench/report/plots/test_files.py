"""The files of a plot: widths, kinds, and an SVG that can stand in a page."""

import re
from xml.etree import ElementTree

import pandas as pd
import pytest
from matplotlib.figure import Figure

from dpbench.report.plots.files import KINDS, draw
from dpbench.report.plots.labels import settle
from dpbench.report.plots.registry import Plot
from dpbench.report.plots.style import COLUMN, FULL, text_colour
from dpbench.store import Store

pytestmark = [pytest.mark.usefixtures("figures_in_all_files"), pytest.mark.filterwarnings("ignore:Glyph 27")]
NOTHING = pd.DataFrame()
HOSTILE = 'a "quoted" </svg><script src="http://elsewhere/x.js"> & \x1b[31m'


def wide(table, store, width):
    figure = Figure(figsize=(width, 2), layout="constrained")
    axis = figure.subplots()
    axis.plot([1, 2], [3, 4], marker="o", label=HOSTILE)
    axis.set_title(HOSTILE)
    axis.legend()
    return figure


@pytest.fixture
def made(tmp_path):
    files = draw(Plot(wide, "wide.png", "A line", HOSTILE), NOTHING, Store(tmp_path))
    return {str(file.relative_to(tmp_path)): file.read_bytes() for file in files}


def test_each_width_is_drawn_once_and_saved_as_each_kind(made):
    assert list(made) == [
        "wide.png",
        *(f"plots/wide{width}.{kind}" for width in ("", "-column") for kind in KINDS),
    ]
    assert made["wide.png"] == made["plots/wide.png"]
    for name, width in (("wide", FULL), ("wide-column", COLUMN)):
        root = ElementTree.fromstring(made[f"plots/{name}.svg"])
        assert root.get("width") == f"{72 * width:g}pt"
        assert f"/MediaBox [ 0 0 {72 * width:g} 144 ]".encode() in made[f"plots/{name}.pdf"]
        assert int.from_bytes(made[f"plots/{name}.png"][16:20]) == 200 * width


def test_a_figure_is_drawn_once_for_each_file(tmp_path, monkeypatch):
    drawn = []

    def counted(figure, renderer, draw=Figure.draw):
        drawn.append(figure)
        return draw(figure, renderer)

    monkeypatch.setattr(Figure, "draw", counted)
    draw(Plot(wide, "wide.png"), NOTHING, Store(tmp_path))
    assert len(drawn) == 2 * len(KINDS)


def test_an_svg_stands_alone_and_its_ids_are_its_own(made):
    for name in ("wide", "wide-column"):
        text = made[f"plots/{name}.svg"].decode()
        assert text.startswith("<svg ")
        assert "<script" not in text
        root = ElementTree.fromstring(text)
        assert root.get("aria-label").startswith('a "quoted" </svg>')
        assert root.get("role") == "img"
        assert not root.findall(".//{*}style")
        ids = [each.get("id") for each in root.iter() if each.get("id")]
        assert len(ids) == len(set(ids)) > 10
        assert all(each.startswith(f"{name}-") for each in ids)
        hrefs = [value for each in root.iter() for key, value in each.items() if key.endswith("href")]
        urls = re.findall(r"url\(([^)]*)\)", text)
        assert hrefs
        assert urls
        assert {each.lstrip("#") for each in (*hrefs, *urls)} <= set(ids)


def test_the_same_figure_is_the_same_file(made, tmp_path):
    again = draw(Plot(wide, "wide.png", "A line", HOSTILE), NOTHING, Store(tmp_path))
    assert [file.read_bytes() for file in again] == list(made.values())


def test_a_function_without_a_width_keeps_its_size_and_is_narrowed_for_a_column():
    def theirs(table, store):
        figure = Figure(figsize=(8, 4))
        figure.subplots().plot([1, 2])
        return figure

    plot = Plot(theirs, "theirs-of-mine.png")
    assert tuple(plot(NOTHING).get_size_inches()) == (8, 4)
    assert tuple(plot(NOTHING, None, COLUMN).get_size_inches()) == (COLUMN, pytest.approx(2.2))
    assert plot.title == plot.alt(NOTHING) == "Theirs of mine"
    assert Plot(theirs, "x.png", "t", lambda table, store: f"{len(table)} rows").alt(NOTHING) == "0 rows"


def test_the_layout_is_found_once():
    figure = wide(NOTHING, None, FULL)
    settle(figure)
    before = figure.axes[0].get_position().bounds
    figure.axes[0].set_ylabel("a long name\nof two lines")
    figure.draw_without_rendering()
    assert figure.axes[0].get_position().bounds == before


@pytest.mark.parametrize("colour", ["#0072B2", "#E69F00", "white"])
def test_text_is_dark_enough_on_white(colour):
    rgb = text_colour(colour)
    linear = [(part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4) for part in rgb]
    assert 1.05 / (0.05 + sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear, strict=True))) >= 4.5
