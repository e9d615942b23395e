"""`report.html`: the sections put together, and written."""

from __future__ import annotations

import traceback
import warnings
from base64 import b64encode
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from dpbench import __version__
from dpbench.protocol import InputError
from dpbench.report import escape
from dpbench.report.page.sections import SECTIONS, Section
from dpbench.report.page.templating import render, static
from dpbench.store import Store, schema
from dpbench.system.atomic import written
from dpbench.system.once import kept
from dpbench.system.output import Notice

FILE = "report.html"


@dataclass(frozen=True)
class _Made:
    section: Section
    body: Markup


def write(store: Store, table: pd.DataFrame) -> Path:
    """Write the page of a run into its folder, wholly or not at all.

    Args:
        store: the run. The page also shows what else lies in its folder: plots, logs, `decide.json`,
            `frontier.json`, `utility.csv`, `environment.json`, `config.toml`.
        table: per-image results, floors attached, columns of `dpbench.store.columns`; may be empty.

    Returns:
        The file.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    text = html(store, table)
    return written(store.path / FILE, lambda path: path.write_text(text, encoding="utf-8"))


def html(store: Store, table: pd.DataFrame) -> str:
    """The page as text. A section that fails is left out with a warning, and the page says so."""
    table = schema.numbered(table)
    with kept():  # sections ask for the same summaries, flags and sentences
        made = [_Made(section, body) for section in SECTIONS if (body := _body(section, table, store))]
    return str(
        render(
            "page",
            name=store.path.absolute().name or "results",
            version=__version__,
            made=made,
            styles=[Markup(text) for text in (_bundle("css"), *static("css"))],
            scripts=[Markup(text) for text in static("js")],
            bundle=Markup(b64encode(_bundle("js").encode()).decode()),
        )
    )


def _body(section: Section, table: pd.DataFrame, store: Store) -> Markup | None:
    try:
        return section.make(table, store)
    except InputError:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error}"
        line = f"{FILE}: {section.title} is missing: {reason} ({where.filename}:{where.lineno})."
        warnings.warn(escape.plain(line), Notice, stacklevel=2)
        return render("missing", reason=reason)


def _bundle(kind: str) -> str:
    """DataTables as itables carries it, for use without a network; the licences stand in it."""
    # found, not imported: it reads the pyproject.toml of the user's folder, and fails where there is no home
    home = Path(find_spec("itables").origin).parent
    return (home / "html" / f"dt_bundle.{kind}").read_text(encoding="utf-8")
