"""Where a result was made: versions, device and the state of the source."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dpbench import __version__

_PACKAGES = (
    "torch",
    "torchvision",
    "opacus",
    "dp-accounting",
    "numpy",
    "scipy",
    "pandas",
    "lpips",
)


def describe() -> dict[str, Any]:
    """Describe this machine and this source tree.

    Returns:
        `python`, `platform`, `packages` (name to version, None where not installed), `cpu` (its name, and
        the instructions that torch uses), `cpu_threads` of torch, `cuda` (its version and the devices'
        names), `arithmetic` (what a graphics card may round) and `git` (`git_state` of dpbench).
    """
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {"dpbench": __version__} | {name: _version(name) for name in _PACKAGES},
        "cpu": {"name": _cpu(), "instructions": torch.backends.cpu.get_cpu_capability()},
        "cpu_threads": torch.get_num_threads(),
        "cuda": {"version": torch.version.cuda, "devices": devices},
        "arithmetic": {
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cudnn_tf32": torch.backends.cudnn.allow_tf32,
            "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
        },
        "git": git_state(Path(__file__)),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def git_state(file: Path) -> dict[str, Any]:
    """Commit of the checkout that tracks `file`, and whether tracked files differ from it.

    A file that git does not track (an installed package inside somebody else's checkout, say) has no commit.
    """
    commit = None
    if _git(file, "ls-files", "--error-unmatch", file.name) is not None:
        commit = _git(file, "rev-parse", "HEAD")
    changes = _git(file, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(file: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(file.parent), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
