"""Whatever number stands on the page stands in the files beside it."""

import math
from pathlib import Path

import pandas as pd
import pytest

from dpbench.privacy import reconstruction_bound
from dpbench.privacy.intervals import clopper_pearson
from dpbench.privacy.tradeoff import trade_off
from dpbench.report.page import figures
from dpbench.report.page.images import FLAGS
from dpbench.report.sentence import sentence
from dpbench.report.sheet import sheets
from dpbench.report.verdict import WORKS_DB
from dpbench.store import Store, load

REFERENCE = Path(__file__).parents[4] / "results" / "reference"


def same(shown, said):
    """A value of the page and the text of a CSV's cell; a missing value is empty there."""
    if shown is None:
        return said == ""
    if isinstance(shown, bool):
        return said.lower() == str(shown).lower()
    if isinstance(shown, int | float):
        return float(said) == shown
    return float(said) == float(shown) if shown in ("Infinity", "-Infinity") else said == shown


@pytest.mark.parametrize(("name", "file"), [("images", "results.csv"), ("summary", "summary.csv")])
def test_data_tables_hold_every_value_of_the_csv(finished, found, name, file):
    csv = pd.read_csv(finished.path / file, dtype=str, keep_default_na=False)
    rows = found.rows(name)
    assert len(rows) == len(csv)
    shown = [{column: value for column, value in row.items() if column != FLAGS} for row in rows]
    for told, row in zip(csv.to_dict("records"), shown, strict=True):
        assert all(same(value, told[column]) for column, value in row.items())
    left_out = [c for c in csv if c not in rows[0]]
    constant = [c for c in left_out if (csv[c] != "").any()]
    assert all(csv[c].nunique() == 1 for c in constant)
    assert constant  # and these stand above the table
    assert all(f"{column}" in found.text for column in constant)


def test_the_tables_of_the_page_are_those_of_the_summary(finished, found):
    """Figure by figure: the cells that are read are formatted from `summary.csv` here once more."""
    csv = pd.read_csv(finished.path / "summary.csv")
    attacked = csv[csv["floor"].isna() & (csv["batch_size"] == 4)]
    head, *rows = found.tables["Results, Batch of 4"]
    titles = [cell["text"] for cell in head]
    texts = [dict(zip(titles, (cell["text"] for cell in row), strict=True)) for row in rows]
    texts = [row for row in texts if not row["Attack"].startswith("floor:")]
    assert len(texts) == len(attacked) == 3
    for text, line in zip(texts, attacked.to_dict("records"), strict=True):
        assert text["PSNR"] == f"{line['psnr_median']:.1f}"
        assert text["PSNR max"] == f"{line['psnr_max']:.1f}"
        assert text["over floor"] == f"{line['psnr_over_floor_median']:+.1f}"
        assert text["LPIPS"] == f"{line['lpips_median']:.2f}"
        assert text["ε release"] == ("—" if math.isnan(line["eps_release"]) else f"{line['eps_release']:.3g}")
    assert [len(section.rows) for section in sheets(finished.frame())[0].sections] == [
        len(found.tables[f"Results, Batch of {size}"]) - 1 for size in (1, 4)
    ]


def test_the_card_gives_the_budget_of_the_rows(finished, found):
    csv = pd.read_csv(finished.path / "results.csv")
    private = csv[csv["eps"].notna()].drop_duplicates("eps").sort_values("eps")
    _, *rows = found.tables["Budgets"]
    titles = [row[0]["text"] for row in rows]
    columns = list(zip(*(row[1:] for row in rows), strict=True))
    assert len(columns) == len(private) == 2
    for column, line in zip(columns, private.to_dict("records"), strict=True):
        cells = dict(zip(titles, column, strict=True))
        named = {
            "ε of the training": "eps",
            "ε of one release": "eps_release",
            "noise multiplier σ": "noise_multiplier",
            "sample rate q": "sample_rate",
            "steps T": "steps",
            "δ": "delta",
            "bound, one release": "rero_release",
        }
        for title, column in named.items():
            assert [float(value) for value in cells[title]["values"]] == [line[column]]
        curve = trade_off(line["noise_multiplier"], line["sample_rate"], int(line["steps"]))
        assert float(cells["bound, training"]["values"][0]) == curve.power(0.1)
        training = line["noise_multiplier"], line["sample_rate"], int(line["steps"])
        known = reconstruction_bound(*training, batches_known=True)
        assert float(cells["bound, batches known"]["values"][0]) == known
        assert float(cells["membership advantage"]["values"][0]) == curve.advantage


