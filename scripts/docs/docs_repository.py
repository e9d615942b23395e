"""Links from pages to files of the repository: on the site the file comes along."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).parents[2]
OUTSIDE = re.compile(r"(?<=\]\()((?:\.\./)+[^)#\s]+)(?=\))")
HOME = "repository"
"""Folder of the site that holds them."""
SHOWN = {".py": "python", ".toml": "toml", ".json": "json", ".md": "markdown"}
"""Files that are shown as a page; others are there to download, or are pictures."""


def linked(page: File) -> set[str]:
    """Paths in the repository, outside `docs/`, that a page links to."""
    found = (_path(link, page) for link in OUTSIDE.findall(page.content_string))
    return {path for path in found if path is not None}


def relinked(markdown: str, page: File) -> str:
    """`markdown` with links to where the site has these files."""

    def there(found: re.Match[str]) -> str:
        path = _path(found.group(), page)
        if path is None or not (ROOT / path).exists():
            return found.group()
        return posixpath.relpath(_place(path), posixpath.dirname(page.src_uri) or ".")

    return OUTSIDE.sub(there, markdown)


def file(path: str, config: MkDocsConfig) -> File | None:
    """A file, or a folder's listing, as the site has it; None where there is none."""
    here, more = ROOT / path, {"inclusion": InclusionLevel.NOT_IN_NAV}
    if here.is_dir():
        names = sorted(each.name + "/" * each.is_dir() for each in here.iterdir() if each.name[0] not in "._")
        listing = "\n".join(f"- `{name}`" for name in names)
        return File.generated(config, _place(path), content=f"# `{path}/`\n\n{listing}\n", **more)
    if not here.is_file():
        return None
    if here.suffix in SHOWN:
        shown = f"# `{path}`\n\n~~~~{SHOWN[here.suffix]}\n{here.read_text(encoding='utf-8')}~~~~\n"
        return File.generated(config, _place(path), content=shown, **more)
    return File.generated(config, _place(path), abs_src_path=str(here), **more)


def _path(link: str, page: File) -> str | None:
    """Where a link leads, from the repository's root; None for what is in `docs/`."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.src_uri), link))
    return None if path.startswith("docs/") else path


def _place(path: str) -> str:
    here = ROOT / path
    if here.is_dir():
        return f"{HOME}/{path}/index.md"
    return f"{HOME}/{path}{'.md' if here.suffix in SHOWN else ''}"
