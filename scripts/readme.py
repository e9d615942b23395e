"""Fills the marked blocks of README.md and docs/ with figures from results/reference.

    python scripts/readme.py            writes what has changed
    python scripts/readme.py --check    writes nothing; exit status 1 if a page is out of date

A block stands between two comments, `<!-- figures: NAME -->` and `<!-- /figures -->`. Its text is that of
`scripts/blocks/NAME.md`, a Jinja template over `reference_figures.FIGURES`: change sentences there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import jinja2
from figure_words import FILTERS
from reference_figures import FIGURES

HOME = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- figures: ([a-z-]+) -->\n).*?(<!-- /figures -->)", re.DOTALL)


def pages() -> list[Path]:
    """The pages that may have blocks."""
    return [HOME / "README.md", *sorted((HOME / "docs").rglob("*.md"))]


def filled(text: str) -> str:
    """A page with its blocks as the stored results have them."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "blocks")
    templates = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False
    )
    templates.filters |= FILTERS

    def block(match: re.Match[str]) -> str:
        written = templates.get_template(f"{match[2]}.md").render(FIGURES)
        return f"{match[1]}{written.rstrip()}\n{match[3]}"

    return BLOCK.sub(block, text)


def main(arguments: list[str]) -> int:
    """Fill all pages; with `--check` only say which are out of date."""
    stale = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (wanted := filled(text)) != text:
            stale.append(page)
            if "--check" not in arguments:
                page.write_text(wanted, encoding="utf-8")
    for page in stale:
        print(page.relative_to(HOME))
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
