"""How the program says that it cannot use what it was given."""

from __future__ import annotations


class InputError(ValueError):
    """What the user gave cannot be used; the message is one sentence that says what to do (exit status 2)."""
