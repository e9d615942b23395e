"""What MkDocs is told beside mkdocs.yml: tables from declarations, files of the repository, notes in order.

On the site only. In the folder `docs/`, as GitHub shows it, a marker is an invisible comment, and a link to a
file of the repository is that file.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import docs_repository
import docs_tables
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files, InclusionLevel
from mkdocs.structure.pages import Page

LOG = logging.getLogger("mkdocs.hooks.dpbench")
"""A warning of it fails a strict build."""
MARKER = re.compile(r"^<!-- dpbench: (\S+)(?: (\S+))? -->$", re.MULTILINE)
NOTES = "findings"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The notes of `docs/findings`, newest first, take the place of the folder's name in the navigation."""
    notes = sorted((Path(config.docs_dir) / NOTES).glob("2*.md"), reverse=True)
    listed = [f"{NOTES}/README.md", *(f"{NOTES}/{note.name}" for note in notes)]
    config.nav = [_expanded(entry, listed) for entry in config.nav]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files of the repository that pages link to."""
    pages = [file for file in files.documentation_pages() if file.inclusion is not InclusionLevel.EXCLUDED]
    for linked in sorted({path for page in pages for path in docs_repository.linked(page)}):
        added = docs_repository.file(linked, config)
        if added is None:
            LOG.warning("A page links to %s, which is not in the repository.", linked)
        else:
            files.append(added)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with links that work on the site, and with what its markers stand for."""
    return MARKER.sub(lambda found: _table(found, page), docs_repository.relinked(markdown, page.file))


def _expanded(entry: Any, listed: list[str]) -> Any:
    if isinstance(entry, dict):
        return {title: listed if inside == f"{NOTES}/" else inside for title, inside in entry.items()}
    return entry


def _table(found: re.Match[str], page: Page) -> str:
    kind, name = found.groups()
    try:
        return docs_tables.KINDS[kind](*([name] if name else []))
    except (LookupError, TypeError, ValueError) as error:  # InputError is a ValueError
        LOG.warning("%s: %s cannot be filled in: %s", page.file.src_uri, found.group(), error)
        return ""
