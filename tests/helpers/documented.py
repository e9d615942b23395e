"""What the documentation tells people to type."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
NO_COMMANDS = ("dpbench pass P INDEX", "dpbench batch SEED INDEX")
"""Words of docs/data.md that are hashed."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STARTS = re.compile(r"(?:\.venv/bin/)?(?:python3? |dpbench |pip |pytest |bash )")


def blocks(page, kind):
    """The contents of the page's fenced blocks of that kind."""
    return [text for found, text in BLOCK.findall(page.read_text(encoding="utf-8")) if found == kind]


def inline(page):
    """Code within the page's sentences, each in one line."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def commands():
    """What is typed, to the first page that says so. Of what is shown, only lines that begin with $ count."""
    found = {}
    for page in PAGES:
        lines = [line for text in blocks(page, "") + blocks(page, "bash") for line in joined(text)]
        shown = [line for kind in ("console", "text") for text in blocks(page, kind) for line in joined(text)]
        lines += [line[2:] for line in shown if line.startswith("$ ")]
        typed = [part.strip() for line in lines for part in line.split(" && ")] + inline(page)
        for each in typed:
            if STARTS.match(each) and each not in NO_COMMANDS:
                found.setdefault(each, page.relative_to(ROOT).as_posix())
    return found


def joined(text):
    """The lines of a block, continued ones as one."""
    return text.replace("\\\n", " ").splitlines()


def words(typed):
    """The words of a command as a shell hands them over; ranges are spelt out, comments and dots left out."""
    typed = re.sub(r"\$\(seq (\d+) (\d+)\)", r"\1 ... \2", typed)
    count = lambda found: " ".join(str(n) for n in range(int(found[1]), int(found[2]) + 1))  # noqa: E731
    typed = re.sub(r"(\d+) \.\.\. (\d+)", count, typed)
    return [word for word in shlex.split(typed, comments=True) if word != "..."]
