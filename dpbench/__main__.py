"""The command `dpbench`, which is `python -m dpbench`: all commands under one name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from dpbench import __version__

COMMANDS = {
    "run": ("dpbench.run", "attack gradients with and without a defence, and see what comes back"),
    "decide": ("dpbench.decide.__main__", "which epsilon: what a training gives away at most"),
    "frontier": ("dpbench.frontier.__main__", "up to which noise attacks are seen to succeed"),
    "tune": ("dpbench.tune.__main__", "choose an attack's parameters under each defence"),
    "audit": ("dpbench.audit.__main__", "does a defence leak more than it claims?"),
    "report": ("dpbench.report.__main__", "make the page of a run again, or of an old one"),
    "compare": ("dpbench.report.compare.__main__", "runs side by side; entries checked and ranked"),
    "assets": ("dpbench.assets.__main__", "fetch, check and export weights and data sets"),
}
"""Name to the module whose `main` it is, and what it does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Hands over to a subcommand; its exit status, 0 for help and version, 2 for what is no subcommand.

    Args:
        arguments: without the program's name; those of this process unless given.
    """
    first, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    if first in COMMANDS:
        return import_module(COMMANDS[first][0]).main(rest)
    if first == "--version":
        print(f"dpbench {__version__}")
        return 0
    if first in ("-h", "--help"):
        print(_help())
        return 0
    from dpbench.protocol import meant  # brings PyTorch along

    said = f"dpbench has no {first!r}{meant(first, COMMANDS)}: give one of {', '.join(COMMANDS)}, or --help."
    print(said, file=sys.stderr)
    return 2


def _help() -> str:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {about}" for name, (_, about) in COMMANDS.items())
    return f"usage: dpbench COMMAND ...   (dpbench COMMAND --help says more; --version)\n\n{listed}"


if __name__ == "__main__":
    sys.exit(main())
