"""Whole frontiers of an attack that takes milliseconds, and whose success is written in a script."""

import html
import json
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from dpbench import privacy
from dpbench.data import datasets
from dpbench.frontier import frontier, ranking
from dpbench.frontier.__main__ import main
from dpbench.frontier.evidence import MEANING, Verdict
from dpbench.protocol import InputError
from dpbench.report import export
from dpbench.report.plots import files, plots
from tests.helpers.tiny import tiny


@pytest.fixture(scope="module")
def measured(usual, script, tmp_path_factory):
    """A leak up to σ 0.1 and none at 1: the frontier, its folder, and the cells that were run for it."""
    folder = tmp_path_factory.mktemp("measured")
    drawn, run = [], script(lambda sigma: sigma < 1)
    with pytest.MonkeyPatch.context() as patch:
        own = {name: draw for name, draw in plots.items() if name.startswith("frontier")}
        patch.setattr(export, "plots", own)  # as many as show that it is the usual export, and how often
        patch.setattr(
            export.files, "draw", lambda *given, draw=files.draw: drawn.append(given) or draw(*given)
        )
        (found,) = frontier(folder, **usual, train_size=20_000, epochs=3.0)
    return SimpleNamespace(found=found, folder=folder, run=run, drawn=[plot.name for plot, *_ in drawn])


def test_each_level_stops_at_its_verdict(measured):
    levels = measured.found.levels
    assert [level.verdict for level in levels] == [Verdict.LEAK, Verdict.LEAK, Verdict.NONE]
    assert [level.rates[0].trials for level in levels] == [1, 1, 59]
    assert (measured.found.leak_up_to.sigma, measured.found.none_from.sigma) == (0.1, 1.0)
    assert len(measured.run) == len({*measured.run}) == 2 + 2 + 60  # two batches are begun together


def test_the_same_command_again_runs_nothing(usual, script, measured):
    run = script(lambda sigma: sigma < 1)
    assert frontier(measured.folder, **usual, train_size=20_000, epochs=3.0) == [measured.found]
    assert run == []


def test_what_is_written(measured):
    (stored,) = json.loads((measured.folder / "frontier.json").read_text())["frontiers"]
    assert stored["sentence"] == measured.found.sentence()
    rows = pd.read_csv(measured.folder / "frontier.csv")
    assert rows["verdict"].tolist() == ["leak shown", "leak shown", "not seen by these attacks"]
    assert rows["sigma"].tolist() == [0, 0.1, 1]
    assert rows["rate"].tolist() == [1, 1, 0]
    assert rows["eps_release"].iloc[1:].is_monotonic_decreasing
    assert rows["eps"].iloc[1:].is_monotonic_decreasing
    table = pd.read_parquet(measured.folder / "results.parquet")
    assert table.loc[table["noise_multiplier"] == 1, "ranked_first"].tolist() == [False] * 59
    assert measured.drawn == ["frontier.png", "frontier-exposed.png"]
    for name in ("frontier.png", "plots/frontier-exposed.svg", "table.md", "dpbench-entry.json"):
        assert (measured.folder / name).stat().st_size
    assert stored["meaning"] == MEANING
    assert html.escape(MEANING) in (measured.folder / "report.html").read_text()


def test_the_words_say_what_was_seen_and_promise_nothing(measured):
    words = measured.found.sentence()
    assert "a leak is shown up to σ 0.1 (" in words
    assert "from σ 1 (" in words
    assert "on none is seen by these attacks; what lies between is undecided." in words
    assert "safe" not in (measured.folder / "frontier.json").read_text()


def test_another_setting_does_not_go_into_the_same_folder(usual, measured):
    with pytest.raises(InputError, match="holds a run of another configuration"):
        frontier(measured.folder, **usual)


def test_a_set_of_attacks_leaks_where_one_of_them_does_and_never_passes_then(usual, script, tmp_path):
    script(lambda sigma: True)
    (found,) = frontier(tmp_path / "run", **usual | {"iterations": (1, 2)})
    assert found.attacks == ("instant", "instant (iterations 2)")
    assert all(len(level.rates) == 2 for level in found.levels)
    assert (found.leak_up_to.sigma, found.none_from) == (1.0, None)
    assert "there is no level from which on none is seen by these attacks" in found.sentence()


