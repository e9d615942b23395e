"""Pages from templates with everything escaped: names of folders, attacks and people are anybody's text."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dpbench import __version__


def render(template: str, **values: Any) -> str:
    """A whole page.

    Args:
        template: a file in `templates/`, without `.html.j2`.
        values: what it needs; text is escaped, `Markup` is not.
    """
    return _environment().get_template(f"{template}.html.j2").render(values, version=__version__)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("dpbench.report.compare"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )


def _shown(value: Any) -> Any:
    """Text without control characters, such as those that reverse the order of letters on the screen."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in value)
    return value
