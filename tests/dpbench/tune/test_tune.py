import sys
import tomllib
from collections import Counter
from types import SimpleNamespace

import pytest

from attacks.base import attacks
from dpbench.protocol import InputError, parameters
from dpbench.store.columns import columns
from dpbench.tune.__main__ import main


def conditions(folder):
    return tomllib.loads((folder / "tuned.toml").read_text())["conditions"]


def test_the_best_value_of_each_defence_is_found(tune, script):
    none, clip = tune(defense="clip", trials=20)
    assert 0.05 < none.values["strength"] < 0.2
    assert 5 < clip.values["strength"] < 20
    for found in (none, clip):
        assert found.best.value > found.trials[0].value
        assert found.better
        assert found.checks[1] > found.checks[0]
        assert found.sentence().startswith("scripted on ")


def test_what_is_better_lower_is_made_small(tune, script, monkeypatch):
    """As LPIPS is, which no image of 8 pixels has: PSNR stands in for it."""
    assert columns()["lpips"].better == "lower"
    monkeypatch.setattr("dpbench.tune.measure.columns", lambda: {"psnr": SimpleNamespace(better="lower")})
    (found,) = tune(trials=12)
    assert found.best.value == min(trial.value for trial in found.trials) < found.trials[0].value
    assert found.better
    assert found.checks[1] < found.checks[0]


def test_lpips_that_is_not_measured_is_refused(tune, script, monkeypatch):
    monkeypatch.setattr("dpbench.tune.setting.metrics.why_no_lpips", lambda *_: None)
    with pytest.raises(InputError, match="rebuilds no images here, so lpips"):
        tune(metric="lpips")  # of 8 pixels there is none


def test_every_setting_has_the_same_trials_batches_and_iterations(tune, script):
    none, clip = tune(defense="clip", iterations=2, batch_seed=(100, 103), trials=4)
    assert len(none.trials) == len(clip.trials) == 4
    # the estimator has no say yet, so all settings try the same values
    assert [each.values for each in none.trials] == [each.values for each in clip.trials]
    counts = Counter(stage for stage, _, _ in script.ran)
    assert counts["none"] == counts["clip"] == 4 * 2 + 2 * 2
    assert {iterations for _, _, iterations in script.ran} == {2}


def test_an_interrupted_tuning_goes_on_and_ends_the_same(tune, script, tmp_path):
    tune("whole", defense="clip", trials=10)
    whole, searches = conditions(tmp_path / "whole"), len(script.ran)

    def interrupt(strength):
        if len(script.ran) == searches + 15:
            raise KeyboardInterrupt

    script.told = interrupt
    with pytest.raises(KeyboardInterrupt):
        tune("again", defense="clip", trials=10)
    assert not (tmp_path / "again" / "tuned.toml").exists()
    tune("again", defense="clip", trials=10)
    again = conditions(tmp_path / "again")
    assert len(script.ran) == 2 * searches + 1  # the one that was interrupted
    for each in (*whole, *again):
        for trial in each["trials"]:
            del trial["seconds"]
    assert again == whole


def test_the_file_says_where_the_values_are_from(tune, script, tmp_path):
    tune(batch_seed=(200, 205), check_seed=(300,))
    stored = tomllib.loads((tmp_path / "tuned" / "tuned.toml").read_text())
    assert (stored["batch_seed"], stored["check_seed"]) == ([200, 205], [300])
    assert stored["space"] == {"strength": {"low": 0.01, "high": 100.0, "log": True}}
    assert (stored["metric"], stored["trials"], stored["tuning_seed"]) == ("psnr", 6, 0)
    assert {"packages", "platform", "git"} <= stored["environment"].keys()
    (only,) = stored["conditions"]
    assert len(only["trials"]) == 6
    assert only["trials"][0]["values"] == {}
    assert only["default"] == only["trials"][0]["value"]
    assert len(only["images"]) == 3
    assert len(only["code"]) == 16


def test_the_defaults_stay_where_nothing_does_better(tune, script):
    script.best = {"none": 1.0}
    (found,) = tune()
    assert found.values == {}
    assert "no values did better than the defaults" in found.sentence()


def test_the_defaults_stay_where_the_check_speaks_against_the_best(tune, script, monkeypatch):
    runs = []
    script.told = runs.append
    (found,) = tune("first")
    tuned_on = len(runs) - 2

    def turned(strength):  # from the check on, the defaults are best
        if len(script.ran) > tuned_on:
            script.best = {"none": 1.0}

    script.ran.clear()
    script.told = turned
    (found,) = tune("second")
    assert found.best.values
    assert found.values == {}
    assert found.sentence().endswith("no better there, so the defaults stay.")


def test_a_trial_that_breaks_counts_as_one(tune, script):
    def broken(strength):
        if strength > 1:
            raise FloatingPointError("too strong")

    script.told = broken
    (found,) = tune()
    values = [each.value for each in found.trials]
    assert len(values) == 6
    assert None in values
    assert found.best.values["strength"] < 1


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"batch_seed": (1000,)}, "seeds 100 to 999, as all others are for results: 1000"),
        ({"batch_seed": (7, 100)}, "7 cannot be a `batch_seed`"),
        ({"batch_seed": (999,)}, "1000 cannot be a `check_seed`"),
        ({"check_seed": (100,)}, "Batch 100 is in `batch_seed` and in `check_seed`"),
        ({"attack": ("scripted", "dlg")}, "One `attack` is tuned at a time"),
        ({"attack": "label-restoration"}, "No parameter of label-restoration has a declared range"),
        ({"parameters": ("strenght",)}, "no parameter 'strenght'"),
        ({"parameters": ("iterations",)}, "iterations of scripted has no range"),
        ({"parameters": ("mood",)}, "mood of scripted has no range"),
        ({"iterations": (1, 2)}, "one value of `iterations`"),
        ({"trials": 1}, "`trials` must be at least 2"),
        ({"suite": "quick"}, "A tuning takes no suite"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_anything_is_run(tune, script, wrong, why):
    with pytest.raises(InputError, match=why):
        tune(**wrong)
    assert script.ran == []


def test_a_value_that_is_chosen_cannot_be_given(tune, script):
    with pytest.raises(InputError, match="`strength` is among the `parameters` that are chosen"):
        tune(strength=2.0)


def test_an_attack_that_cannot_run_is_refused_with_its_reason(tune, script):
    with pytest.raises(InputError, match="An attack has no result, so it cannot be tuned"):
        tune(attack="latent-projection", batch_seed=(100,))


def test_without_optuna_one_sentence_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "Tuning needs optuna: pip install 'dpbench[tune]'.\n"
    assert not (tmp_path / "out").exists()


def test_the_command_line_takes_the_words_and_shows_what_came_of_it(script, tmp_path, capsys):
    words = "--attack scripted --data tiny --model lenet --victim untrained --defense none"
    words += " --batch-seed 100 --trials 3"
    assert main([*words.split(), "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == f"{tmp_path / 'out'}/tuned.toml"
    assert "tiny has 840 batches of 1 without a common image" in shown.err
    assert main(["--batch-seed", "1000", "--out", str(tmp_path / "other")]) == 2
    assert "--batch-seed" in capsys.readouterr().err


def test_ranges_lie_where_values_are_allowed():
    for name in attacks:
        for each in parameters(attacks[name]).values():
            if each.tuning is not None:
                low, high = each.tuning
                assert low < high
                assert (each.checked(low), each.checked(high)) == (low, high)
