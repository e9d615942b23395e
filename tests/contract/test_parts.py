"""A part of one's own is one file with a decorator: all the rest follows from its declaration."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import attacks
import defenses
import dpbench
from dpbench.audit import audit
from dpbench.protocol import InputError
from dpbench.report.plots import plots
from dpbench.run import main
from tests.helpers.registries import as_in_a_new_process

FILES = {
    "mine_attack": '''
"""A guess of one brightness."""
import torch
from attacks import labels
from attacks.base import Attack, attack
from dpbench.protocol import Reconstruction, parameter

@attack("grey-guess")
class GreyGuess(Attack):
    brightness: float = parameter(0.5, "brightness of the guess", symbol="bright", at_least=0, at_most=1)

    def run(self, task):
        images = torch.full((task.release.batch_size, *task.knowledge.image_shape), self.brightness)
        found, source = labels.given_or_inferred(task.release, task.knowledge)
        return Reconstruction(images, found, source, 0.0, images, 1, task.seconds())
''',
    "mine_defence": '''
"""A gradient of another scale."""
from dataclasses import MISSING
from defenses.base import PostProcessor, defense
from dpbench.protocol import parameter

@defense("scale")
class Scale(PostProcessor):
    factor: float = parameter(MISSING, "what every entry is multiplied by", symbol="factor", above=0)

    def process(self, gradients, generator):
        return tuple(self.factor * g for g in gradients)
''',
    "mine_metric": '''
"""How far the mean brightness is off."""
from dpbench.metrics import metric
from dpbench.store import Column

@metric("shade", columns=(Column("shade", "float64", "measured", "error of the mean brightness"),),
        better="lower")
def shade(scored):
    return {"shade": (scored.images - scored.originals).mean((1, 2, 3)).abs()}
''',
    "mine_plot": '''
"""The error of the brightness by attack."""
from matplotlib.figure import Figure
from dpbench.report.plots.registry import plot

@plot("shade.png")
def drawn(table, store):
    figure = Figure()
    figure.subplots().plot(table["shade"].dropna())
    return figure
''',
    "mine_data": '''
"""Grey pictures."""
import torch
from dpbench.data.datasets import Dataset, dataset

@dataset("greys")
def greys(argument, size):
    images = (torch.arange(12)[:, None, None, None] * 20).expand(12, 3, 32, 32).to(torch.uint8).contiguous()
    half = (0.5, 0.5, 0.5)
    return Dataset("greys", images, torch.arange(12) % 4, 4, half, half, torch.full((3, 32, 32), 0.4))
''',
    "mine_threat": '''
"""A server that may look at the gradient for so long only."""
from dpbench.cell.threat_model import threat_model
from dpbench.cell.threats.honest import Honest
from dpbench.protocol import parameter

@threat_model("hurried")
class Hurried(Honest):
    title = "hurried server"
    minutes: int = parameter(5, "minutes that a hurried server has", symbol="min", at_least=1)

    @classmethod
    def suits(cls, attack):
        return True
''',
}
OTHER = FILES["mine_attack"].replace("grey-guess", "other")
GROUPS = {
    "mine_attack": ("attacks", "grey-guess", "GreyGuess"),
    "mine_defence": ("defenses", "scale", "Scale"),
    "mine_metric": ("metrics", "shade", "shade"),
    "mine_plot": ("plots", "shade.png", "drawn"),
    "mine_data": ("data", "greys", "greys"),
    "mine_threat": ("threat_models", "hurried", "Hurried"),
}
ASKED = [
    "--attack",
    "grey-guess",
    "--brightness",
    "0.25",
    "0.75",
    "--defense",
    "scale",
    "--factor",
    "0.5",
    "2",
]
ASKED += ["--threat-model", "hurried", "--minutes", "5", "9", "--data", "greys", "--victim", "untrained"]
ASKED += ["--batch-size", "1", "--device", "cpu"]
SMALL = ["--attack", "grey-guess", "--defense", "scale", "--victim", "untrained", "--batch-size", "1"]
SMALL += ["--device", "cpu", "--quiet"]


@pytest.fixture
def package(tmp_path) -> Path:
    """A folder with one file for each part."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture
def own_figures_only(monkeypatch):
    """The figures of dpbench have tests of their own."""
    monkeypatch.setattr(plots, "_items", {})


def run(package: Path, *words: str) -> int:
    """The command line with every file as a plugin, in as good as a process of its own."""
    with as_in_a_new_process():
        return main([*words, "--plugin", *map(str, sorted(package.glob("*.py")))])


def load(package: Path, folder: Path) -> pd.DataFrame:
    with as_in_a_new_process():
        dpbench.cell.registered.load([str(file) for file in package.glob("*.py")])
        return dpbench.load(folder)


def attacked(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["floor"].isna()]


