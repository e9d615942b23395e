"""Which engine the cells of a sweep run on, how often they compile, and what is left where one breaks."""

from __future__ import annotations

import pytest
import torch

from attacks.engine import programs
from attacks.engine.choice import BREAK_EVEN
from attacks.engine.runners import Direct
from dpbench.cell import release, run
from dpbench.cell.floors import Floor
from dpbench.protocol import InputError
from dpbench.sweep import engines, executors
from dpbench.sweep.executors import local
from tests.helpers.cells import cell, dp, part, without_times

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_programs():
    programs.forget()
    yield
    programs.forget()


SEARCH = "inverting-gradients"


def compiled(defence="none", name=SEARCH, given=(), **changed):
    """A cell of that attack with `given` parameters, two iterations long unless they say otherwise."""
    attack = part(name, **({"iterations": 2} | dict(given)))
    return cell(attack, defence, **{"engine": "compiled", "model": "lenet", "batch_size": 1, **changed})


def ran(cells):
    """(status, engine, error) of each cell's first row, and all rows."""
    results = [result for _, result in executors.create("local", "cpu")(cells, lambda *_: None)]
    said = [(row["status"], row.get("engine"), row.get("error")) for row in (r.rows[0] for r in results)]
    return said, [result.rows for result in results]


def test_fifty_cells_of_a_shape_compile_three_times(traces):
    """Other images, labels, noise, seeds and learning-rate schedules are no other program.

    There are three: nearly exact releases are softened, and of exact ones the last layer is read.
    """
    cells = [
        c
        for seed in range(10)
        for c in (
            compiled(batch_seed=seed),
            compiled(given={"iterations": 3}, batch_seed=seed, attack_seed=1),
            compiled(part("clip", max_grad_norm=2.0), batch_seed=seed),
            compiled(part("noise", noise_std=0.02), batch_seed=seed),
            compiled(dp(8.0), batch_seed=seed),
        )
    ]
    said, rows = ran(cells)
    assert len(cells) == 50
    assert said == [("ok", "compiled", None)] * 50
    assert len(traces) == 3
    assert [row[0]["compile_seconds"] > 0 for row in rows].count(True) == 3


def test_another_shape_compiles_again(traces):
    said, _ = ran([compiled(), compiled(batch_size=2), compiled(batch_seed=1)])
    assert said == [("ok", "compiled", None)] * 3
    assert len(traces) == 2


def test_a_cells_result_does_not_depend_on_the_program_being_there(traces):
    first = run.run_cell(compiled())
    run.run_cell(compiled(batch_seed=1))
    again = run.run_cell(compiled())
    assert without_times(first.rows) == without_times(again.rows)
    assert torch.equal(first.images, again.images)
    assert len(traces) == 1


def raising(error):
    """A way to break: the search raises `error`."""

    def how(cell, usual, monkeypatch):
        def broken(*_):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(Direct, "run", broken)
            return usual(cell)

    return how


out_of_memory = raising(torch.OutOfMemoryError("Tried to allocate 20.00 GiB"))
card_error = raising(torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))