def test_the_verdicts_of_the_card_are_those_of_the_summary(finished, found):
    csv = pd.read_csv(finished.path / "summary.csv")
    attacked = csv[csv["floor"].isna()]
    assert {"Verdicts, early convnet, batch of 1", "Verdicts, early convnet, batch of 4"} <= set(found.tables)
    for size in (1, 4):
        head, *rows = found.tables[f"Verdicts, early convnet, batch of {size}"]
        titles = [cell["text"] for cell in head]
        told = attacked[attacked["batch_size"] == size].to_dict("records")
        for row, line in zip(rows, told, strict=True):
            cells = dict(zip(titles, row, strict=True))
            named = {
                "Images": "images",
                "PSNR": "psnr_median",
                "above floor": "psnr_over_floor_median",
                "most exposed": "psnr_over_floor_max",
            }
            shown = {column: float(cells[title]["values"][0]) for title, column in named.items()}
            assert shown == {column: line[column] for column in named.values()}
        words = ["rebuilt", *[f"too few {'images' if size == 1 else 'batches'} to say"] * 2]
        assert [row[1]["text"] for row in rows] == words


def test_what_is_called_rebuilt_is_said_to_be_no_test(found):
    """One image can be called rebuilt beside an interval of 3 to 100 %, which no test at 5 % would allow."""
    text = " ".join(found.text.split())
    assert f"Rebuilt: in the median {WORKS_DB:g} dB or more above the best floor" in text
    assert f"rebuilt is a margin of {WORKS_DB:g} dB and no test" in text


def test_the_informed_attacker_has_a_table_of_its_own(read):
    """Batches of one budget and number of releases stand in one line."""
    csv = pd.read_csv(REFERENCE / "rero" / "results.csv")
    csv = csv[csv["success"].notna()].assign(right=csv["success"] * csv["trials"])
    groups = csv.groupby(["eps_release", "releases"], dropna=False)
    told = groups.agg(trials=("trials", "sum"), right=("right", "sum"), bound=("success_bound", "mean"))
    found = read(Store(REFERENCE / "rero"), load(REFERENCE / "rero" / "results.csv"))
    _, *rows = found.tables["Informed attacker"]
    shown = sorted([float(value) for cell in row[1:5] for value in cell["values"]] for row in rows)
    wanted = []
    for line in told.itertuples():
        interval = clopper_pearson(round(line.right), line.trials)
        bound = [] if math.isnan(line.bound) else [line.bound]  # undefended there is none
        wanted.append([line.trials, line.right / line.trials, *interval, *bound])
    assert len(shown) == len(wanted) > 10
    for line, other in zip(shown, sorted(wanted), strict=True):
        assert line == pytest.approx(other, rel=1e-6)


def test_bounds_are_never_rounded_down():
    bounds = (0.15462, 0.9991, 3.8701, 0.1, math.inf)
    assert [figures.at_most(v).striptags() for v in bounds] == ["0.155", "1", "3.88", "0.1", "∞"]
    assert figures.at_most_share(0.35001) == '<data value="0.35001">35.1 %</data>'
    assert figures.at_most(0.35001) == '<data value="0.35001">0.351</data>'


def test_the_card_says_what_the_sentence_says_and_never_calls_anything_safe(finished, found):
    for line in sentence(finished.frame()).split("\n"):
        assert line in found.text
    assert "safe" not in found.text.lower()