def test_levels_where_the_sequences_ended_are_undecided_and_those_between_curve_only(usual, script, tmp_path):
    """No leak at 0.1 and one at 0.3 end the sequences before they come to 0.2."""
    script(lambda sigma: sigma in (0, 0.2, 0.3))
    (found,) = frontier(tmp_path, **usual | {"levels": (0.1, 0.2, 0.3, 0.4)})
    seen = {level.noise.sigma: (level.verdict, level.rates[0].trials) for level in found.levels}
    assert seen == {
        0: (Verdict.LEAK, 1),
        0.1: (Verdict.UNDECIDED, 59),
        0.2: (None, 10),
        0.3: (Verdict.UNDECIDED, 1),
        0.4: (Verdict.NONE, 59),
    }
    assert (found.leak_up_to, found.none_from.sigma) == (None, 0.4)
    rows = pd.read_csv(tmp_path / "frontier.csv").set_index("sigma")["verdict"]
    assert rows[rows == "leak shown"].index.tolist() == [0]


def test_it_refuses_where_the_attack_fails_undefended(usual, script, tmp_path, monkeypatch):
    monkeypatch.setattr(ranking, "MOST", 6)
    monkeypatch.setattr(ranking, "FEWEST", 6)
    script(lambda sigma: False)
    with pytest.raises(InputError, match="not seen to succeed without a defence"):
        frontier(tmp_path / "run", **usual)
    assert not (tmp_path / "run" / "frontier.json").exists()


def test_a_curve_of_attacks_that_fail_undefended_says_that_it_says_nothing(usual, script, tmp_path):
    said = []
    for name, succeeds in (("works", lambda sigma: sigma == 0), ("fails", lambda sigma: False)):
        script(succeeds)
        (found,) = frontier(tmp_path / name, quick=True, **usual)
        said.append(found.sentence())
    assert said[0].endswith("This is a curve without verdicts.")
    assert said[1].endswith("and as no attack succeeded undefended it says nothing about a defence.")


def test_the_certified_frontier_stands_beside_it(usual, script, tmp_path):
    script(lambda sigma: True)
    (found,) = frontier(tmp_path, **usual, quick=True)
    assert {kappa: round(noise.sigma, 2) for kappa, noise in found.certified.items()} == {
        "0.1": 4.08,
        "0.005": 1.02,
    }
    assert not found.tested
    assert "curve without verdicts" in found.sentence()
    assert [level.rates[0].trials for level in found.levels] == [10, 10, 10]


def test_too_few_batches_for_a_verdict_are_said_beforehand(usual, script, tmp_path, monkeypatch):
    monkeypatch.setattr(ranking, "MOST", 58)
    with pytest.raises(InputError, match="takes up to 59 disjoint batches or more, and there are 58"):
        frontier(tmp_path, **usual)
    assert not list(tmp_path.glob("cells/*"))


def test_the_certified_noise_is_for_all_releases(usual, script, tmp_path):
    script(lambda sigma: True)
    (found,) = frontier(tmp_path, **usual | {"releases": 16, "levels": (1.0,)}, quick=True)
    assert found.certified["0.1"].sigma == pytest.approx(4 * 4.08, rel=1e-3)
    assert found.certified["0.1"].eps_release == pytest.approx(privacy.epsilon(4.08, 1e-5), rel=1e-3)