def not_a_number(cell, usual, monkeypatch):
    attacked = release.attacked

    def astray(cell, scene, *rest):
        for parameter in scene.victim.model.parameters():
            parameter.data.fill_(torch.nan)
        return attacked(cell, scene, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(release, "attacked", astray)
        return usual(cell)


def breaks(how, seed, monkeypatch):
    """Lets the cell with that batch seed break."""
    usual = local.run_cell

    def run_cell(cell, progress, **more):
        if cell.batch.batch_seed == seed:
            return how(cell, lambda cell: usual(cell, progress, **more), monkeypatch)
        return usual(cell, progress, **more)

    monkeypatch.setattr(local, "run_cell", run_cell)


@pytest.mark.parametrize(
    ("how", "reason"),
    [(out_of_memory, "Out of memory: use a smaller `batch_size`"), (not_a_number, "was NaN or infinite")],
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


@pytest.mark.parametrize(("device", "made"), [("cpu", 5), ("cuda", 10)])
def test_a_cpu_keeps_the_programs_of_a_whole_sweep(device, made):
    programs.forget()
    counts = []
    for _ in range(2):
        for key in range(5):
            programs.cached(key, lambda: counts.append(1), device)
    programs.forget()
    assert len(counts) == made


def test_programs_of_earlier_cells_make_room_before_a_cell_fails(traces, monkeypatch):
    """Whether a cell fits must not depend on what ran before it."""
    usual = Direct.run

    def starved(self, *rest):
        if programs.kept() > 1:
            raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB")
        usual(self, *rest)

    monkeypatch.setattr(Direct, "run", starved)
    said, _ = ran([compiled(), compiled(batch_size=2), compiled(batch_size=2, batch_seed=1)])
    assert said == [("ok", "compiled", None)] * 3
    assert len(traces) == 3  # the second cell's program was made twice


def test_memory_that_is_short_for_the_card_itself_is_said_and_is_said_once(monkeypatch):
    begun = []

    def set_device(card):
        begun.append(card)
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    result = run.run_cell(compiled(engine="eager"), card=3)
    assert begun == [3]
    assert result.out_of_memory
    assert result.rows[0]["error"].startswith("Out of memory: use a smaller `batch_size`")
    assert not run.run_cell(compiled(engine="eager")).out_of_memory


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
    assert without_times(rows[0])[0]["psnr"] == run.run_cell(compiled(engine="eager")).rows[0]["psnr"]


def chosen(cells):
    return [c.runtime.engine for c in engines.choose(cells)]


def long(share, **given):
    """Hyper-parameters of a search for that share of the iterations from which compiling pays."""
    return {"iterations": int(BREAK_EVEN["cpu"] * share) + (share == 0.5), **given}


def test_auto_counts_the_iterations_of_all_cells_that_share_a_program():
    def found(count, engine="auto", **given):
        asked = long(1 / 5, **given)
        return set(chosen(compiled(given=asked, engine=engine, batch_seed=seed) for seed in range(count)))

    assert found(4) == {"eager"}
    assert found(5) == {"compiled"}
    assert found(3, restarts=2) == {"compiled"}
    assert found(4, engine="compiled") == {"compiled"}
    assert found(9, engine="eager") == {"eager"}


def test_auto_decides_for_each_program_on_its_own():
    many = [compiled(given=long(1 / 4), engine="auto", batch_seed=seed) for seed in range(4)]
    once = {"given": {"iterations": 1}, "engine": "auto"}
    defended = compiled(dp(8.0), given={"iterations": 1, "adaptive": False}, engine="auto")
    noise = compiled(**once, floor=Floor.NOISE_GRADIENT)
    few = [compiled(engine="auto", **changed) for changed in ({"batch_size": 2}, {"model": "convnet"})]
    few.append(compiled("clip+prune", engine="auto"))  # masks are part of the program
    assert chosen([*many, defended, noise, *few]) == ["compiled"] * 6 + ["eager"] * 3


def gradinversion(**given):
    seed = given.pop("batch_seed", 0)
    asked = long(0.5, restarts=1) | given
    return compiled(name="gradinversion", given=asked, engine="auto", batch_seed=seed)


def test_terms_of_gradinversion_are_programs_of_their_own():
    alike = [gradinversion(terms="fidelity", batch_seed=seed) for seed in range(2)]
    other = gradinversion(terms="gradient")
    assert chosen([*alike, other]) == ["compiled", "compiled", "eager"]


def test_layerwise_matching_is_a_program_of_its_own_whichever_preset_it_comes_from():
    asked = {"terms": "fidelity"}
    angle, layers = (gradinversion(**asked, matching=kind) for kind in ("cosine", "layer-l2"))
    usual = gradinversion(**asked, batch_seed=1)
    assert chosen([angle, layers]) == ["eager", "eager"]
    assert chosen([angle, usual]) == ["compiled", "compiled"]


def test_attacks_without_a_search_are_eager():
    cells = [cell(part("dlg"), engine="compiled"), cell(None, floor=Floor.MEAN_IMAGE, engine="compiled")]
    cells.append(cell(part("analytic"), threat="malicious-linear", engine="compiled"))
    assert chosen(cells) == ["eager"] * 3


def test_the_engine_is_part_of_the_key_and_the_choice_is_the_same_every_time():
    cells = [compiled(engine="auto", batch_seed=seed) for seed in range(3)]
    assert engines.choose(cells) == engines.choose(engines.choose(cells))
    assert engines.choose(reversed(cells)) == engines.choose(cells)[::-1]
    assert len({compiled(engine=name).key() for name in ("eager", "compiled", "graph")}) == 3


def test_an_engine_that_the_device_cannot_run():
    with pytest.raises(InputError, match="`device` cuda"):
        engines.choose([compiled(engine="graph")])
