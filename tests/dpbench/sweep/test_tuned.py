from dataclasses import replace

import pytest
import tomli_w

from dpbench.cell.rows import conditions, of_tuning
from dpbench.cell.run import run_cell
from dpbench.cell.spec import BatchSpec, Cell, Part, Runtime, Tuning
from dpbench.protocol import InputError
from dpbench.run import main
from dpbench.sweep.options import parse
from dpbench.sweep.plan import plan
from dpbench.sweep.tuned import load, setting
from tests.helpers.plans import MadeUp, attacked, values

pytestmark = pytest.mark.usefixtures("bare_exports")
ATTACK = "inverting-gradients"


@pytest.fixture
def write(tmp_path):
    """A file of tuned values for the settings of some cells."""

    def written(*pairs, attack=ATTACK, **changes):
        content = {
            "attack": attack,
            "data": "samples",
            "batch_seed": [100, 104],
            "check_seed": [105],
            "space": {"learning_rate": {"low": 0.01, "high": 1.0, "log": True}},
            "conditions": [
                {"setting": setting(cell), "values": given, "code": "c", "images": [3, 5]}
                for cell, given in pairs
            ],
        }
        path = tmp_path / "tuned.toml"
        path.write_text(tomli_w.dumps(content | changes))
        return str(path)

    return written


def planned(tuned, code="c", **asked):
    inputs, runtime = MadeUp(code=lambda cell: code), Runtime(device="cpu", version="0")
    return plan(values(**asked), inputs, runtime, change=tuned.applied).cells


def given(cells, defence, floor=None):
    return [c.attack.given for c in cells if c.defence.name == defence and c.floor == floor and c.attack]


def test_every_defence_gets_its_values_and_runs_undefended_with_them_too(write):
    none, clip, dp = attacked(defense=("clip", "dp"))
    tuned = load(write((none, {"learning_rate": 0.2}), (clip, {"learning_rate": 0.5}), (dp, {})))
    cells = planned(tuned, defense=("clip", "dp"))
    assert given(cells, "clip") == [{"learning_rate": 0.5}]
    assert given(cells, "dp") == [{}]
    assert given(cells, "none") == [{"learning_rate": 0.2}, {"learning_rate": 0.5}, {}]
    assert given(cells, "none", "noise-gradient") == given(cells, "none")
    assert tuned.left == {}
    assert tuned.changed(cells) == []
    assert tuned.changed(planned(tuned, code="d", defense=("clip", "dp"))) != []


def test_a_setting_without_values_keeps_the_defaults_and_is_named(write):
    none, clip = attacked(defense=("clip",))
    tuned = load(write((none, {"learning_rate": 0.2}), (clip, {"learning_rate": 0.5})))
    cells = planned(tuned, defense=("clip",), max_grad_norm=(1.0, 2.0))
    assert given(cells, "clip") == [{"learning_rate": 0.5}, {}]
    (line,) = tuned.left
    assert "has no values for clip and batches of 1" in line
    assert next(c.tuned for c in cells if c.defence.given == {"max_grad_norm": 2.0}) is None


def test_more_iterations_are_the_same_setting_and_another_preset_is_not(write):
    (none,) = attacked()
    tuned = load(write((none, {"learning_rate": 0.2})))
    assert given(planned(tuned, iterations=(900,)), "none") == [{"learning_rate": 0.2, "iterations": 900}]
    assert given(planned(tuned, preset=("paper",)), "none") == [{"preset": "paper"}]
    assert len(tuned.left) == 1


def test_what_plays_a_role_under_the_defence_only_is_not_carried_to_the_undefended_cell(write):
    none, prune = attacked(defense=("prune",))
    tuned = load(write((none, {}), (prune, {"adaptive": False, "learning_rate": 0.4})))
    cells = planned(tuned, defense=("prune",))
    assert given(cells, "prune") == [{"adaptive": False, "learning_rate": 0.4}]
    assert given(cells, "none") == [{}, {"learning_rate": 0.4}]