def test_each_threat_models_epsilon_is_that_of_the_releases_it_sees(usual, script, tmp_path):
    """Poisson sampling hides something from the informed attacker, and nothing from the server."""
    script(lambda sigma: True)
    attackers = {"attack": ("prior-aware", "analytic"), "inclusion": 0.1, "releases": 4}
    found = frontier(tmp_path, **usual | attackers | {"levels": (1.0,)}, quick=True)
    assert [each.threat_model for each in found] == ["informed", "malicious-linear"]
    sampled, whole = (each.levels[-1].noise.eps_release for each in found)
    assert sampled == pytest.approx(privacy.epsilon(1.0, 1e-5, 0.1, 4))
    assert whole == pytest.approx(privacy.epsilon(1.0, 1e-5, 1.0, 4))
    assert found[1].certified["0.1"].eps_release == pytest.approx(privacy.epsilon(4.08, 1e-5), rel=1e-3)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"data": "samples"}, "A frontier needs 200 images of each label or more"),
        ({"defense": "prune"}, "of one `defense` that takes a noise multiplier, such as dp"),
        ({"defense": ("dp", "none")}, "of one `defense` that takes a noise multiplier"),
        ({"batch_size": (1, 2)}, "of one setting: give one value of each option but `attack`"),
        ({"attack_seed": (0, 1)}, "of one setting: give one value of each option but `attack`"),
        ({"releases": (1, 16)}, "of one setting: give one value of each option but `attack`"),
        ({"labels": ("known", "inferred")}, "of one setting: give one value of each option but `attack`"),
        ({"attack": "label-restoration"}, "rebuilds no images, and a frontier ranks images"),
        ({"model": "resnet20", "bn_stats": "exact"}, "`bn_stats` leave the client without noise"),
        ({"levels": (0.0,)}, "`levels` must be different noise multipliers above 0"),
        ({"train_size": 0}, "`train_size` must be"),
        ({"train_size": 1, "batch_size": 2}, "train"),
        ({"eps": 1.0}, "takes no eps .*; it takes"),
        ({"batch_seed": 3}, "takes no batch_seed .*; it takes"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_sentence(usual, tmp_path, changed, sentence):
    with pytest.raises(InputError, match=sentence):
        frontier(tmp_path / "run", **usual | changed)
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_folders_place_is_refused_before_images_are_loaded(usual, tmp_path, monkeypatch):
    monkeypatch.setattr("dpbench.frontier.command.Setting", None)  # calling it would fail
    (tmp_path / "thesis.doc").write_text("")
    with pytest.raises(InputError, match=r"thesis.doc is a file, not a folder for results: name another"):
        frontier(tmp_path / "thesis.doc", **usual)


@pytest.fixture
def bare(usual, monkeypatch):
    """Keywords of a frontier of data that brings no statistics of other images."""
    monkeypatch.setitem(datasets._items, "bare", lambda argument, size: replace(tiny(), statistics=None))
    return usual | {"data": "bare"}


@pytest.mark.parametrize("attack", ["analytic", "inverting-gradients", "peel", "spear"])
def test_without_public_statistics_an_attack_that_uses_them_would_know_the_decoys(bare, tmp_path, attack):
    with pytest.raises(InputError, match=f"so {attack} would learn from the decoys: give"):
        frontier(tmp_path / "run", **bare | {"attack": attack})
    assert not (tmp_path / "run").exists()


def test_a_search_without_a_prior_needs_no_public_statistics(bare, script, tmp_path):
    script(lambda sigma: True)
    given = {"attack": "inverting-gradients", "preset": "paper", "iterations": 1, "levels": (1.0,)}
    (found,) = frontier(tmp_path, **bare | given, quick=True)
    assert found.levels[0].rates[0].trials == 10


def test_the_command_line(usual, script, tmp_path, capsys):
    script(lambda sigma: True)
    words = ["--data", "tiny", "--attack", "instant", "--victim", "untrained", "--model", "lenet"]
    words += ["--batch-size", "1", "--levels", "0.1", "1", "--device", "cpu", "--quick"]
    assert main(words) == 2
    assert capsys.readouterr().err == "Give the folder for the results as --out.\n"
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert "10 of 10 undefended, 10 of 10 at σ 0.1, 10 of 10 at σ 1" in capsys.readouterr().out
    assert main([*words, "--out", str(tmp_path / "run"), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main([*words, "--out", str(tmp_path / "new"), "--defense", "clip"]) == 2
    assert "one --defense that takes a noise multiplier" in capsys.readouterr().err
