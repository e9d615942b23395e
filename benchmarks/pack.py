"""What a machine without a network needs to run `benchmarks.gpu`, in one folder.

    python -m benchmarks.pack DIR
    python -m benchmarks.pack DIR --there packages.txt      # what `pip list --format=freeze` prints there

`DIR/assets` gets the assets with weights of half the size, and `DIR/wheels` this checkout's wheel and those
of all it requires that the other machine lacks, each in the version installed here. The two are carried one
after the other if together they are too large. Nothing but pip's own sources and the assets of this machine
is read.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import tyro
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tyro.conf import Positional

from dpbench.assets.export import export
from dpbench.protocol import InputError

ROOT = Path(__file__).parents[1]
ASSETS = ("resnet50-imagenet", "lpips-alex")
THERE = ("torch", "torchvision", "pandas", "pyarrow", "scipy", "matplotlib", "rich", "pillow", "safetensors")
"""With what they require; found on most machines that have a graphics card."""
GLIBC = (17, 24, 27, 28, 31, 34)
"""Minor versions of glibc for which wheels are looked for; pip wants each by name."""


@dataclass(frozen=True)
class Options:
    """What to pack.

    Attributes:
        folder: where it goes; it may exist.
        there: a file with the names of packages that the other machine has, one a line.
        python: the other machine's version.
        assets: which; none leaves them out.
    """

    folder: Positional[Path]
    there: Path | None = None
    python: str = "3.12"
    assets: tuple[str, ...] = ASSETS


def closure(names: tuple[str, ...], python: str, beyond: frozenset[str] = frozenset()) -> dict[str, str]:
    """Packages by name with the versions installed here: `names` and all they require.

    Args:
        names: of installed packages.
        python: version for which requirements are read.
        beyond: packages that are left out, and not followed.
    """
    surroundings = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    found: dict[str, str] = {}
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found or name in beyond:
            continue
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # a marker that holds there alone, or torch's own parts
        found[name] = package.version
        for line in package.requires or ():
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate(surroundings):
                waiting.append(canonicalize_name(wanted.name))
    return found


def missing(options: Options) -> dict[str, str]:
    """What the wheels' folder must hold beside dpbench's own wheel.

    Raises:
        InputError: where the file of `there` cannot be read.
    """
    there = set(closure(THERE, options.python))
    if options.there is not None:
        try:
            lines = options.there.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"Cannot read {options.there}: {error}.") from None
        there |= {canonicalize_name(re.split(r"[=<>~!@\[]", line)[0]) for line in lines}
    with (ROOT / "pyproject.toml").open("rb") as file:
        required = tomllib.load(file)["project"]["dependencies"]
    names = tuple(Requirement(line).name for line in required)
    return dict(sorted(closure(names, options.python, frozenset(there)).items()))


def wheels(options: Options) -> None:
    """Fetch what is missing, and build dpbench's own.

    Raises:
        InputError: where pip finds no wheel for the other machine.
    """
    folder = options.folder / "wheels"
    platforms = [word for minor in GLIBC for word in ("--platform", f"manylinux_2_{minor}_x86_64")]
    target = ("--only-binary=:all:", "--python-version", options.python, "--implementation", "cp")
    target += (*platforms, "--platform", "manylinux2014_x86_64", "--platform", "any")
    names = [f"{name}=={version}" for name, version in missing(options).items()]
    _pip("download", "--no-deps", *target, "-d", str(folder), *names)
    _pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT))


def _pip(*words: str) -> None:
    ended = subprocess.run([sys.executable, "-m", "pip", *words, "-q"], capture_output=True, text=True)
    if ended.returncode:
        raise InputError(f"pip {words[0]} failed: {ended.stderr.strip().splitlines()[-1]}")


def size(folder: Path) -> float:
    """MiB of all files in it."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


def main(options: Options) -> int:
    """Pack, and say how large each part is and what to type over there."""
    try:
        for name in options.assets:
            export(name, options.folder / "assets", half=True)
        wheels(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for part in ("assets", "wheels"):
        print(f"{options.folder / part}: {size(options.folder / part):.1f} MiB")
    print("There, in this checkout:")
    print("  pip install --no-index --no-deps --target site wheels/*.whl")
    print("  PYTHONPATH=site python -m benchmarks.gpu --assets assets --out results/gpu")
    print("  tar czf gpu.tar.gz -C results gpu")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
