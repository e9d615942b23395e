"""A page read without a browser, and a real browser that has no network."""

import json
import os
import shutil
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest

from dpbench.report import page
from dpbench.report.export import export_data
from dpbench.report.plots import files, plots
from dpbench.store import open_run
from tests.helpers.exports import in_all_files


class Read(HTMLParser):
    """The page's elements: data by name, tables by label, details and scripts, and all text."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.data, self.tables, self.ids, self.tags, self.figures = {}, {}, [], [], []
        self.text, self._script, self._label, self._row, self._cell = "", None, None, None, None
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        of = dict(attributes)
        self.tags.append((tag, of))
        if "id" in of:
            self.ids.append(of["id"])
        if tag in ("script", "style"):
            self._script = of.get("id", "") if of.get("type") == "application/json" else None
            self._quiet = True
        elif tag == "div" and of.get("role") == "region":
            self._label = of["aria-label"]
            self.tables.setdefault(self._label, [])
        elif tag == "tr" and self._label:
            self._row = []
        elif tag in ("td", "th"):
            self._cell = {"text": "", "values": []}
        elif tag == "data":
            self.figures.append(of["value"])
            if self._cell is not None:
                self._cell["values"].append(of["value"])

    _quiet = False

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._quiet, self._script = False, None
        elif tag in ("td", "th") and self._cell is not None:
            if self._row is not None:
                self._row.append(self._cell)
            self._cell = None
        elif tag == "tr" and self._row is not None:
            self.tables[self._label].append(self._row)
            self._row = None
        elif tag == "table":
            self._label = None

    def handle_data(self, text):
        if self._quiet:
            if self._script:
                self.data[self._script] = json.loads(text)
            return
        self.text += text
        if self._cell is not None:
            self._cell["text"] += text

    def rows(self, name):
        """The rows of a data table as dicts, its one-value columns left out."""
        columns = {each["name"]: unpacked(each["data"]) for each in self.data[f"data-{name}"]["columns"]}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def unpacked(data):
    return [data["words"][i] for i in data["places"]] if "words" in data else data["values"]


@pytest.fixture(scope="session")
def read():
    """Takes a store and a table, and gives the page's elements."""
    return lambda store, table: Read(page.html(store, table))


@pytest.fixture(scope="session")
def finished(store_of, make_run):
    """A run as it lies there at its end; tests leave it as it is."""
    run = store_of(make_run())
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        in_all_files(patch)
        warnings.filterwarnings("error", message=page.FILE)  # no section breaks
        export_data(run, run.frame())
        files.draw(plots["leakage.png"], run.frame(), run)  # drawing all of them takes long
        page.write(run, run.frame())
    return run


@pytest.fixture(scope="session")
def found(finished):
    """The elements of its page."""
    return Read((finished.path / page.FILE).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def store_of(tmp_path_factory):
    """Makes a run's folder of rows: its cells with pictures, logs and description."""

    def make(table, name="run"):
        folder = tmp_path_factory.mktemp("page") / name
        run = open_run(folder, {"defense": ["dp"], "version": "0.2.0"})
        parts = dict(list(table.groupby("key")))
        run.expect((key, f"cell {key}") for key in parts)
        for key, part in parts.items():
            pictures = np.full((len(part), 3, 8, 8), 0.5)
            run.write(key, part.to_dict("records"), pictures, pictures)
            run.log(key, f"began {key}\nok after 4.0 s\n")
        return run

    return make


def _chromium():
    return os.environ.get("DPBENCH_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium; tests that need it are skipped where it or playwright is absent."""
    playwright = pytest.importorskip("playwright.sync_api")
    if _chromium() is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=_chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Opens a page from disk; whatever it says on the console or asks the network for fails the test."""
    wrong, contexts = [], []

    def open_page(file, **options):
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        tab.on("console", lambda message: wrong.append(f"console: {message.text}"))
        tab.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        tab.on("request", lambda asked: wrong.extend(_outside(asked.url)))
        tab.goto(file.absolute().as_uri())
        tab.wait_for_selector("html[data-tables=ready]", state="attached")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def _outside(address):
    return [] if address.startswith(("file:", "blob:", "data:")) else [f"request: {address}"]
