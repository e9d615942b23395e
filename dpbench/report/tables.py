"""Results as tables: on the terminal, in Markdown and in LaTeX."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress

import pandas as pd
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dpbench.report import escape
from dpbench.report.naming import EMPTY
from dpbench.report.sheet import Sheet, sheets
from dpbench.report.summary import summary

__all__ = ["rich_table", "summary", "to_markdown", "to_tex"]

_WORDS = 2  # the columns before the numbers: attack, defence
_GAP = 2  # between columns on the terminal
_LEAST_NAME = 16  # the least room for names there


def rich_table(table: pd.DataFrame) -> Group:
    """Lay out results for the terminal: the columns that matter most, one table per accountant.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.

    Returns:
        What `rich.print` shows. User text is never taken for rich's markup.
    """
    return Group(*(_Terminal(sheet) for sheet in sheets(table)))


def to_markdown(table: pd.DataFrame) -> str:
    """Lay out results as Markdown: a heading and a table per batch size, all columns."""
    blocks = []
    for sheet in sheets(table):
        blocks += [f"{escape.markdown(line)}." for line in map(_sentence, sheet.budgets)]
        header = [escape.markdown(title) for title in sheet.header]
        rule = [":--" if i < _WORDS else "--:" for i in range(len(header))]
        for title, rows in sheet.sections:
            body = [[escape.markdown(text) for text in row] for row in rows]
            lines = "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *body))
            blocks.append(f"### {escape.markdown(title)}\n\n{lines}")
        blocks.append("\n".join(f"- {escape.markdown(note)}." for note in (*sheet.notes, *sheet.details)))
    return "\n\n".join(blocks) + "\n"


def to_tex(table: pd.DataFrame) -> str:
    r"""Lay out results as LaTeX `tabular`s with booktabs' rules, all columns; notes follow as a paragraph.

    The document needs `\usepackage{booktabs}`.
    """
    blocks = []
    for sheet in sheets(table):
        width = len(sheet.header)
        lines = [
            *(rf"{escape.tex(_sentence(line))}.\par" for line in sheet.budgets),
            rf"\begin{{tabular}}{{{'l' * _WORDS}{'r' * (width - _WORDS)}}}",
            r"\toprule",
            _tex(sheet.header),
        ]
        for title, rows in sheet.sections:
            lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\textbf{{{escape.tex(title)}}}}} \\"]
            lines += [_tex(row) for row in rows]
        lines += [r"\bottomrule", r"\end{tabular}", "", r"\par\footnotesize"]
        blocks.append(
            "\n".join([*lines, *(f"{escape.tex(note)}." for note in (*sheet.notes, *sheet.details))])
        )
    return "\n\n".join(blocks) + "\n"


def _sentence(line: str) -> str:
    return line[:1].upper() + line[1:]


def _tex(row: tuple[str, ...]) -> str:
    return " & ".join(escape.tex(text) for text in row) + r" \\"


class _Terminal:
    """Headings over the whole width; under them rows of a name and its numbers, which are never shortened.

    Attacks stand above their defences, so that long names of both are not side by side.
    """

    def __init__(self, sheet: Sheet) -> None:
        titles, kept = sheet.header[_WORDS:], sheet.short[_WORDS:]
        self._header = ("", *(title.replace(" ", "\n") for title in compress(titles, kept)))
        self._sections = [(title, list(_tree(rows, kept))) for title, rows in sheet.sections]
        self._notes, self._budgets = sheet.notes, sheet.budgets

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        lines = [self._header, *(line for _, section in self._sections for line in section)]
        columns = zip(*lines, strict=True)
        widths = [max(cell_len(part) for text in column for part in text.split("\n")) for column in columns]
        numbers = sum(widths[1:]) + _GAP * len(widths[1:])
        widths[0] = min(widths[0], max(options.max_width - numbers, _LEAST_NAME))
        yield from (Text(f"{escape.plain(_sentence(line))}.") for line in self._budgets)
        if self._budgets:
            yield Text()
        yield _grid([self._header], widths)
        for title, section in self._sections:
            yield Text(f"\n{escape.plain(title)}", style="bold")
            yield _grid(section, widths)
        yield Text()
        yield from (Text(f"{escape.plain(note)}.", style="dim") for note in self._notes)


def _tree(rows: Sequence[tuple[str, ...]], kept: Sequence[bool]) -> Iterator[tuple[str, ...]]:
    """(name, numbers) of each row: floors by themselves, defences under their attack."""
    for attack in dict.fromkeys(row[0] for row in rows):
        found = [(row[1], *compress(row[_WORDS:], kept)) for row in rows if row[0] == attack]
        if found[0][0] == EMPTY:
            yield from ((attack, *line[1:]) for line in found)
        else:
            yield (attack, *[""] * sum(kept))
            yield from ((f"  {line[0]}", *line[1:]) for line in found)


def _grid(lines: Sequence[tuple[str, ...]], widths: Sequence[int]) -> Table:
    grid = Table.grid(padding=(0, _GAP, 0, 0))
    grid.add_column(width=widths[0], overflow="fold")
    for width in widths[1:]:
        grid.add_column(width=width, justify="right", vertical="bottom", no_wrap=True)
    for name, *numbers in lines:
        indent = len(name) - len(name.lstrip(" "))  # of a name's later lines too
        named = Padding(Text(escape.plain(name[indent:])), (0, 0, 0, indent))
        grid.add_row(named, *(Text(text) for text in numbers))
    return grid
