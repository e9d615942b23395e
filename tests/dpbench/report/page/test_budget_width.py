"""Eight budgets stand beside each other without a scroll bar."""

from pathlib import Path

from dpbench.report import page
from dpbench.report.page import folder

REFERENCE = Path(__file__).parents[4] / "results" / "reference" / "epsilon"


def test_eight_budgets_fit_a_window_of_900_pixels(tmp_path, opened):
    store, table = folder.read(REFERENCE)
    some = table.groupby(["defense", "eps_release", "attack"], dropna=False).head(2)
    assert some["eps_release"].nunique() == 8
    (tmp_path / page.FILE).write_text(page.html(store, some), encoding="utf-8")
    tab = opened(tmp_path / page.FILE)
    tab.set_viewport_size({"width": 900, "height": 900})
    widths = (
        "const each = document.querySelector('[aria-label=Budgets]'); [each.scrollWidth, each.clientWidth]"
    )
    needed, there = tab.evaluate(widths)
    assert needed <= there
