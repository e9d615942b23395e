"""What lies beside a run's results and is shown: frontiers, accuracies."""

import json

import pandas as pd
import pytest

from dpbench.frontier.result import Frontier, Level, Noise, Rate
from dpbench.report.flags import flags
from dpbench.report.page.frontiers import frontiers
from dpbench.report.page.images import FLAGS
from dpbench.report.page.utility import utility
from dpbench.store.schema import frame


@pytest.fixture
def run(make_run, store_of):
    return store_of(make_run(batch_sizes=(1,)))


@pytest.fixture
def measured(run):
    def level(sigma, right, verdict):
        noise = Noise(sigma=sigma, eps=None, eps_release=1 / sigma if sigma else None)
        return Level(noise=noise, rates=(Rate.of("dlg <b>", right, 60),), verdict=verdict)

    found = Frontier(
        threat_model="honest",
        attacks=("dlg <b>",),
        levels=(level(0.0, 50, "leak shown"), level(0.3, 20, "leak shown"), level(3.0, 0, None)),
        leak_up_to=Noise(sigma=0.3),
        none_from=None,
        certified={"0.1": Noise(sigma=4.08)},
        setting={"data": "cifar10"},
    )
    described = {"frontiers": [found.described()]}
    (run.path / "frontier.json").write_text(json.dumps(described))
    return found


def test_a_frontier_is_shown_level_by_level(run, measured, read):
    found = read(run, run.frame())
    _, *rows = found.tables["Frontier, honest"]
    assert len(rows) == 3
    for row, level in zip(rows, measured.levels, strict=True):
        rate = level.rates[0]
        values = [float(value) for cell in row for value in cell["values"]]
        noise = [level.noise.sigma, level.noise.eps_release] if level.noise.sigma else []
        share = rate.successes / rate.trials
        assert values == [*noise, rate.successes, rate.trials, share, rate.low, rate.high]
        assert row[3]["text"] == "dlg <b>"
        assert row[7]["text"] == (level.verdict or "not tested")
    assert found.text.count(measured.sentence()) == 2  # on the card, and above its table
    assert "from what is attacked of one batch, no attacker at all gains" in found.text
    assert "over its prior 0.1 from σ 4.08 on" in found.text


def test_tests_for_a_fixed_number_of_images_are_left_out_where_a_frontier_chose_it(run, measured, read):
    (run.path / "frontier.json").rename(run.path / "kept")
    assert "What attackers got" in read(run, run.frame()).text
    (run.path / "kept").rename(run.path / "frontier.json")
    assert "What attackers got" not in read(run, run.frame()).text


def test_accuracies_are_summarised_over_seeds_and_stand_on_the_card(run, read, dp):
    of = {name: dp[name] for name in ("delta", "sample_rate", "steps", "train_size", "epochs")}
    shared = {"utility_model": "scattering-linear", "status": "ok", "chance": 0.1, "defense": "dp"} | of
    private = [
        shared | {"eps": 1.0, "noise_multiplier": 0.49, "utility_seed": seed, "accuracy": accuracy}
        for seed, accuracy in enumerate((0.5, 0.52, 0.57))
    ]
    bare = shared | {"defense": "none", "utility_seed": 0, "accuracy": 0.7, "delta": None}
    lost = private[0] | {"status": "failed", "error": "it <b>broke", "accuracy": None}
    pd.DataFrame([bare, *private, lost]).to_csv(run.path / "utility.csv", index=False)
    found = read(run, run.frame())
    head, *rows = found.tables["Accuracy under each defence"]
    assert [cell["text"] for cell in head][:4] == ["Defence", "Model", "ε", "σ"]
    assert [[c["text"] for c in row][-5:] for row in rows] == [
        ["70.0 %", "70.0 %", "70.0 %", "1", "10.0 %"],
        ["53.0 %", "50.0 %", "57.0 %", "3", "10.0 %"],
    ]
    assert "1 training has no result; the first reason: it <b>broke" in found.text
    last = found.tables["Budgets"][-1]
    assert [cell["text"] for cell in last] == [
        "accuracy, scattering-linear (undefended 70.0 %)",
        "53.0 %",
        "—",
    ]


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "\x00\x01"])
def test_another_table_of_that_name_is_passed_over(run, content):
    (run.path / "utility.csv").write_text(content)
    assert utility(run.frame(), run) is None


def test_a_folder_without_a_frontier_has_no_section(run):
    assert frontiers(run.frame(), run) is None


def test_flags_stand_on_the_card_and_beside_their_rows(make_rows, store_of, read):
    rows = make_rows("dlg <b>", "none", 2, 20, 0.1, image_grad_share=1e-9, key="flagged")
    rows += make_rows("dlg <b>", "none", 2, 20, 0.1, seed=1, image_grad_share=0.5, key="plain")
    run = store_of(frame(rows))
    found = read(run, run.frame())
    (raised,) = (each for each in flags(run.frame(), run) if each.kind == "zero gradient")
    assert raised.keys == ("flagged",)
    assert raised.text in found.text
    told = {row["key"]: row[FLAGS] or "" for row in found.rows("images")}
    assert "zero gradient" in told["flagged"]
    assert "zero gradient" not in told["plain"]