@pytest.fixture
def installed(package, monkeypatch):
    """The same files as an installed package with entry points."""
    monkeypatch.syspath_prepend(str(package))
    entries = [
        EntryPoint(name, f"{m}:{item}", f"dpbench.{group}") for m, (group, name, item) in GROUPS.items()
    ]
    monkeypatch.setattr(
        "dpbench.protocol.registry.entry_points", lambda group: [e for e in entries if e.group == group]
    )
    with as_in_a_new_process():
        yield


def check(table: pd.DataFrame, folder: Path) -> None:
    """Columns, combinations, labels, summary, metric and plot of the run that `ASKED` for."""
    rows = attacked(table)
    assert (table["status"] == "ok").all()
    assert set(rows["attack"]) == {"grey-guess"}
    assert set(rows["threat_model"]) == {"hurried"}
    assert set(rows["data"]) == {"greys"}
    defended = rows[rows["defense"] == "scale"]
    found = set(zip(defended["brightness"], defended["factor"], defended["minutes"], strict=True))
    assert found == {(b, f, m) for b in (0.25, 0.75) for f in (0.5, 2.0) for m in (5, 9)}
    assert len(defended) == 8
    assert rows.loc[rows["defense"] == "none", "factor"].isna().all()
    assert rows["shade"].notna().all()
    shown = (folder / "table.md").read_text()
    for words in ("grey-guess", "bright", "factor", "min", "shade"):
        assert words in shown, words
    assert {"brightness", "factor", "minutes"} <= set(pd.read_csv(folder / "summary.csv").columns)
    assert (folder / "shade.png").stat().st_size > 1000


@pytest.mark.usefixtures("own_figures_only")
def test_plugins_are_swept_shown_drawn_and_resumed(package, tmp_path):
    out = tmp_path / "out"
    assert run(package, *ASKED, "--out", str(out), "--quiet") == 0
    check(load(package, out), out)
    written = {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    (out / "table.md").unlink()
    with as_in_a_new_process():  # the configuration knows the plugins
        assert main(["--resume", "--out", str(out), "--quiet"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()} == written
    check(load(package, out), out)


@pytest.mark.usefixtures("own_figures_only")
def test_entry_points_are_found_without_being_asked_for(installed, tmp_path):
    out = tmp_path / "out"
    assert main([*ASKED, "--out", str(out), "--quiet"]) == 0
    check(dpbench.load(out), out)


@pytest.mark.usefixtures("bare_exports")
def test_plugins_travel_to_workers(package, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    assert run(package, *SMALL, "--factor", "2", "--out", str(here)) == 0
    words = ["--executor", "workers", "--workers", "1", "--factor", "2", "--out", str(there)]
    assert run(package, *SMALL, *words) == 0
    times = ["seconds", "compile_seconds"]
    one, other = (load(package, folder).drop(columns=times) for folder in (here, there))
    pd.testing.assert_frame_equal(one, other)


def test_help_names_the_options_of_plugins_with_their_hints(package, capsys):
    with pytest.raises(SystemExit) as end:
        run(package, "--help")
    assert not end.value.code
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "brightness of the guess (grey-guess: 0.5)" in said
    assert "what every entry is multiplied by (scale: none, give one)" in said
    assert "minutes that a hurried server has (hurried: 5)" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--factor needs a value: what every entry is multiplied by."),
        (("--factor", "0"), "--factor must be above 0, not 0."),
        (("--factor", "1", "--brightness", "2"), "--brightness must be at most 1, not 2."),
        (("--factor", "1", "--minutes", "soon"), "--minutes"),
    ],
)
def test_what_a_part_cannot_use_is_one_sentence(package, tmp_path, capsys, words, said):
    assert run(package, *SMALL, *words, "--out", str(tmp_path / "out")) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error


def victim() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)).eval()


def benchmark(**given):
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return dpbench.benchmark(victim(), images, torch.tensor([2]), device="cpu", progress=False, **given)


def test_benchmark_takes_names_and_objects(installed):
    named = attacked(benchmark(attacks="grey-guess", defense="scale", factor=[0.5, 2.0], brightness=0.75))
    assert sorted(named["factor"].dropna()) == [0.5, 2.0]
    assert set(named["brightness"]) == {0.75}
    made = attacked(
        benchmark(
            attacks=attacks.create("grey-guess", brightness=0.25),
            defense=defenses.create("scale", factor=3.0),
        )
    )
    assert set(made["brightness"]) == {0.25}
    assert made["factor"].dropna().tolist() == [3.0]
    with pytest.raises(InputError, match="`factor` needs a value"):
        benchmark(defense="scale")


def test_the_audit_takes_the_defence(installed):
    report = audit(defenses.create("clip+scale", factor=0.5), claimed_eps=1.0, releases=400)
    assert report.failed


