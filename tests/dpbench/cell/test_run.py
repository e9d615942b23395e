"""One cell from scene to rows: the same whatever ran before, and never an exception."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attacks import engine
from dpbench.cell import parts
from dpbench.cell.floors import Floor
from dpbench.cell.run import measure, run_cell
from dpbench.cell.scene import prepare
from dpbench.protocol import InputError
from dpbench.store import schema
from tests.helpers.cells import cell, dp, part, small_scene, without_times

QUICK = part("inverting-gradients", iterations=3)
NOISY = dp(None, noise_multiplier=0.6)


@pytest.mark.parametrize(
    "given",
    [
        cell(QUICK),
        cell(QUICK, NOISY),
        cell(QUICK, floor=Floor.NOISE_GRADIENT),
        cell("prior-aware", NOISY, part("informed", trials=10)),
    ],
)
def test_same_cell_same_result_whatever_ran_before(given):
    first = run_cell(given)
    torch.rand(17)
    run_cell(cell(QUICK, batch_seed=5))
    again = run_cell(given)
    assert without_times(first.rows) == without_times(again.rows)
    assert torch.equal(first.images, again.images)
    other = run_cell(replace(given, attack_seed=1))
    assert without_times(first.rows) != without_times(other.rows)


def test_the_history_of_the_search_is_handed_over():
    """Also where the floor of its start comes along, and where it searched noise; a guess has none."""
    for given in (cell(QUICK), cell(QUICK, NOISY), cell(QUICK, floor=Floor.NOISE_GRADIENT)):
        history = run_cell(given).history
        assert len(history) == 3
        assert all(isinstance(value, float) for value in history)
        assert list(history) == sorted(history, reverse=True)
    assert run_cell(cell(QUICK, floor=Floor.MEAN_IMAGE)).history == ()


def test_latent_projection_searches_the_generator_that_the_cell_names():
    given = cell(part("latent-projection", iterations=2, restarts=1), generator="cifar10", victim="early")
    result = run_cell(given)
    assert result.rows[0]["status"] == "ok"
    assert result.rows[0]["generator"] == "cifar10"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (cell("nothing"), "Unknown attack"),
        (cell(defence="nothing"), "Unknown defen"),
        (cell(threat="nothing"), "Unknown threat model"),
        (cell(part("dlg", iterations=0)), "`iterations` must be at least 1"),
        (cell(defence=part("dp", eps=-1.0)), "`eps` must be above 0"),
    ],
)
def test_what_cannot_be_run_is_skipped_with_the_reason(given, said):
    result = run_cell(given)
    assert result.status == "skipped"
    assert said in result.rows[0]["error"]
    assert len(result.rows) == given.batch.batch_size
    assert schema.checked(result.rows[0])["key"] == given.key()
    assert "skipped after" in result.log


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (cell(batch_size=21, label_draw="random"), "20 images"),
        (cell(data="folder:/nowhere"), "nowhere"),
    ],
)
def test_a_cell_without_a_batch_has_failed(given, said):
    """It was there when the run was planned, so this is a loss and no combination that is impossible."""
    result = run_cell(given)
    assert result.status == "failed"
    assert {row["error"] for row in result.rows} == {result.rows[0]["error"]}
    assert said in result.rows[0]["error"]
    assert len(result.rows) == given.batch.batch_size
    assert schema.checked(result.rows[0])["key"] == given.key()


@pytest.mark.parametrize("raised", [ZeroDivisionError("by nought"), SystemExit("by nought")])
def test_broken_attack_is_a_failed_row_and_no_exception(monkeypatch, raised):
    def broken(*_, **__):
        raise raised

    monkeypatch.setattr(parts, "attack_of", lambda cell: broken)
    result = run_cell(cell())
    assert result.status == "failed"
    assert len(result.rows) == 2
    assert f"{type(raised).__name__}: by nought (test_run.py:" in result.rows[0]["error"]
    assert "Traceback" in result.log
    assert not result.out_of_memory
    schema.checked(result.rows[0])


def test_an_interrupt_is_not_swallowed(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "attack_of", lambda cell: interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_cell(cell())


def test_memory_that_ran_out_is_named_and_tried_again_without_programs(monkeypatch):
    tried = []

    def starved(*_, **__):
        tried.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(parts, "attack_of", lambda cell: starved)
    monkeypatch.setattr(engine, "kept", lambda: True)
    result = run_cell(cell())
    assert len(tried) == 2
    assert result.out_of_memory
    assert result.rows[0]["error"].startswith("Out of memory: use a smaller `batch_size`")
    monkeypatch.setattr(engine, "kept", lambda: False)
    run_cell(cell())
    assert len(tried) == 3


def test_where_the_scene_is_from_is_the_callers_choice():
    asked = []

    def scenes(batch):
        asked.append(batch)
        return small_scene(2)

    given = cell(QUICK)
    result = run_cell(given, scenes=scenes)
    assert asked == [given.batch]
    assert result.images.shape == (4, 3, 8, 8)


def test_progress_is_told():
    told = []
    run_cell(cell(QUICK), lambda done, total, value: told.append((done, total)))
    assert told[-1] == (3, 3)
    told.clear()
    given = cell("prior-aware", NOISY, part("informed", trials=20, candidates=2))
    measure(given, small_scene(2), lambda done, total, value: told.append((done, total)))
    assert told == [(i + 1, 20) for i in range(20)]


@pytest.mark.parametrize("threat", ["honest", "malicious-linear", "informed"])
def test_user_model_is_left_as_it_was(threat):
    attack = {"honest": QUICK, "malicious-linear": "analytic", "informed": "prior-aware"}[threat]
    given = cell(attack, NOISY, part(threat, trials=10) if threat == "informed" else threat)
    scene = prepare(given.batch)
    before = {name: value.clone() for name, value in scene.victim.model.state_dict().items()}
    measure(given, scene)
    after = scene.victim.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None and not hasattr(p, "grad_sample") for p in scene.victim.model.parameters())


def test_defence_that_hides_everything_leaves_less_than_none():
    attack = part("inverting-gradients", iterations=150)
    undefended = run_cell(cell(attack, batch_size=1)).rows[0]
    defended = run_cell(cell(attack, dp(None, noise_multiplier=5.0), batch_size=1)).rows[0]
    assert undefended["psnr"] > defended["psnr"] + 3


def test_a_defence_that_does_not_fit_is_an_error_of_measure():
    with pytest.raises(InputError, match="Unknown defen"):
        measure(cell(defence="nothing"), small_scene(2))


def test_plugins_are_imported_before_the_scene_is_made(tmp_path):
    """Data sets and networks may be theirs."""
    file = tmp_path / "not_there.py"
    result = run_cell(cell(plugins=(str(file),)), scenes=lambda batch: pytest.fail("too early"))
    assert result.status == "failed"
    assert "There is no file" in result.rows[0]["error"]
