"""Numbers in text: rounded for reading, with the whole value beside them in the page's source."""

from __future__ import annotations

from typing import Any

import pandas as pd
from markupsafe import Markup

from dpbench.privacy.rounding import up, up_percent
from dpbench.report.naming import EMPTY, number
from dpbench.system.words import per_cent


def figure(value: Any, spec: str = ".3g") -> Markup:
    """A number as HTML; a missing one is a dash.

    Example:
        >>> print(figure(2.4501209))
        <data value="2.4501209">2.45</data>
        >>> print(figure(None))
        —
    """
    return _marked(value, number(value, spec))


def at_most(value: Any, digits: int = 3) -> Markup:
    """An upper bound as HTML, rounded up, so that what is shown holds.

    Example:
        >>> print(at_most(0.15462))
        <data value="0.15462">0.155</data>
    """
    return _marked(value, EMPTY if _missing(value) else up(value, digits))


def share(value: Any, places: int = 0) -> Markup:
    """A share as HTML, in per cent, with so many places behind the point or more (`per_cent`).

    Example:
        >>> print(share(0.25))
        <data value="0.25">25 %</data>
    """
    return _marked(value, EMPTY if _missing(value) else f"{per_cent(float(value), places)} %")


def at_most_share(value: Any) -> Markup:
    """A share that is an upper bound as HTML, in per cent, rounded up.

    Example:
        >>> print(at_most_share(0.15462))
        <data value="0.15462">15.5 %</data>
    """
    return _marked(value, EMPTY if _missing(value) else up_percent(value))


def _marked(value: Any, shown: str) -> Markup:
    if _missing(value):
        return Markup(EMPTY)
    return Markup('<data value="{}">{}</data>').format(repr(_plain(value)), shown)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _missing(value: Any) -> bool:
    return value is None or pd.isna(value)
