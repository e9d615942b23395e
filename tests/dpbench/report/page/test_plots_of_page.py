"""Drawings within the page: they keep what draws, lose what acts, and share no ids."""

import shutil

import pytest

from dpbench.report.page import svg
from dpbench.report.page.plots import plots

HOSTILE = b"""<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"
  viewBox="0 0 9 9" onload="alert(1)" aria-label="what it shows">
<script>alert(2)</script><style>* {display: none}</style><foreignObject><b/></foreignObject>
<a href="javascript:alert(3)"><path d="M0 0"/></a>
<image xlink:href="http://example.org/track.png"/><image xlink:href="data:image/png;base64,AAAA"/>
<defs><path id="p" d="M0 0"/><clipPath id="c"><rect/></clipPath></defs>
<g clip-path="url(#c)" style="fill: url(http://example.org/a)"><use xlink:href="#p"/></g>
<g id="p" style="fill: #fff"/></svg>"""


def test_what_acts_is_left_out():
    found = str(svg.inline(HOSTILE, "one-", "A plot"))
    for word in ("script", "onload", "style>", "foreignObject", "javascript", "example.org", "<a"):
        assert word not in found
    assert 'aria-label="A plot. what it shows"' in found
    assert found.count("data:image/png") == 1


def test_names_are_its_own_and_point_where_they_pointed():
    found = str(svg.inline(HOSTILE, "one-", "A plot"))
    assert 'id="one-p"' in found
    assert 'xlink:href="#one-p"' in found
    assert 'clip-path="url(#one-c)"' in found
    assert found.count('id="one-p"') == 1  # it was there twice


@pytest.mark.parametrize("source", [b"<svg", b"<html/>", b"", b"\x89PNG"])
def test_what_is_no_drawing_is_none(source):
    assert svg.inline(source, "one-", "A plot") is None


def test_drawings_come_before_pictures(finished, found):
    figures = [of for tag, of in found.tags if tag == "svg"]
    drawn = {file.stem for file in (finished.path / "plots").glob("*.svg")}
    assert len(figures) == len([name for name in drawn if not name.endswith("-column")]) > 0
    assert all(of["role"] == "img" and of["aria-label"] for of in figures)


def test_an_old_run_shows_its_pictures(finished, store_of, make_run):
    run = store_of(make_run(dp=False, batch_sizes=(1,)))
    assert plots(run.frame(), run) is None
    shutil.copy(finished.path / "leakage.png", run.path)
    (run.path / "reconstructions.png").write_bytes(b"<svg onload=alert(1)>")  # no picture, whatever its name
    found = str(plots(run.frame(), run))
    assert found.count("<img") == 1
    assert 'alt="' in found
