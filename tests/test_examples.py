"""Each file in examples/ is short and runs as it stands."""

import runpy
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
FILES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_runs(file, capsys):
    assert len(file.read_text().splitlines()) <= 40
    runpy.run_path(str(file), run_name="__main__")
    assert capsys.readouterr().out
