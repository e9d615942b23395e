"""No number is cut, whatever is shown; papers get eight columns; columns are asked for by name."""

import io
import re
import shutil
import subprocess

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from dpbench.protocol import InputError
from dpbench.report import terminal as module
from dpbench.report.fields import ALL, LONG, SHORT, chosen
from dpbench.report.sheet import sheets
from dpbench.report.summary import summary
from dpbench.report.tables import rich_table, to_markdown, to_tex
from dpbench.store.schema import frame

HOSTILE = (
    "[red]*attack*" + "x" * 70,
    "*\\begin{document} & % $ # _ ^ ~ \\\\",
    "名前-攻撃-" * 9,
    'λ "quoted" <b> | ``tick`` é ß ﬁ \U0001f600 ∀x\u0301',
    "-" * 60,
)


CHAIN = "clip+their-own-stage-of-a-long-name+prune"


@pytest.fixture
def many_axes(make_rows, dp):
    """Results with several attacks, defences, victims, label settings, an informed attacker and failures."""
    rows = []
    for victim in ("early", "trained"):
        for floor in ("mean-image", "noise-gradient"):
            rows += make_rows(f"floor:{floor}", "none", 2, 11.1, 0.51, victim=victim)
        for i, name in enumerate(("inverting-gradients", *(HOSTILE if victim == "early" else ()))):
            for labels in ("known", "inferred")[: 2 if i < 2 else 1]:
                given = {"victim": victim, "labels": labels, "tv": 1.5e-4, "identified": True}
                given |= {"gallery_size": 200, "key": f"{i}{labels}{victim}"}
                rows += make_rows(name, "none", 2, 151.23, 0.01, **given)
                chain = {"prune_ratio": 0.9, "eps_release": 123456.0, "noise_multiplier": 0.000709}
                rows += make_rows(name, CHAIN, 2, 12.3, 0.49, **given | dp | chain)
    for row in make_rows("prior-aware", "dp", 1, 0, 0, key="p", **dp):
        row |= {
            "threat_model": "informed",
            "candidates": 10,
            "trials": 400,
            "success": 0.5925,
            "success_bound": 0.6512,
        }
        rows.append({k: v for k, v in row.items() if "psnr" not in k and "lpips" not in k})
    rows += make_rows("dlg", "clip", 4, 0, 0, status="failed", key="bad", error="ValueError: x")
    return frame(rows)


def shown(table, width, columns=SHORT):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(rich_table(table, columns))
    return console.export_text()


def numbers(table, columns):
    """The cells of every line of the tables, in no order, without those that hold nothing."""
    return sorted(
        cell
        for sheet in sheets(table, columns)
        for section in sheet.sections
        for row in section.rows
        for cell in row[2:]
        if cell != "—"
    )


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        *((width, columns) for width in (80, 100, 120, 40) for columns in (SHORT, ALL)),
        *((80, columns) for columns in (LONG, ("psnr_q10", "seconds", "tv", "lpips_floor_median"))),
    ],
)
def test_every_number_of_every_column_is_there_whole(many_axes, width, columns):
    text = shown(many_axes, width, columns)
    assert "…" not in text
    assert max(map(cell_len, text.splitlines())) <= width
    words = text.split()
    for number in set(numbers(many_axes, columns)):
        assert set(number.split()) <= set(words), number
    counted = [number for number in numbers(many_axes, columns) if re.fullmatch(r"\d+/\d+", number)]
    assert sorted(word for word in words if re.fullmatch(r"\d+/\d+", word)) == counted


def test_numbers_of_all_columns_are_those_of_the_summary(many_axes):
    lines = summary(many_axes)
    text = shown(many_axes, 80, ALL)
    for name in ("psnr_q10", "lpips_floor_median", "seconds", "success_low"):
        assert {f"{value:.3g}" for value in lines[name].dropna()} <= set(text.split())
    titles = {
        title for sheet in sheets(many_axes, ALL) for section in sheet.sections for title in section.header
    }
    filled = {name for name in lines.columns if lines[name].notna().any()}
    own = {"attack", "defense", "floor", "floor_of", "batch_size"}
    assert len(titles) - 2 == len(filled - own)


@pytest.mark.parametrize("width", [80, 120, 40])
def test_long_names_stay_whole_and_apart(many_axes, width):
    text = shown(many_axes, width)
    joined = "".join(text.split())
    for name in HOSTILE[:3]:
        assert "".join(name.split()) in joined
    rows = [row for sheet in sheets(many_axes) for section in sheet.sections for row in section.rows]
    count = sum(row[1].startswith(CHAIN) for row in rows)
    assert count > 8
    assert joined.count(f"{CHAIN}ε=1") in range(count, 9 * count, count)  # again in each part of the table


