"""Templates with everything escaped: names of attacks, folders and labels are anybody's text."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dpbench import __version__

_HOME = Path(__file__).parent


def render(template: str, **values: Any) -> Markup:
    """Fill in a template.

    Args:
        template: name of a file in `templates/`, without `.html.j2`.
        values: what it needs. Text is escaped; `Markup` is not.

    Raises:
        jinja2.UndefinedError: for a value that the template needs and is not given.
    """
    return Markup(_environment().get_template(f"{template}.html.j2").render(values))


def plain(template: str, **values: Any) -> str:
    """A page without scripts, made from a template that extends `plain`; values as `render` takes them."""
    return str(
        render(template, **values, version=__version__, styles=[Markup(text) for text in static("css")])
    )


def static(kind: str) -> list[str]:
    """The contents of all files of a kind (`css`, `js`) in `static/`, by name."""
    return [path.read_text(encoding="utf-8") for path in sorted((_HOME / "static").glob(f"*.{kind}"))]


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HOME / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )


def _shown(value: Any) -> Any:
    """Text without control characters, such as those that reverse the order of letters on the screen."""
    if isinstance(value, str) and not isinstance(value, Markup) and not value.isprintable():
        return "".join(letter if letter.isprintable() or letter in "\n\t" else " " for letter in value)
    return value