def test_rows_say_where_values_are_from_and_which_images_they_were_tuned_on(write):
    (none,) = attacked()
    tuned = load(write((none, {"learning_rate": 0.2})))
    cell = next(c for c in planned(tuned, code="") if c.attack and not c.floor)
    assert conditions(cell)["tuned"] == f"tuned.toml {tuned.digest}: samples, batch seeds 100 to 105"
    scene = type("Scene", (), {"indices": (5, 6)})
    assert of_tuning(cell, scene) == [{"tuned_on": True}, {"tuned_on": False}]
    assert of_tuning(none, scene) == [{}, {}]
    # the values decide the result, not who chose them
    assert cell.key() == next(c for c in attacked(learning_rate=(0.2,))).key()


def test_what_cannot_be_used_is_refused(write, tmp_path):
    (none,) = attacked()
    path = write((none, {"learning_rate": 0.2}))
    with pytest.raises(InputError, match="`learning_rate` is one of the parameters that `tuned` decides"):
        planned(load(path), learning_rate=(0.1,))
    with pytest.raises(InputError, match="has values for inverting-gradients: give that as `attack`"):
        planned(load(path), attack=("dlg",))
    with pytest.raises(InputError, match="`learning_rate` must be above 0"):
        load(write((none, {"learning_rate": 0.0})))
    with pytest.raises(InputError, match=r"tuned\.toml: inverting-gradients has no parameter 'lerning_rate'"):
        load(write((none, {"lerning_rate": 0.1})))
    for broken in ({"conditions": 3}, {"space": 1}, {"batch_seed": [], "check_seed": []}):
        with pytest.raises(InputError, match="holds no tuned values"):
            load(write((none, {}), **broken))
    (tmp_path / "other.toml").write_text("attack = 'dlg'\n")
    with pytest.raises(InputError, match="holds no tuned values"):
        load(str(tmp_path / "other.toml"))
    with pytest.raises(InputError, match="Unknown attack"):
        load(write((none, {}), attack="nobody"))


def test_a_run_takes_the_file(write, capsys):
    words = ["--defense", "none", "--model", "lenet", "--victim", "untrained", "--batch-size", "1"]
    words += ["--iterations", "1", "--device", "cpu", "--dry-run"]
    options = {name: value for name, value in parse(words).items() if isinstance(value, tuple)}
    cell = plan(options, MadeUp(), Runtime(device="cpu", version="0")).cells[0]
    path = write((cell, {"learning_rate": 0.25}))
    assert main([*words, "--tuned", path]) == 0
    shown = capsys.readouterr()
    assert "inverting-gradients iterations=1 learning_rate=0.25 on none" in shown.out
    assert f"The code of attacks, defences or metrics has changed since {path} was made." in shown.err
    assert main([*words, "--tuned", path, "--learning-rate", "1"]) == 2
    assert "--learning-rate is one of the parameters that --tuned decides" in capsys.readouterr().err


def test_a_result_says_which_images_were_tuned_on():
    batch = BatchSpec(
        data="samples",
        images_digest="",
        batch_size=2,
        batch_seed=0,
        label_draw="distinct",
        model="lenet",
        norm="none",
        victim="untrained",
        weights_digest="",
    )
    attack = Part(name=ATTACK, parameters=(("iterations", 1), ("preset", "paper")))
    tuning = Tuning(source="here", data="samples", places=(0, 1, 2, 3))
    runtime = Runtime(device="cpu", engine="eager", version="0")
    result = run_cell(Cell(batch=batch, attack=attack, runtime=runtime, tuned=tuning))
    assert result.status == "ok", result.log
    for row in result.rows:
        assert row["tuned"] == "here"
        assert row["tuned_on"] is (row["original_index"] < 4)
    elsewhere = replace(tuning, data="cifar10")
    result = run_cell(Cell(batch=batch, attack=attack, runtime=runtime, tuned=elsewhere))
    assert not any(row["tuned_on"] for row in result.rows)
