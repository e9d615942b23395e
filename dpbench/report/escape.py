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
    '"': "''",
    "—": "---",
    "–": "--",
    "…": "...",
    "ε": r"$\varepsilon$",
    "φ": r"$\varphi$",
    "∞": r"$\infty$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "µ": r"$\mu$",
}
_GREEK = (
    "α=alpha β=beta γ=gamma δ=delta ζ=zeta η=eta θ=theta ι=iota κ=kappa λ=lambda μ=mu ν=nu ξ=xi π=pi ρ=rho "
    "σ=sigma τ=tau υ=upsilon χ=chi ψ=psi ω=omega Γ=Gamma Δ=Delta Θ=Theta Λ=Lambda Ξ=Xi Π=Pi Σ=Sigma Φ=Phi "
    "Ψ=Psi Ω=Omega"
)
_TEX |= {pair[0]: rf"$\{pair[2:]}$" for pair in _GREEK.split()}
_TEX |= {digit: f"$_{i}$" for i, digit in enumerate("₀₁₂₃₄₅₆₇₈₉")}
_LETTERS = frozenset("ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿ")
"""What LaTeX sets in every encoding of its fonts, beside ASCII."""
_MARKDOWN = str.maketrans(
    {**{mark: "\\" + mark for mark in "\\`*_{}[]|#~$"}, "&": "&amp;", "<": "&lt;", ">": "&gt;"}
)


def tex(text: str) -> str:
    r"""Escape for LaTeX's text mode. Greek letters become commands; what no LaTeX has becomes its code point.

    Example:
        >>> print(tex(r"50 % of C:\my_data"), tex("λ=1, 名"))
        50 \% of C:\textbackslash{}my\_data $\lambda$=1, [U+540D]
    """
    return "".join(map(_tex, plain(text)))


def _tex(character: str) -> str:
    if character in _TEX:
        return _TEX[character]
    return character if character.isascii() or character in _LETTERS else f"[U+{ord(character):04X}]"


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
