"""A file call that fails in a small sweep: nothing is lost, and the exit status tells the truth."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import pandas as pd
import pytest

from dpbench.report import export
from dpbench.run import main
from dpbench.store import cell_file
from tests.helpers.faults import CRASHED, KILL, KILLED, KINDS, Ended, Fault, run
from tests.helpers.sixty import table_of

WORDS = ["--attack", "instant", "--defense", "prune", "--batch-size", "1", "--iterations", "1"]
WORDS += ["--device", "cpu", "--quiet"]
QUICK = [
    ("kill", 0.45, False),
    ("ENOSPC", 0.3, True),
    ("EIO", 0.6, False),
    ("EROFS", 0.8, True),
    ("ESTALE", 0.25, False),
    ("EDQUOT", 0.5, False),
]


class Sweep:
    """The sweep in folders of its own, and what it should look like."""

    def __init__(self, base: Path) -> None:
        self.base, self.whole = base, base / "whole"
        assert main([*WORDS, "--out", str(self.whole)]) == 0
        self.calls = self.run(base / "counted").calls

    def run(self, folder: Path, fault: Fault | None = None) -> Ended:
        return run(lambda: main([*WORDS, "--out", str(folder)]), folder, fault, self.base)

    def is_whole(self, folder: Path, but_for: str = "") -> bool:
        """Whether every cell and every file is there, and nothing is half-written or in hand.

        An empty folder named `but_for` may be left.
        """
        names, found = ({path.name for path in each.iterdir()} for each in (self.whole, folder))
        if but_for in found and not list((folder / but_for).iterdir()):
            found.remove(but_for)
        return names == found and sound(folder).keys() == sound(self.whole).keys()

    def compare(self, folder: Path) -> None:
        """The table is that of the undisturbed run."""
        pd.testing.assert_frame_equal(table_of(folder), table_of(self.whole))


def sound(folder: Path) -> dict[str, str]:
    """The cells that can be read, file name to hash."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [path for path in sorted(folder.glob("cells/*.safetensors")) if cell_file.read(path)]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def check(sweep: Sweep, folder: Path, fault: Fault) -> Ended:
    """One run with the fault, and one more without."""
    ended = sweep.run(folder, fault)
    what = f"{fault} at {ended.failed!r}: status {ended.status}, {ended.said}"
    assert "Traceback" not in ended.said, what
    if fault.kind == KILL:
        assert ended.status == KILLED, what
    else:
        assert ended.status != CRASHED, what
        assert ended.status in (0, 1, 2), what
        assert ended.said or ended.status == 0, what  # a sentence where something was lost
        if ended.status == 0:
            # a disk that does not remove the emptied folder costs nothing; the next run removes it
            assert sweep.is_whole(folder, but_for="running"), what
            sweep.compare(folder)
    kept = sound(folder)
    again = sweep.run(folder)
    assert (again.status, again.said) == (0, ""), what
    assert sweep.is_whole(folder), what
    assert not list(folder.rglob(".writing-*")), what
    assert not list(folder.glob("failed/*")), what
    now = sound(folder)
    assert {name: now[name] for name in kept} == kept, what  # what was finished did not run again
    sweep.compare(folder)
    return ended


@pytest.fixture(scope="module")
def plain_sweep(instant, tmp_path_factory) -> Sweep:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "plots", {})
        yield Sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def full_sweep(instant, tmp_path_factory) -> Sweep:
    return Sweep(tmp_path_factory.mktemp("sweep"))


@pytest.mark.parametrize(("kind", "share", "lasting"), QUICK)
def test_a_fault(plain_sweep, tmp_path, kind, share, lasting):
    fault = Fault(kind, int(share * plain_sweep.calls), lasting)
    assert check(plain_sweep, tmp_path / "run", fault).failed


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(len(KINDS)))
def test_every_call(full_sweep, tmp_path, turn):
    """Each call fails in one way in each turn; over all turns in every way."""
    broken = []
    for at in range(full_sweep.calls):
        kind = KINDS[(at + turn) % len(KINDS)]
        lasting = kind in ("ENOSPC", "EROFS", "EDQUOT") and at // len(KINDS) % 2 == 0
        try:
            check(full_sweep, tmp_path / str(at), Fault(kind, at, lasting))
        except AssertionError as error:
            broken.append(str(error))
    assert not broken, "\n\n".join(broken)
