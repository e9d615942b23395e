"""A comparison on the terminal, at most 80 columns wide, and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from dpbench.report import escape
from dpbench.report.compare.words import HEADER, Block, Said

WIDTH = 80
SHOWN = 8
"""Settings without a partner that are listed on the terminal."""
_GAP = "  "


def text(said: Said) -> str:
    """Everything that is printed."""
    head = [*said.runs, f"In all: {'; '.join(said.same)}", *said.differs]
    blocks = [_paragraphs(head), *_table(said.blocks)]
    if said.alone:
        shown = [f"{run}: {name}; nearest: {nearest}" for run, name, nearest in said.alone[:SHOWN]]
        if len(said.alone) > SHOWN:
            shown.append(f"and {len(said.alone) - SHOWN} more; `out` writes them to compare.csv")
        blocks.append(_paragraphs([f"Not compared, settings of one run ({len(said.alone)}):", *shown]))
    blocks.append(_paragraphs([f"{note}." for note in said.notes]))
    return "\n\n".join(blocks)


def _paragraphs(lines: Sequence[str]) -> str:
    return "\n".join(
        textwrap.fill(escape.plain(line), WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        for line in lines
    )


def _table(blocks: Sequence[Block]) -> list[str]:
    rows = [HEADER, *(row for block in blocks for row in block.rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    found = [_line(HEADER, widths)]
    for block in blocks:
        found.append("\n".join([_paragraphs([block.title]), *(_line(row, widths) for row in block.rows)]))
    return found


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [row[0].ljust(widths[0]), row[1].rjust(widths[1])]
    cells += [cell.ljust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
    return _GAP.join(cells).rstrip()


def markdown(said: Said) -> str:
    """The comparison as Markdown, settings without a partner in full."""
    e = escape.markdown
    lines = [
        "# Runs compared",
        "",
        *(f"- {e(run)}" for run in said.runs),
        "",
        f"In all: {e('; '.join(said.same))}.",
    ]
    lines += ["", *(f"- {e(line)}" for line in said.differs)]
    for block in said.blocks:
        lines += ["", f"### {e(block.title)}", "", f"| {' | '.join(HEADER)} |", "|:--|--:|:--|:--|:--|"]
        lines += [f"| {' | '.join(map(e, row))} |" for row in block.rows]
    if said.alone:
        lines += ["", "## Not compared", "", "| run | setting | nearest |", "|:--|:--|:--|"]
        lines += [f"| {' | '.join(map(e, row))} |" for row in said.alone]
    return "\n".join([*lines, "", *(f"- {e(note)}." for note in said.notes)]) + "\n"
