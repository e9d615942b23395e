"""Every attack, defence and threat model on a device that is not the CPU; see `tests/helpers/card.py`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import attacks
import defenses
from tests.helpers.on_card import CELLS

MIXES = """
import torch
from tests.helpers.card import plug_in
there = plug_in()
assert (torch.ones(2, device=there) + 1).cpu().tolist() == [2, 2]
x = torch.ones(2, device=there)
for wrong in (lambda: x + torch.ones(2), lambda: x.numpy()):
    try:
        wrong()
    except (RuntimeError, TypeError) as error:
        print(error)
"""


def run(*words):
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def found():
    return json.loads(run("-m", "tests.helpers.on_card").splitlines()[-1])


@pytest.mark.parametrize("name", [*attacks.names(), *defenses.names(), *CELLS])
def test_it_runs_there_and_gives_the_same(name, found):
    assert found[name] == "same"


def test_the_card_refuses_what_a_real_one_would():
    mixed, numpy = run("-c", MIXES).splitlines()
    assert "same device" in mixed
    assert "numpy" in numpy.lower() or "convert" in numpy
