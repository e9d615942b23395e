"""Text of users (paths, names, error messages) made harmless for where it is shown."""

from __future__ import annotations

from dpbench.system.output import plain

_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "—": "---",
    "–": "--",
    "ε": r"$\varepsilon$",
    "σ": r"$\sigma$",
    "δ": r"$\delta$",
    "∞": r"$\infty$",
    "≥": r"$\geq$",
}
_MARKDOWN = str.maketrans(
    {**{mark: "\\" + mark for mark in "\\`*_{}[]|#~$"}, "&": "&amp;", "<": "&lt;", ">": "&gt;"}
)


def tex(text: str) -> str:
    r"""Escape for LaTeX's text mode; the few symbols our own headers use become their commands.

    Example:
        >>> print(tex(r"50 % of C:\my_data"))
        50 \% of C:\textbackslash{}my\_data
    """
    return "".join(_TEX.get(character, character) for character in plain(text))


def markdown(text: str) -> str:
    r"""Escape for a cell of a Markdown table, HTML included.

    Example:
        >>> print(markdown("a|b <i>"))
        a\|b &lt;i&gt;
    """
    return plain(text).translate(_MARKDOWN)


def matplotlib(text: str) -> str:
    r"""Escape for Matplotlib, which takes text between dollar signs for a formula; line breaks are kept.

    Example:
        >>> print(matplotlib("$HOME/a"))
        \$HOME/a
    """
    return "\n".join(plain(line).replace("$", r"\$") for line in text.split("\n"))
