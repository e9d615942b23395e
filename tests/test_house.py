"""The rules of the house: style, and who may import whom."""

import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import dpbench

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


def test_arrows_only_point_down_and_attacks_and_defences_see_the_protocol_alone():
    """The contracts stand in pyproject.toml."""
    tool("lint-imports", "--no-cache")


def sources():
    return [path for package in ("dpbench", "attacks", "defenses") for path in (ROOT / package).rglob("*.py")]


def test_source_files_are_short():
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert len(lines) > 150
    assert {name: count for name, count in lines.items() if count > 300} == {}


def test_there_are_few_rooms():
    """Folders and files at the top of dpbench, but for what Python itself wants there."""
    top = {path.name for path in (ROOT / "dpbench").iterdir()} - {"__init__.py", "__pycache__"}
    assert len(top) <= 21  # the last one is `tune`, which stands on rooms as far apart as sweeps and reports


def test_no_test_imports_another():
    shared = ROOT / "tests" / "helpers"
    found = [path for path in (ROOT / "tests").rglob("test_*.py") if shared not in path.parents]
    imports = re.compile(r"^\s*(from|import) (\.|tests\.(?!helpers)|.*\bconftest\b)", re.MULTILINE)
    assert len(found) > 50
    assert [str(path.relative_to(ROOT)) for path in found if imports.search(path.read_text())] == []


def test_any_package_can_be_imported_first():
    """In one process that forgets ours each time: most of the seconds are those of the libraries."""
    code = """
import sys
ours = ("attacks", "defenses", "dpbench")
for first in ours:
    for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
        del sys.modules[name]
    __import__(first)
    import dpbench.cell.run
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_no_registry_host_or_path_of_this_machine_is_committed():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    hosts = ["pypi" + ".org", "python" + "hosted.org", "registry." + "npmjs", str(ROOT.parent) + "/"]
    text = {f: (ROOT / f).read_bytes() for f in files if (ROOT / f).is_file()}
    assert not [f for f, content in text.items() for host in hosts if host.encode() in content]


def test_one_place_says_the_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {dpbench.__version__}\n" in citation
    assert f"\n## {dpbench.__version__.removesuffix('.0')}, " in (ROOT / "CHANGELOG.md").read_text()
    assert version("dpbench") == dpbench.__version__


def test_a_copy_that_is_not_installed_runs(tmp_path):
    """Machines that one is lent for minutes get a folder, not a package."""
    for package in ("dpbench", "attacks", "defenses"):
        (tmp_path / package).symlink_to(ROOT / package)
    hidden = "import sys, importlib.metadata as m\nfound = m.distribution\n"
    hidden += "def distribution(name):\n    if name == 'dpbench': raise m.PackageNotFoundError(name)\n"
    hidden += "    return found(name)\nm.distribution = distribution\n"
    line = ["--dry-run", "--defense", "none", "--batch-size", "1", "--out", str(tmp_path / "out")]
    code = f"{hidden}from dpbench.run import main\nsys.argv[1:] = {line}\nsys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there_after_a_bare_import():
    names = "import dpbench; [getattr(dpbench, name) for name in dpbench.__all__]; dpbench.store.columns()"
    tool("python", "-c", names)
