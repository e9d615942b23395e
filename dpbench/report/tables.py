"""Results as tables: on the terminal, in Markdown and in LaTeX."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import pandas as pd
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.text import Text

from dpbench.report import escape
from dpbench.report.adaptive import GAINS, Gains
from dpbench.report.fields import LONG, SHORT
from dpbench.report.naming import EMPTY
from dpbench.report.sheet import Section, Sheet, sheets
from dpbench.report.summary import summary
from dpbench.system.layout import Line, lay_out, wrap

__all__ = ["rich_table", "summary", "to_markdown", "to_tex"]

_WORDS = 2  # the columns before the numbers: attack, defence
_NAME, _WHOLE = 24, 64  # characters in a line of LaTeX: of a name beside numbers, of a name alone
_ROWS = 44  # rows of a `tabular`, its head included: LaTeX breaks none, and cuts off what is below the page


def rich_table(table: pd.DataFrame, columns: str | Sequence[str] = SHORT) -> Group:
    """Lay out results for the terminal, one table per accountant. No number is cut, however narrow it is.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        columns: what is shown beside the names, as of `dpbench.report.fields.fields`.

    Returns:
        What `rich.print` shows. User text is never taken for rich's markup.
    """
    return Group(*(_Terminal(sheet) for sheet in sheets(table, columns)))


def to_markdown(table: pd.DataFrame) -> str:
    """Lay out results as Markdown: a heading and a table per batch size."""
    blocks = []
    for sheet in sheets(table, LONG):
        blocks += [f"{escape.markdown(line)}." for line in map(_sentence, sheet.budgets)]
        for section in sheet.sections:
            lines = _markdown(section.header, section.rows)
            blocks.append(f"### {escape.markdown(section.title)}\n\n{lines}")
        blocks.append("\n".join(f"- {escape.markdown(note)}." for note in (*sheet.notes, *sheet.details)))
    return "\n\n".join(blocks) + "\n"


def of_gains(found: Gains) -> str:
    """The comparison of adaptive and other attacks as Markdown, with its heading and its notes."""
    notes = "\n".join(f"- {escape.markdown(note)}." for note in found.notes)
    return f"\n### {GAINS}\n\n{_markdown(found.header, found.rows)}\n\n{notes}\n"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first, *body = [[escape.markdown(text) for text in row] for row in (header, *rows)]
    rule = [":--" if i < _WORDS else "--:" for i in range(len(first))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (first, rule, *body))


def to_tex(table: pd.DataFrame) -> str:
    r"""Lay out results as LaTeX `tabular`s with booktabs' rules; notes follow as a paragraph.

    There are at most eight columns: a name, and the numbers that a terminal shows. Defences stand below their
    attack. In small print the columns fit the 345 pt of an `article`, and rows that fill more than a page go
    on in another `tabular`. The document needs `\usepackage{booktabs}` and nothing else.
    """
    blocks = []
    for sheet in sheets(table, paper=True):
        blocks += [rf"\noindent {escape.tex(_sentence(line))}.\par" for line in sheet.budgets]
        for titles, sections in _alike(sheet):
            blocks += [_tabular(titles, part) for part in _parts(sections, 1 + len(titles))]
        said = " ".join(f"{escape.tex(note)}." for note in (*sheet.notes, *sheet.details))
        blocks.append(rf"{{\noindent\footnotesize\emergencystretch=2em {said}\par}}")
    return "\n\n".join(blocks) + "\n"


def _sentence(line: str) -> str:
    return line[:1].upper() + line[1:]


def _alike(sheet: Sheet) -> Iterator[tuple[tuple[str, ...], list[Section]]]:
    """(titles of the columns of numbers, sections with these titles), in their order."""
    for header, sections in groupby(sheet.sections, key=lambda section: section.header):
        yield header[_WORDS:], list(sections)


def _parts(sections: Sequence[Section], width: int) -> Iterator[list[str]]:
    """The rows under the head of each `tabular`; a section that goes on in the next has its title again."""
    part: list[str] = []
    for section in sections:
        title = [r"\midrule", *_tex(Line(section.title), width, r"\bfseries ")]
        lines = [(line, [*_tex(line, width)]) for line in _tree(section.rows)]
        whole = len(title) + sum(len(rows) for _, rows in lines)
        if part and len(part) + whole >= _ROWS:
            yield part
            part = []
        part += title
        attack: list[str] = []
        for line, rows in lines:
            attack = attack if line.cells else rows
            # an attack does not stand at the end without its first defence
            if len(part) + len(rows) + (not line.cells) >= _ROWS:
                yield part
                part = [*title, *(attack if line.indent else [])]
            part += rows
    yield part


def _tabular(titles: tuple[str, ...], rows: Sequence[str]) -> str:
    return "\n".join(
        [
            r"{\noindent\footnotesize\setlength{\tabcolsep}{3pt}%",
            rf"\begin{{tabular}}{{@{{}}l{'r' * len(titles)}@{{}}}}",
            r"\toprule",
            *_tex(Line("", titles), 1 + len(titles)),
            *rows,
            r"\bottomrule",
            r"\end{tabular}\par\smallskip}",
        ]
    )


def _tex(line: Line, width: int, font: str = "") -> Iterator[str]:
    """Rows of a `tabular` for one line: as many as its name needs, the numbers in the last."""
    before = font + (r"\quad " if line.indent else "")
    parts = wrap(escape.plain(line.name), (_NAME if line.cells else _WHOLE) - line.indent)
    for i, part in enumerate(parts):
        # a bracket or a star after the end of a row would be an option of that end
        name = before + ("{}" if part[:1] in ("[", "*") else "") + escape.tex(part)
        if line.cells:
            cells = line.cells if i == len(parts) - 1 else [""] * len(line.cells)
            yield " & ".join([name, *map(escape.tex, cells)]) + r" \\"
        else:
            yield rf"\multicolumn{{{width}}}{{@{{}}l}}{{{name}}} \\"


def _tree(rows: Sequence[tuple[str, ...]]) -> Iterator[Line]:
    """A line for each row: floors by themselves, defences under their attack."""
    for attack in dict.fromkeys(row[0] for row in rows):
        found = [(row[1], row[_WORDS:]) for row in rows if row[0] == attack]
        if found[0][0] == EMPTY:
            yield from (Line(attack, cells) for _, cells in found)
        else:
            yield Line(attack)
            yield from (Line(defence, cells, indent=2) for defence, cells in found)


class _Terminal:
    """Headings over the whole width; under them rows of a name and its numbers.

    Attacks stand above their defences, so that long names of both are not side by side.
    """

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        sheet, width = self._sheet, options.max_width
        yield from (Text(line) for text in sheet.budgets for line in _broken(f"{_sentence(text)}.", width))
        if sheet.budgets:
            yield Text()
        for titles, sections in _alike(sheet):
            lines = []
            for section in sections:
                title = Line(escape.plain(section.title), style="bold")
                lines += [Line(""), title, *map(_plain, _tree(section.rows))]
            for part in lay_out(titles, lines, width):
                yield from (*part, Text())
        yield from (Text(line, style="dim") for text in sheet.notes for line in _broken(f"{text}.", width))


def _plain(line: Line) -> Line:
    return replace(line, name=escape.plain(line.name), cells=tuple(map(escape.plain, line.cells)))


def _broken(text: str, width: int) -> list[str]:
    """The lines of a sentence; a value stands in one line with its symbol."""
    glued = escape.plain(text).replace(" = ", "\xa0=\xa0")
    return [line.replace("\xa0", " ") for line in wrap(glued, width)]
