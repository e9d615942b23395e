"""Flags about releases, raised by broken defences in real cells, and not by dpbench's own."""

import re
from dataclasses import dataclass, replace

import pytest
import torch

from defenses import Aggregator, Chain, PostProcessor
from dpbench.cell import parts
from dpbench.cell.run import measure, run_cell
from dpbench.report.flags.flag import Results
from dpbench.report.flags.releases import TOO_LONG, UNREPEATABLE, ZERO, too_long
from dpbench.store.schema import frame
from tests.helpers.cells import cell, dp, part, small_scene

QUICK = part("dlg", iterations=2, restarts=1)
BROKEN = (TOO_LONG, UNREPEATABLE, ZERO)


@dataclass(frozen=True, kw_only=True)
class Unclipped(Aggregator):
    """Says C and does not clip."""

    name = "unclipped"
    max_grad_norm: float = 1.0

    def aggregate(self, model, loss, images, labels, generator):
        return torch.autograd.grad(loss(model(images), labels), list(model.parameters()))


@dataclass(frozen=True, kw_only=True)
class Unseeded(PostProcessor):
    """Draws its noise from where no seed reaches."""

    name = "unseeded"

    def process(self, gradients, generator):
        own = torch.Generator()
        own.seed()
        return tuple(g + 0.1 * torch.randn(g.shape, generator=own) for g in gradients)


@dataclass(frozen=True, kw_only=True)
class Nothing(PostProcessor):
    """Sends zeros."""

    name = "nothing"

    def process(self, gradients, generator):
        return tuple(torch.zeros_like(g) for g in gradients)


@pytest.fixture
def of_cells(raised):
    """The flags of real cells about their releases, and the rows they are from."""

    def made(*cells, scene=None):
        rows = [row for each in cells for row in measure(each, scene or small_scene(2)).rows]
        return [flag for flag in raised(rows) if flag.kind in BROKEN], frame(rows)

    return made


@pytest.fixture
def broken(monkeypatch, of_cells):
    """The flags of a cell under `clip`, in whose place the given stages stand."""

    def made(*stages):
        monkeypatch.setattr(parts, "of_one_client", lambda _: Chain(stages))
        return of_cells(cell(QUICK, "clip"))

    return made


@pytest.mark.parametrize(
    "defence",
    [
        "none",
        "clip",
        "prune",
        dp(None, noise_multiplier=0.3),
        dp(None, noise_multiplier=1e-4),
        part("clip+noise", noise_std=0.01),
        part("clip+prune", prune_ratio=0.5),
        part("dp+quantize", noise_multiplier=1.0, eps_scope="release"),
        "noise",
        "outpost",
    ],
)
def test_own_defences_raise_none(of_cells, defence):
    found, table = of_cells(cell(QUICK, defence))
    assert found == []
    defended = table["defense"] != "none"
    assert table["release_repeats"][defended].eq(True).all()
    assert table["release_repeats"][~defended].isna().all()
    assert table["release_norm"][table["floor"].isna()].notna().all()


def test_several_releases_and_a_memory_raise_none(of_cells):
    several = part("honest", releases=3)
    noisy = part("dp-ftrl", noise_multiplier=0.5, eps_scope="release")
    found, table = of_cells(cell(QUICK, dp(None, noise_multiplier=0.5), several), cell(QUICK, noisy, several))
    assert found == []
    assert table["release_norm_limit"].notna().all()


def test_a_clip_norm_that_is_not_kept_is_named_with_both_numbers(broken):
    (flag,), table = broken(Unclipped())
    norm = table["release_norm"].iloc[0]
    assert flag.kind == TOO_LONG
    assert norm > 1.5
    assert f"clip releases gradients of norm {norm:.3g} where clipping to C = 1 and its noise" in flag.text
    assert "allow 1 at most (1 of 1 cell)" in flag.text
    assert flag.keys == (table["key"].iloc[0],)


def test_a_norm_just_above_its_limit_does_not_read_as_equal_to_it(of_cells):
    _, table = of_cells(cell(QUICK, dp(None, noise_multiplier=2.0)))
    limit = table["release_norm_limit"].iloc[0]
    table["release_norm"] = limit * 1.00002
    (flag,) = too_long(Results(table))
    norm, allowed = re.search(r"norm (\S+) where .* allow (\S+) at most", flag.text).groups()
    assert float(norm) > float(allowed)


def test_the_limit_is_that_of_the_noise_too(of_cells, monkeypatch):
    """The measured length lies between half of its limit and the limit: it would see little more."""
    found, table = of_cells(*(cell(QUICK, dp(None, noise_multiplier=2.0), attack_seed=s) for s in range(4)))
    ratio = table["release_norm"] / table["release_norm_limit"]
    assert found == []
    assert ratio.between(0.5, 1).all()
    assert ratio.nunique() == 4


def test_noise_that_no_seed_reaches_is_named(broken):
    (flag,), _ = broken(Unseeded())
    assert flag.kind == UNREPEATABLE
    assert flag.text.startswith("clip does not make the same release twice from the same seed (1 of 1 cell)")


def test_a_release_of_zeros_is_named(raised, monkeypatch):
    """A real cell: this binds the flag to the words of the cell's error."""
    monkeypatch.setattr(parts, "of_one_client", lambda _: Chain((Nothing(),)))
    rows = run_cell(cell(QUICK, "prune"), scenes=lambda _: small_scene(2)).rows
    assert rows[0]["status"] == "skipped"
    assert rows[0]["error"] == "prune releases only zeros, so there is nothing to attack."
    (flag,) = [flag for flag in raised(rows) if flag.kind == ZERO]
    assert "1 cell (prune) had a release of zeros" in flag.text
    monkeypatch.undo()
    other = run_cell(cell(QUICK, part("prune", prune_ratio=2.0)), scenes=lambda _: small_scene(2)).rows
    assert other[0]["status"] == "skipped"
    assert [flag for flag in raised(other) if flag.kind == ZERO] == []


def test_a_victim_without_a_gradient_is_named(raised):
    scene = small_scene(2)
    constant = replace(scene.victim, loss=lambda logits, labels: 0 * logits.sum())
    rows = run_cell(cell(QUICK, "prune"), scenes=lambda _: replace(scene, victim=constant)).rows
    assert rows[0]["error"].startswith("The gradient of this batch is zero")
    assert [flag.kind for flag in raised(rows) if flag.kind == ZERO] == [ZERO]


def test_images_without_a_gradient_are_counted(raised, of_cells):
    scene = small_scene(2)
    with torch.no_grad():  # the victim is sure that anything is of the first image's class
        scene.victim.model[1].bias[scene.labels[0]] = 60.0
    (flag,), table = of_cells(cell(QUICK), scene=scene)
    assert flag.kind == ZERO
    assert flag.text.startswith("1 of 2 attacked images has less than 1e-06 of its batch's gradient norms")
    assert flag.keys == tuple(table["key"].unique())
    found, _ = of_cells(cell(QUICK), scene=small_scene(2))
    assert found == []
