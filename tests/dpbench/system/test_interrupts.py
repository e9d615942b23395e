"""Ctrl-C is not lost where Python drops exceptions."""

from __future__ import annotations

import signal
import sys
import time
import weakref

import pytest

from dpbench.system import interrupts


class Interrupted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def in_a_callback():
    class Short:
        pass

    short = Short()
    return weakref.ref(short, lambda _: signal.raise_signal(signal.SIGINT))


@pytest.mark.parametrize("drop", [Interrupted, in_a_callback])
def test_in_a_finaliser_or_a_callback_it_is_raised_again(drop, capfd):
    before = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), interrupts.in_order():  # noqa: PT012
        kept = drop()  # the callback has been called by now
        del kept
        end = time.monotonic() + 5
        while time.monotonic() < end:
            time.sleep(0.01)
    assert sys.unraisablehook is before
    assert capfd.readouterr().err == ""


def test_what_else_is_dropped_goes_where_it_went(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    class Broken:
        def __del__(self):
            raise ValueError("broken")

    with interrupts.in_order():
        Broken()
    assert [found.exc_type for found in told] == [ValueError]
