"""Tables: what is in them, and that no text of a user's breaks out of its cell."""

import io
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dpbench.report import escape
from dpbench.report.tables import rich_table, summary, to_markdown, to_tex
from dpbench.report.terminal import show
from dpbench.store.schema import frame

NASTY = "folder:C:\\my_data|100%$x^2~#{a}&<b>`*[link](u)\nnext\x1b[31m"


def terminal(table, width=80, columns="short"):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(rich_table(table, columns))
    return console.export_text()


def test_terminal_table_fits_eighty_columns(make_run):
    text = terminal(make_run())
    assert max(map(len, text.splitlines())) <= 80
    for word in ("Batch of 1", "Batch of 4", "floor:noise-gradient", "inverting-gradients", "pld", "early"):
        assert word in text
    assert text.index("floor:mean-image") < text.index("inverting-gradients") < text.index("dp")
    assert "…" not in "".join(line for line in text.splitlines() if "floor:" in line)


def test_numbers_stand_in_their_row(make_rows):
    rows = make_rows("dlg", "none", 1, 0, 0)
    rows[0] |= {"psnr": 23.456, "lpips": 0.0789, "psnr_floor": 12.0}
    shown = terminal(frame(rows)).splitlines()
    line = next(line for line in shown if line.lstrip().startswith("no defence"))
    assert re.findall(r"[-+\d.]+", line) == ["1", "23.5", "23.5", "0.08"]
    named = terminal(frame(rows), columns=("psnr_over_floor_median", "lpips_min", "seconds")).splitlines()
    line = next(line for line in named if line.lstrip().startswith("no defence"))
    assert re.findall(r"[-+\d.]+", line) == ["+11.5", "0.08", "4"]


def test_markdown_rows_are_whole(make_run):
    text = to_markdown(make_run())
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert text.count("### Batch of") == 2
    assert "accountant pld" in text


def test_budgets_of_trainings_and_of_releases_are_told_apart(make_run, make_rows, dp):
    released = dp | {"eps": None, "eps_release": 1.0, "eps_scope": "release"}  # sampled, so by pld as well
    rows = frame(make_rows("dlg", "dp", 1, 9, 0.4, **released))
    text = to_markdown(pd.concat([make_run(), rows], ignore_index=True))
    assert "ε is the budget of the whole training or of the attacked gradient, accountant pld" in text


def test_empty_columns_are_left_out_and_explained(make_run):
    text = to_markdown(make_run(lpips_there=False, dp=False))
    header = next(line for line in text.splitlines() if line.startswith("| Attack"))
    assert "LPIPS" not in header
    assert "ε" not in header
    assert (
        "LPIPS is empty: it takes pictures of 31 x 31 px or more, and its trained trunk has to be there"
        in text
    )


def test_nothing_is_said_of_lpips_where_no_cell_ended_well(make_rows):
    rows = make_rows("dlg", "none", 1, 9, 0.4, lpips_there=False, status="failed", error="broken")
    for row in rows:
        del row["psnr"]
    assert "LPIPS" not in to_markdown(frame(rows))


def test_one_accountant_per_table(make_rows, make_run, dp):
    other = frame(make_rows("inverting-gradients", "dp", 1, 9, 0.4, **(dp | {"accountant": "rdp"})))
    text = to_markdown(pd.concat([make_run(), other], ignore_index=True))
    parts = re.split(r"accountant (\w+)", text)
    assert parts[1::2] == ["pld", "rdp"]
    assert parts[0].count("dp ε=1 ") == 2  # batches of 1 and 4
    assert parts[2].count("dp ε=1 ") == 1
    assert all(part.count("floor:mean-image") == 2 for part in (parts[0], parts[2]))


def test_conditions_that_vary_are_headings(make_rows):
    rows = make_rows("floor:mean-image", "none", 1, 11, 0.6)  # known to hold for both victims alike
    rows[0] |= {"victim": None}
    rows += make_rows("dlg", "none", 1, 20, 0.1) + make_rows("dlg", "none", 1, 20, 0.1, victim="trained")
    for text in (terminal(frame(rows)), to_markdown(frame(rows)), to_tex(frame(rows))):
        assert text.index("Batch of 1, victim early") < text.index("Batch of 1, victim trained")
        assert text.count("floor:mean-image") == 2
    assert "victim early" not in to_markdown(frame(rows[:2])).split("- ")[0]


def test_each_floor_stands_under_its_own_victim(make_rows):
    rows = []
    for victim, psnr in (("early", 11.11), ("trained", 12.22)):
        rows += make_rows("dlg", "none", 1, 20, 0.1, victim=victim)
        rows += make_rows("floor:mean-image", "none", 1, 0, 0, victim=victim, psnr=psnr)
    first, second = to_markdown(frame(rows)).split("### ")[1:]
    assert ("11.1" in first, "12.2" in first) == (True, False)
    assert ("11.1" in second, "12.2" in second) == (False, True)