@pytest.mark.usefixtures("bare_exports")
@pytest.mark.parametrize("name", ["mine_attack", "mine_defence"])
def test_edited_code_runs_its_cells_again_and_no_others(package, tmp_path, name, capsys):
    out = tmp_path / "out"
    words = [*SMALL[:-1], "--attack", "grey-guess", "dlg", "--defense", "scale", "clip", "--factor", "2"]
    words += ["--iterations", "2", "--out", str(out)]
    assert run(package, *words) == 0
    before = {path.stem for path in (out / "cells").iterdir()}
    old = load(package, out)
    file = package / f"{name}.py"
    file.write_text(file.read_text().replace('"""A', '"""Still a'))  # documentation is no code
    assert run(package, *words) == 0
    assert {path.stem for path in (out / "cells").iterdir()} == before
    for sound, edited in ((".brightness)", ".brightness / 2)"), ("self.factor * g", "-self.factor * g")):
        file.write_text(file.read_text().replace(sound, edited))
    capsys.readouterr()
    assert run(package, *words) == 0
    table = load(package, out)
    assert len(table) == len(old)  # rows of the older code are not counted
    same = set(table["key"]) & set(old["key"])
    part = "attack" if name == "mine_attack" else "defense"
    mine = "grey-guess" if name == "mine_attack" else "scale"
    of_it = table[(table[part] == mine) | (table["floor_of"] == mine)]
    assert not same & set(of_it["key"])
    assert set(table["key"]) - same == set(of_it["key"])
    assert f"{out} holds {len(set(old['key']) - same)} cells of other code or another run" in (
        " ".join(capsys.readouterr().err.split())
    )


@pytest.mark.usefixtures("bare_exports")
def test_cells_of_an_edit_are_set_aside_and_come_back_when_it_is_undone(package, tmp_path, capsys):
    out, file = tmp_path / "out", package / "mine_attack.py"
    words = [*SMALL[:-1], "--defense", "none", "--out", str(out)]
    assert run(package, *words) == 0
    first = {path.name: path.read_bytes() for path in (out / "cells").iterdir()}
    sound = file.read_text()
    file.write_text(sound.replace(".brightness)", ".brightness / 2)"))
    assert main(["--status", str(out)]) == 0
    assert {path.name for path in (out / "cells").iterdir()} == first.keys()  # looking moves nothing
    assert run(package, *words) == 0
    edited = {path.name: path.read_bytes() for path in (out / "cells").iterdir()}
    aside = {path.name: path.read_bytes() for path in (out / "set-aside" / "cells").iterdir()}
    assert aside
    assert {name: first[name] for name in first.keys() - edited.keys()} == aside
    capsys.readouterr()
    file.write_text(sound)
    assert run(package, *words) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"{len(aside)} cells of this run had been set aside" in said
    assert {path.name: path.read_bytes() for path in (out / "cells").iterdir()} == first  # none ran again
    aside = {path.name for path in (out / "set-aside" / "cells").iterdir()}
    assert aside == edited.keys() - first.keys()


@pytest.mark.usefixtures("bare_exports")
def test_an_attack_that_was_mended_ends_well(package, tmp_path):
    out, file = tmp_path / "out", package / "mine_attack.py"
    sound = file.read_text()
    file.write_text(sound.replace("    def run(self, task):", "    def run(self, task):\n        1 / 0"))
    words = [*SMALL, "--defense", "none", "--out", str(out)]
    assert run(package, *words) == 2  # all that was asked for failed
    file.write_text(sound)
    assert run(package, *words) == 0
    assert set(load(package, out)["status"]) == {"ok"}


@pytest.mark.usefixtures("bare_exports")
def test_a_cell_that_was_copied_in_is_not_counted(package, tmp_path, capsys):
    one, other = tmp_path / "one", tmp_path / "other"
    assert run(package, *SMALL, "--factor", "2", "--out", str(one)) == 0
    assert run(package, *SMALL, "--factor", "2", "--batch-seed", "1", "--out", str(other)) == 0
    count = len(load(package, one))
    for path in (other / "cells").iterdir():
        (one / "cells" / path.name).write_bytes(path.read_bytes())
    assert run(package, *SMALL[:-1], "--factor", "2", "--out", str(one)) == 0
    assert "of other code or another run, set aside in" in " ".join(capsys.readouterr().err.split())
    assert len(load(package, one)) == count


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            FILES["mine_attack"].replace("grey-guess", "other").replace("brightness of", "share of"),
            "brightness",
        ),
        (
            FILES["mine_attack"].replace("grey-guess", "other").replace("brightness", "batch_size"),
            "batch_size",
        ),
        (FILES["mine_attack"].replace("grey-guess", "dlg"), "dlg"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import no_such_module_anywhere", "no_such_module_anywhere"),
    ],
)
def test_a_clash_or_a_broken_plugin_is_one_sentence(package, tmp_path, capsys, text, said):
    """Two meanings of one name, a name that is taken, a file that cannot be imported."""
    (package / "mine_zother.py").write_text(text)
    assert run(package, *SMALL, "--factor", "1", "--out", str(tmp_path / "out")) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error
