"""The page in a real browser: it opens from a file, without a network and without a complaint."""

import numpy as np
import pandas as pd
import pytest

from dpbench.report import page
from dpbench.report.page.pictures import MOST_PICTURES
from dpbench.store import open_run
from dpbench.store.schema import frame

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


def first_column(tab, title):
    """The cells shown under a title in the table of images."""
    table = tab.locator("#images table.dataTable")
    titles = [text.strip() for text in table.locator("thead th").all_inner_texts()]
    place = titles.index(title)
    return [row.locator("td").nth(place).inner_text() for row in table.locator("tbody tr").all()]


def sorted_by(tab, title, order):
    """The tab after a click on the title; DataTables sorts in a later task than the click's."""
    heading = tab.locator("#images thead th", has_text=title).first
    heading.click()
    tab.wait_for_function("([th, order]) => th.ariaSort === order", arg=[heading.element_handle(), order])
    return tab


def test_it_opens_sorts_and_filters(finished, opened):
    tab = opened(finished.path / page.FILE)
    table = tab.locator("#images table.dataTable")
    assert table.locator("tbody tr").count() == 25
    lowest = float(first_column(sorted_by(tab, "psnr", "ascending"), "psnr")[0])
    highest = float(first_column(sorted_by(tab, "psnr", "descending"), "psnr")[0])
    csv = finished.frame()["psnr"]
    assert (lowest, highest) == pytest.approx((csv.min(), csv.max()), rel=1e-3)
    tab.locator("#images input[type=search]").fill("start")
    tab.locator("#images .dt-info", has_text="filtered").wait_for()
    assert set(first_column(tab, "attack")) == {"floor:start"}


def test_what_is_downloaded_is_what_was_measured(finished, opened):
    tab = opened(finished.path / page.FILE)
    with tab.expect_download() as download:
        tab.locator("#images").get_by_role("button", name="Download CSV").click()
    csv = pd.read_csv(download.value.path())
    assert csv["psnr"].tolist() == finished.frame()["psnr"].tolist()
    assert csv["key"].tolist() == finished.frame()["key"].tolist()


def test_names_in_a_download_are_no_formulas(make_rows, store_of, opened):
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "a<b>c", "a=b"]
    rows = [row for i, name in enumerate(names) for row in make_rows(name, "none", 1, -3.5, 0.1, key=f"k{i}")]
    run = store_of(frame(rows))
    tab = opened(page.write(run, run.frame()))
    with tab.expect_download() as download:
        tab.locator("#images").get_by_role("button", name="Download CSV").click()
    csv = pd.read_csv(download.value.path())
    assert sorted(csv["attack"]) == sorted(["'=1+1", "'+1", "'-1", "'@SUM(A1)", "a<b>c", "a=b"])
    assert sorted(run.frame()["attack"]) == sorted(names)  # the run's own files are for programs


def test_on_paper_few_rows_are_all_there_and_many_say_where_the_others_are(
    finished, make_rows, opened, tmp_path
):
    few = opened(finished.path / page.FILE)
    few.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    rows = len(finished.frame())
    assert few.locator("#images table.dataTable tbody tr").count() == rows > 25
    few.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert few.locator("#images table.dataTable tbody tr").count() == 25
    rows = [row for seed in range(300) for row in make_rows("dlg", "none", 1, 20, 0.1, seed=seed)]
    many = opened(page.write(open_run(tmp_path / "run", {}), frame(rows)))
    note = many.locator("#images .on-paper")
    assert not note.is_visible()
    many.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    many.emulate_media(media="print")
    assert note.is_visible()
    assert note.inner_text() == "25 of 300 rows; all of them are in results.csv."


def test_bounds_are_rounded_up_in_the_tables_too(make_rows, dp, store_of, opened):
    given = dp | {"eps": 1.00001, "noise_multiplier": 1.113875, "rero_release": 0.350111}
    run = store_of(frame(make_rows("dlg", "dp", 1, 9, 0.4, **given) + make_rows("dlg", "none", 1, 20, 0.1)))
    tab = opened(page.write(run, run.frame()))
    assert "1.001" in first_column(tab, "eps")
    assert "1.114" in first_column(tab, "noise multiplier")


def test_a_key_leads_to_its_cell_by_keyboard(finished, opened):
    tab = opened(finished.path / page.FILE)
    link = tab.locator("#images td a").first
    key = link.inner_text()
    link.focus()
    tab.keyboard.press("Enter")
    cell = tab.locator(f"#cell-{key}[open]")
    cell.wait_for()
    assert f"began {key}" in cell.inner_text()


def test_it_fits_a_telephone_and_prints(finished, opened, tmp_path):
    tab = opened(finished.path / page.FILE)
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.pdf(path=tmp_path / "page.pdf", format="A4")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_hostile_names_run_nothing(make_run, store_of, opened):
    table = make_run(dp=False, batch_sizes=(1,))
    table["attack"] = table["attack"].where(table["attack"] != "inverting-gradients", HOSTILE)
    run = store_of(table)
    tab = opened(page.write(run, run.frame()))
    assert HOSTILE in first_column(tab, "attack")
    assert tab.title() == "run · dpbench"


def test_ten_thousand_rows_with_two_hundred_pictures_open(make_rows, opened, tmp_path):
    run, rows = open_run(tmp_path / "run", {}), []
    for seed in range(2_500):
        more = {"gradient_distance": seed / 7, "key": f"b{seed}"}
        rows += make_rows("inverting-gradients", "none", 4, 20, 0.1, seed=seed, **more)
    noise = np.random.default_rng(0).random((1, 3, 140, 140))  # cannot be compressed
    for i in range(33):
        for seed in range(3):
            key, more = f"p{i}-{seed}", {"original_index": seed}
            made = make_rows(f"attack{i:02}", "none", 1, 20 + seed, 0.1, seed=seed, key=key, **more)
            run.write(key, made, np.roll(noise, i, -1), np.roll(noise, seed, -2))
            rows += made
    file = page.write(run, frame(rows))
    assert file.stat().st_size < 25e6
    tab = opened(file)
    assert "10,099" in tab.locator("#images .dt-info").inner_text()
    assert 190 <= tab.locator("#pictures img").count() <= MOST_PICTURES


CONTRAST = """() => {
  const light = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const bright = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const behind = (node) => {
    for (let n = node; n; n = n.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(n).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || node.closest("svg, script, style, .disabled, :disabled")) continue;
    if (!node.checkVisibility() || !node.getClientRects().length) continue;
    const [one, two] = [parse(getComputedStyle(node).color), behind(node)].map(bright).sort((a, b) => b - a);
    const ratio = (one + 0.05) / (two + 0.05);
    if (ratio < 4.5) low.push(`${node.tagName} ${ratio.toFixed(2)} ${node.textContent.slice(0, 40)}`);
  }
  return [...new Set(low)];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(finished, opened, scheme):
    """WCAG 2 AA: 4.5 to 1."""
    tab = opened(finished.path / page.FILE, color_scheme=scheme)
    tab.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    assert tab.evaluate(CONTRAST) == []
