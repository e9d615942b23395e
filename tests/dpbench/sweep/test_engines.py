"""Which engine the cells of a sweep run on, how often they compile, and what is left where one breaks."""

from __future__ import annotations

import pytest
import torch
from dpbench.cell.grid import MEAN_IMAGE, NOISE_GRADIENT

from attacks.engine import programs
from attacks.engine.choice import BREAK_EVEN
from attacks.engine.runners import Direct
from dpbench.cell import trial
from dpbench.protocol import InputError
from dpbench.sweep import engines
from dpbench.sweep import executors as executor

from ..cell.test_trial import cell, dp, without_times

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_programs():
    programs.forget()
    yield
    programs.forget()


def compiled(**changed):
    return cell(**{"engine": "compiled", "model": "lenet", "batch_size": 1, "iterations": 2, **changed})


def ran(cells):
    """(status, engine, error) of each cell's first row, and all rows."""
    results = [result for _, result in executor.create("local", "cpu")(cells, lambda *_: None)]
    said = [(row["status"], row.get("engine"), row.get("error")) for row in (r.rows[0] for r in results)]
    return said, [result.rows for result in results]


def test_fifty_cells_of_a_shape_compile_once(traces):
    """Other images, labels, defences, noise, seeds and learning-rate schedules are no other program."""
    cells = [
        c
        for seed in range(10)
        for c in (
            compiled(batch_seed=seed),
            compiled(batch_seed=seed, attack_seed=1, iterations=3),
            compiled(batch_seed=seed, defense="clip", max_grad_norm=1.0, adaptive=True),
            compiled(batch_seed=seed, defense="noise", noise_std=0.01),
            dp(engine="compiled", model="lenet", batch_size=1, iterations=2, batch_seed=seed),
        )
    ]
    said, rows = ran(cells)
    assert len(cells) == 50
    assert said == [("ok", "compiled", None)] * 50
    assert len(traces) == 1
    assert [row[0]["compile_seconds"] > 0 for row in rows].count(True) == 1


def test_another_shape_compiles_again(traces):
    said, _ = ran([compiled(), compiled(batch_size=2), compiled(batch_seed=1)])
    assert said == [("ok", "compiled", None)] * 3
    assert len(traces) == 2


def test_a_cells_result_does_not_depend_on_the_program_being_there(traces):
    first = trial.run_cell(compiled())
    trial.run_cell(compiled(batch_seed=1))
    again = trial.run_cell(compiled())
    assert without_times(first.rows) == without_times(again.rows)
    assert torch.equal(first.images, again.images)
    assert len(traces) == 1


def raising(error):
    """A way to break: the search raises `error`."""

    def how(cell, usual, monkeypatch):
        def run(*_):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(Direct, "run", run)
            return usual(cell)

    return how


out_of_memory = raising(torch.OutOfMemoryError("Tried to allocate 20.00 GiB"))
card_error = raising(torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))


