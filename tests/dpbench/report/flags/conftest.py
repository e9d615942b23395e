"""Runs that call for one kind of flag only."""

from collections.abc import Callable

import pandas as pd
import pytest

from dpbench.report.flags import Flag, flags
from dpbench.store.schema import frame


@pytest.fixture
def raised() -> Callable[..., list[Flag]]:
    """The flags of some rows, or of a table."""

    def found(rows, store=None):
        return flags(rows if isinstance(rows, pd.DataFrame) else frame(rows), store)

    return found