def test_where_there_is_no_terminal_it_is_the_same_table(many_axes, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    below = [tmp_path / "plots" / name for name in ("leakage.svg", "leakage.png")]
    module.show(many_axes, tmp_path, [tmp_path / "summary.csv", *below])
    said = capsys.readouterr().out
    assert "\n  summary.csv  plots/ (2 files)\n" in said
    assert set(numbers(many_axes, SHORT)) <= set(said.split())
    assert "--columns all" in said
    module.show(many_axes, tmp_path, [], ALL)
    assert "--columns" not in capsys.readouterr().out


def test_the_columns_are_those_of_a_first_look(make_run, make_rows):
    rows = make_rows("dlg", "dp", 20, 12.0, 0.5, eps_release=3.0, noise_multiplier=1.0, rero_release=0.3)
    for row in rows:
        row |= {"identified": row["image"] < 3, "gallery_size": 200}
    (section,) = sheets(frame(rows))[0].sections
    assert section.header[2:] == ("σ", "ε release", "Bound", "PSNR", "PSNR max", "LPIPS", "Identified")
    assert section.rows[0][2:5] + section.rows[0][-1:] == ("1", "3", "0.300", "3/20")
    # where nothing was counted, the number of images still stands there
    assert sheets(make_run())[0].sections[0].header[5] == "Images"


def test_what_only_labels_were_restored_of_shows_them(make_rows):
    rows = make_rows("label-restoration", "none", 4, 0, 0, psnr=None, lpips=None)
    assert "Labels" in sheets(frame(rows))[0].sections[0].header
    assert "Labels" not in sheets(frame(make_rows("idlg", "none", 4, 20, 0.1)))[0].sections[0].header


def test_columns_are_names_of_the_summary_or_all():
    assert chosen("psnr_max,lpips_min, psnr_max") == ("psnr_max", "lpips_min")
    assert chosen("all") == chosen("all,psnr_max") == ALL
    for words, match in (
        ("psnr_mx", "no 'psnr_mx' (did you mean 'psnr_max'?)"),
        ("psnr_max,al", "no 'al' (did you mean 'all'?)"),
        ("qqqq", "no 'qqqq'; give names"),
        (" , ", "at least one name"),
    ):
        with pytest.raises(InputError, match=re.escape(match)) as caught:
            chosen(words)
        assert "\n" not in str(caught.value)


@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=False, min_value=-1e5, max_value=1e5) | st.just(float("inf")),
            st.floats(min_value=1e-12, max_value=1e12),
            st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=80),
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([80, 100, 120]),
)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_number_and_any_name(make_rows, found, width):
    rows = []
    for i, (psnr, sigma, name) in enumerate(found):
        rows += make_rows(
            name, "dp", 1, 0, 0, key=f"k{i}", psnr=psnr, noise_multiplier=sigma, eps_release=sigma
        )
    table = frame(rows)
    text = shown(table, width)
    assert set(numbers(table, SHORT)) <= set(text.split())
    assert max(map(cell_len, text.splitlines())) <= width


def test_latex_has_at_most_eight_columns(many_axes, make_run):
    for table in (many_axes, make_run(), make_run(dp=False, lpips_there=False)):
        found = re.findall(r"\\begin\{tabular\}\{@\{\}(l?r*)@\{\}\}", to_tex(table))
        assert found
        assert max(map(len, found)) <= 8


def test_markdown_has_no_more_columns_than_can_be_read(many_axes):
    headers = [line for line in to_markdown(many_axes).splitlines() if line.startswith("| Attack")]
    assert max(header.count("|") - 1 for header in headers) <= 16


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
@pytest.mark.parametrize("fonts", ["", "\\usepackage[T1]{fontenc}\n"])
def test_latex_compiles_whatever_the_names(many_axes, fonts, tmp_path):
    body = to_tex(many_axes.assign(data="folder:C:\\my_data|100%$x^2~#{a}&<b>`*[link](u)\nnext\x1b[31m"))
    lines = [
        "\\documentclass{article}",
        fonts,
        "\\usepackage{booktabs}\\begin{document}",
        body,
        "\\end{document}",
    ]
    (tmp_path / "t.tex").write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_other_accountants_do_not_widen_the_table(make_run, make_rows, dp):
    other = frame(make_rows("dlg", "dp", 1, 9, 0.4, **(dp | {"accountant": "rdp"})))
    text = shown(pd.concat([make_run(), other], ignore_index=True), 80)
    assert text.count("LPIPS trunk: alex") == 2