def not_a_number(cell, usual, monkeypatch):
    attacked = trial.attacked

    def astray(cell, scene, *rest):
        for parameter in scene.victim.model.parameters():
            parameter.data.fill_(torch.nan)
        return attacked(cell, scene, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(trial, "attacked", astray)
        return usual(cell)


def breaks(how, seed, monkeypatch):
    """Lets the cell with that batch seed break."""
    usual = executor.run_cell

    def run_cell(cell, progress):
        if cell.batch_seed == seed:
            return how(cell, lambda cell: usual(cell, progress), monkeypatch)
        return usual(cell, progress)

    monkeypatch.setattr(executor, "run_cell", run_cell)


@pytest.mark.parametrize(
    ("how", "reason"),
    [(out_of_memory, "Out of memory: use a smaller --batch-size"), (not_a_number, "was NaN or infinite")],
)
@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_a_cell_that_breaks_is_recorded_and_the_next_runs(how, reason, engine, traces, monkeypatch):
    cells = [compiled(batch_seed=seed, engine=engine) for seed in range(3)]
    alone, _ = ran(cells[2:])
    programs.forget()
    breaks(how, 1, monkeypatch)
    said, _ = ran(cells)
    assert [status for status, *_ in said] == ["ok", "failed", "ok"]
    assert reason in said[1][2]
    assert said[2] == alone[0]


@pytest.mark.parametrize("how", [out_of_memory, card_error])
def test_a_card_that_fails_leaves_no_program_behind(how, traces, monkeypatch):
    """A graph on such a card could not be trusted, or its memory is wanted."""
    breaks(how, 1, monkeypatch)
    ran([compiled()])
    assert programs._programs
    ran([compiled(batch_seed=1, batch_size=2)])
    assert not programs._programs


def test_any_other_failure_costs_the_next_cell_no_compilation(traces, monkeypatch):
    breaks(not_a_number, 1, monkeypatch)
    said, _ = ran([compiled(batch_seed=seed) for seed in range(3)])
    assert [status for status, *_ in said] == ["ok", "failed", "ok"]
    assert len(traces) == 1


def test_programs_of_earlier_cells_make_room_before_a_cell_fails(traces, monkeypatch):
    """Whether a cell fits must not depend on what ran before it."""
    usual = Direct.run

    def run(self, *rest):
        if programs.kept() > 1:
            raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB")
        usual(self, *rest)

    monkeypatch.setattr(Direct, "run", run)
    said, _ = ran([compiled(), compiled(batch_size=2), compiled(batch_size=2, batch_seed=1)])
    assert said == [("ok", "compiled", None)] * 3
    assert len(traces) == 3  # the second cell's program was made twice


def test_memory_that_is_short_for_the_card_itself_is_said_and_is_said_once(monkeypatch):
    begun = []

    def set_device(card):
        begun.append(card)
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    result = trial.run_cell(compiled(engine="eager"), card=3)
    assert begun == [3]
    assert result.out_of_memory
    assert result.rows[0]["error"].startswith("Out of memory: use a smaller --batch-size")
    assert not trial.run_cell(compiled(engine="eager")).out_of_memory


def test_a_compiler_that_fails_is_named_in_the_row_and_the_next_cell_tries_again(traces, monkeypatch):
    working = torch._inductor.compile

    def once(*arguments):
        monkeypatch.setattr("torch._inductor.compile", working)
        raise RuntimeError("no C++ compiler\nanywhere")

    monkeypatch.setattr("torch._inductor.compile", once)
    with pytest.warns(UserWarning, match="no C"):
        said, rows = ran([compiled(), compiled(batch_seed=1)])
    assert said[0] == ("ok", "eager (compiled failed: RuntimeError: no C++ compiler anywhere)", None)
    assert said[1] == ("ok", "compiled", None)
    assert without_times(rows[0])[0]["psnr"] == trial.run_cell(compiled(engine="eager")).rows[0]["psnr"]


def test_auto_counts_the_iterations_of_all_cells_that_share_a_program():
    def settled(count, **changed):
        asked = {"engine": "auto", "iterations": BREAK_EVEN["cpu"] // 5} | changed
        return {c.engine for c in engines.choose(compiled(batch_seed=seed, **asked) for seed in range(count))}

    assert settled(4) == {"eager"}
    assert settled(5) == {"compiled"}
    assert settled(3, restarts=2) == {"compiled"}
    assert settled(4, engine="compiled") == {"compiled"}
    assert settled(9, engine="eager") == {"eager"}


def test_auto_decides_for_each_program_on_its_own():
    many = [compiled(engine="auto", batch_seed=seed, iterations=BREAK_EVEN["cpu"] // 4) for seed in range(4)]
    defended = dp(engine="auto", model="lenet", batch_size=1, iterations=1)
    noise = compiled(engine="auto", attack=NOISE_GRADIENT, floor_of="inverting-gradients", iterations=1)
    few = [compiled(engine="auto", **changed) for changed in ({"batch_size": 2}, {"model": "convnet"})]
    pruned = {"defense": "clip+prune", "max_grad_norm": 1.0, "prune_ratio": 0.5, "prune_scope": "layer"}
    few.append(compiled(engine="auto", adaptive=True, **pruned))  # masks are part of the program
    found = [c.engine for c in engines.choose([*many, defended, noise, *few])]
    assert found == ["compiled"] * 6 + ["eager"] * 3


def test_terms_of_gradinversion_are_programs_of_their_own():
    asked = {"engine": "auto", "attack": "gradinversion", "restarts": 1, "preset": "tuned"}
    asked["iterations"] = BREAK_EVEN["cpu"] // 2 + 1
    alike = [compiled(**asked, terms="fidelity", batch_seed=seed) for seed in range(2)]
    other = compiled(**asked, terms="gradient")
    assert [c.engine for c in engines.choose([*alike, other])] == ["compiled", "compiled", "eager"]


def test_layerwise_matching_is_a_program_of_its_own_whichever_preset_it_comes_from():
    asked = {"engine": "auto", "attack": "gradinversion", "restarts": 1, "terms": "fidelity"}
    asked |= {"iterations": BREAK_EVEN["cpu"] // 2 + 1, "preset": "tuned"}
    angle, layers = (compiled(**asked, matching=way) for way in ("cosine", "layer-l2"))
    usual = compiled(**asked, batch_seed=1)
    assert [c.engine for c in engines.choose([angle, layers])] == ["eager", "eager"]
    assert [c.engine for c in engines.choose([angle, usual])] == ["compiled", "compiled"]


def test_attacks_without_a_search_are_eager():
    cells = [compiled(engine="compiled", attack=name, iterations=None) for name in ("dlg", "analytic")]
    cells.append(compiled(engine="compiled", attack=MEAN_IMAGE, iterations=None))
    assert [c.engine for c in engines.choose(cells)] == ["eager"] * 3


def test_the_engine_is_part_of_the_key_and_settling_is_the_same_every_time():
    cells = [compiled(engine="auto", batch_seed=seed) for seed in range(3)]
    assert engines.choose(cells) == engines.choose(engines.choose(cells))
    assert engines.choose(reversed(cells)) == engines.choose(cells)[::-1]
    assert len({compiled(engine=name).key() for name in ("eager", "compiled", "graph")}) == 3


def test_an_engine_that_the_device_cannot_run():
    with pytest.raises(InputError, match="`device` cuda"):
        engines.choose([compiled(engine="graph")])
