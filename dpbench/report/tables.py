"""Results as tables: on the terminal, in Markdown and in LaTeX."""

from __future__ import annotations

from itertools import compress

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from dpbench.report import escape
from dpbench.report.sheet import Sheet, sheets
from dpbench.report.summary import summary

__all__ = ["rich_table", "summary", "to_markdown", "to_tex"]

_WORDS = 2  # the columns before the numbers: attack, defence


def rich_table(table: pd.DataFrame) -> Group:
    """Lay out results for the terminal: the columns that matter most, one table per accountant.

    Args:
        table: per-image results, columns of `dpbench.schema.SCHEMA`.

    Returns:
        What `rich.print` shows. User text is never taken for rich's markup.
    """
    return Group(*(_rich(sheet) for sheet in sheets(table)))


def to_markdown(table: pd.DataFrame) -> str:
    """Lay out results as Markdown: a heading and a table per batch size, all columns."""
    blocks = []
    for sheet in sheets(table):
        header = [escape.markdown(title) for title in sheet.header]
        rule = [":--" if i < _WORDS else "--:" for i in range(len(header))]
        for title, rows in sheet.sections:
            body = [[escape.markdown(text) for text in row] for row in rows]
            lines = "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *body))
            blocks.append(f"### {escape.markdown(title)}\n\n{lines}")
        blocks.append("\n".join(f"- {escape.markdown(note)}." for note in sheet.notes))
    return "\n\n".join(blocks) + "\n"


def to_tex(table: pd.DataFrame) -> str:
    r"""Lay out results as LaTeX `tabular`s with booktabs' rules, all columns; notes follow as a paragraph.

    The document needs `\usepackage{booktabs}`.
    """
    blocks = []
    for sheet in sheets(table):
        width = len(sheet.header)
        lines = [
            rf"\begin{{tabular}}{{{'l' * _WORDS}{'r' * (width - _WORDS)}}}",
            r"\toprule",
            _tex(sheet.header),
        ]
        for title, rows in sheet.sections:
            lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\textbf{{{escape.tex(title)}}}}} \\"]
            lines += [_tex(row) for row in rows]
        lines += [r"\bottomrule", r"\end{tabular}", "", r"\par\footnotesize"]
        blocks.append("\n".join([*lines, *(f"{escape.tex(note)}." for note in sheet.notes)]))
    return "\n\n".join(blocks) + "\n"


def _tex(row: tuple[str, ...]) -> str:
    return " & ".join(escape.tex(text) for text in row) + r" \\"


def _rich(sheet: Sheet) -> Group:
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for i, title in enumerate(compress(sheet.header, sheet.short)):
        shown.add_column(title.replace(" ", "\n"), justify="left" if i < _WORDS else "right", no_wrap=i != 1)
    for title, rows in sheet.sections:
        shown.add_row(Text(title, style="bold"))
        for row in rows:
            shown.add_row(*(Text(escape.plain(text)) for text in compress(row, sheet.short)))
        shown.add_section()
    return Group(shown, *(Text(f"{escape.plain(note)}.", style="dim") for note in sheet.notes))
