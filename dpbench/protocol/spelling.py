"""What a mistyped word was meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def meant(word: str, known: Iterable[str], before: str = "") -> str:
    """A question to put behind a message about an unknown word; empty where nothing known is near.

    Args:
        word: as typed.
        known: what it may have been.
        before: what is put before a known word, dashes say.

    Example:
        >>> meant("lpip_min", ["psnr_max", "lpips_min"])
        " (did you mean 'lpips_min'?)"
        >>> meant("esp", ["eps"], "--"), meant("x", ["eps"])
        (' (did you mean --eps?)', '')
    """
    found = get_close_matches(word, [*known], n=1)
    if not found:
        return ""
    return f" (did you mean {before + found[0] if before else repr(found[0])}?)"
