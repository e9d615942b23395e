"""Ctrl-C and SIGTERM: the first one ends a run in order, the second one at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STATUS = 130
"""Exit status of a run that was stopped by either."""
_AGAIN = 0.02
"""Seconds after which a dropped interrupt is raised again."""


@contextmanager
def in_order() -> Iterator[None]:
    """Within the block, the first of either signal raises KeyboardInterrupt, the second ends the process.

    Usable in the main thread only, as all handling of signals. Python drops what is raised in a finaliser or
    in the callback of a weak reference, where drawing often is: there it is raised once more, a moment later.
    """

    def first(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, lambda *_: os._exit(STATUS))
        raise KeyboardInterrupt

    def dropped(found: sys.UnraisableHookArgs) -> None:
        if found.exc_type is not KeyboardInterrupt:
            usual(found)
            return
        for each in SIGNALS:
            signal.signal(each, first)
        threading.Timer(_AGAIN, os.kill, (os.getpid(), signal.SIGINT)).start()

    before, usual = {each: signal.signal(each, first) for each in SIGNALS}, sys.unraisablehook
    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = usual
        for each, handler in before.items():
            signal.signal(each, handler)