@pytest.mark.parametrize("width", [80, 100])
def test_wide_sweeps_keep_their_numbers(make_run, make_rows, dp, width):
    parts = [make_run()]
    for model in ("lenet", "resnet20"):
        for norm in ("none", "frozen-bn"):
            for victim in ("early", "trained"):
                for labels in ("known", "inferred"):
                    more = frame(make_rows("idlg", "dp+prune", 4, 15, 0.2, **dp, prune_ratio=0.9))
                    parts.append(
                        pd.concat([make_run(), more]).assign(
                            model=model, norm=norm, victim=victim, labels=labels
                        )
                    )
    failed = make_rows("idlg", "clip", 4, 0, 0, status="failed", key="bad", error="ValueError: x")
    table = pd.concat([*parts, frame(failed)], ignore_index=True)
    shown = terminal(table, width).splitlines()
    assert max(map(len, shown)) <= width
    assert "Batch of 4, model resnet20, norm frozen-bn, victim trained" in shown
    for number in ("psnr", "lpips"):
        column = summary(table)[f"{number}_median"].dropna()
        spec = ".1f" if number == "psnr" else ".2f"
        assert {format(value, spec) for value in column} <= {word for line in shown for word in line.split()}
    rows = [line.rstrip() for line in shown if len(re.findall(r" [-+]?\d+\.\d+", line)) >= 3]
    assert len({len(row) for row in rows}) == 1
    attacked = summary(table)
    attacked = attacked[attacked["floor"].isna()]
    names = [row for row in rows if row.startswith("  ")]
    assert len(names) == len(attacked) - 1  # all but the failed one
    assert "…" not in "".join(shown)


def test_training_set_and_delta_name_a_defence_where_they_vary(make_rows, dp):
    rows = make_rows("dlg", "none", 1, 20, 0.1) + make_rows("dlg", "dp", 1, 9, 0.4, **dp)
    assert "dp ε=1 |" in to_markdown(frame(rows))
    rows += make_rows("dlg", "dp", 1, 9, 0.4, **(dp | {"train_size": 1000}))
    text = to_markdown(frame(rows))
    assert "dp ε=1 N=1000 |" in text
    assert "dp ε=1 N=50000 |" in text
    assert text.count("### ") == 1  # beside the undefended row, not in a table of their own


def test_known_labels_are_given_not_found(make_rows):
    known = make_rows("dlg", "none", 1, 20, 0.1, labels="known", label_correct=True)
    assert "| Labels |" not in to_markdown(frame(known))
    text = to_markdown(frame(known + make_rows("idlg", "none", 1, 20, 0.1)))
    assert "| given |" in text
    assert "| 100% |" in text


def test_how_much_of_a_model_is_trained_stands_under_the_table(make_run):
    said = "7,114 of 317,482 parameters are trained and sent, the others are frozen"
    in_part = make_run().assign(trained_parameters=7114, frozen_parameters=310_368)
    assert to_markdown(in_part).count(said) == 1
    assert "are frozen" not in to_markdown(make_run())


def test_failures_are_shown_with_a_reason(make_rows):
    rows = make_rows("dlg", "none", 1, 20, 0.1)
    failed = {"status": "failed", "error": "ValueError: lr | 0", "key": "bad"}
    rows += make_rows("dlg", "clip", 1, 0, 0, **failed)
    text = to_markdown(frame(rows))
    assert "| Failed |" in text
    assert "ValueError: lr \\| 0" in text


def test_user_text_cannot_break_out(make_run):
    table = make_run().assign(data=NASTY, attack=lambda t: t["attack"].replace("inverting-gradients", NASTY))
    markdown = to_markdown(table)
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "<b>" not in markdown
    assert "\x1b" not in markdown
    assert "\x1b" not in terminal(table)
    assert "[link](u)" in terminal(table, 200)  # shown as it is, not taken for rich's markup


@given(st.text(max_size=40))
def test_tex_leaves_no_special_character_bare(text):
    escaped = escape.tex(text)
    known = r"\\text[a-z]+\{\}|\$\\[A-Za-z]+\$|\$_\d\$|\\[&%$#_{}]|---?"
    assert not re.search(r"[\\&%$#_{}~^<>|\"\n\r\x00-\x1f]", re.sub(known, "", escaped))


@given(st.text(max_size=40))
def test_markdown_leaves_no_special_character_bare(text):
    escaped = re.sub(r"\\[\\`*_{}\[\]|#~$]", "", escape.markdown(text))
    assert not re.search(r"[\\`*_{}\[\]|#~$<>\n\r\x00-\x1f]", escaped)


@given(st.text(max_size=40))
def test_plain_text_prints_in_one_line(text):
    assert escape.plain(text).isprintable()


def test_tex_has_as_many_cells_as_columns(make_run):
    text = to_tex(make_run().assign(data=NASTY))
    columns = len(re.search(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}", text)[1])
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {columns}
    assert text.count("\\multicolumn") == 4  # two sections, and the attack in each
    assert re.sub(r"\\[{}]", "", text).count("{") == re.sub(r"\\[{}]", "", text).count("}")


def test_a_folder_is_called_what_it_is_called(make_run, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    show(make_run(), Path("run:smile:1"), [Path("run:smile:1/table.md")])
    assert "run:smile:1/\n" in capsys.readouterr().out


def test_thousands_are_written_out_and_a_guarantee_without_accountant_says_nothing_of_it(make_rows, dp):
    rows = make_rows("dlg", "dp", 1, 9, 0.4, **(dp | {"accountant": None, "seconds": 999.7}))
    text = terminal(frame(rows), columns=("seconds",))
    assert "1000" in text
    assert "accountant" not in text
