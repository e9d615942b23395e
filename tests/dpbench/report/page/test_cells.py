"""What the page says of single cells."""

from dpbench.report.page.cells import _found
from dpbench.store.schema import frame


def test_a_cells_budget_is_never_shown_smaller_than_it_is(make_rows, dp):
    rows = [row for seed in (0, 1) for row in make_rows("dlg", "dp", 1, 9.0, 0.4, seed=seed, **dp)]
    for row, eps in zip(rows, (1.0000004, 2.0), strict=True):
        row |= {
            "eps": eps,
            "eps_release": 12 * eps,
            "delta": 1.0000004e-5 * eps,
            "noise_multiplier": 0.5 / eps,
        }
    cell, _ = _found(frame(rows), {})
    assert cell.title.endswith("ε=1.00001")
    said = dict(line.split(": ") for line in cell.settings.splitlines())
    assert (said["eps"], said["eps_release"], said["delta"]) == ("1.00001", "12.0001", "1.00001e-05")
