"""Where dpbench keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$DPBENCH_CACHE, else dpbench/ in the XDG cache folder.

    Raises:
        RuntimeError: where there is no home folder.
    """
    own = os.environ.get("DPBENCH_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dpbench"
