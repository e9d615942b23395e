"""The rules of the house: style, and who may import whom."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def tool(*command):
    """Runs a tool of this environment; its output is the message where it fails."""
    program = Path(sys.executable).with_name(command[0])
    if not program.exists() and shutil.which(command[0]) is None:
        pytest.fail(f"{command[0]} is missing: pip install -e '.[test]'")
    done = subprocess.run(
        [str(program) if program.exists() else command[0], *command[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff():
    tool("ruff", "check", ".")
    tool("ruff", "format", "--check", ".")


def test_attacks_and_defences_import_nothing_of_dpbench_but_the_protocol():
    tool("lint-imports", "--no-cache")


@pytest.mark.parametrize("first", ["attacks", "defenses", "dpbench"])
def test_any_package_can_be_imported_first(first):
    subprocess.run([sys.executable, "-c", f"import {first}; import dpbench.cell.trial"], cwd=ROOT, check=True)


def test_no_registry_host_or_path_of_this_machine_is_committed():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    hosts = ["pypi" + ".org", "python" + "hosted.org", "registry." + "npmjs", str(ROOT.parent) + "/"]
    text = {f: (ROOT / f).read_bytes() for f in files if (ROOT / f).is_file()}
    assert not [f for f, content in text.items() for host in hosts if host.encode() in content]
