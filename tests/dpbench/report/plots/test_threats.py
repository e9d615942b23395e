"""Threat models side by side: sections, the informed attacker's sentence, pooled successes, the plot."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy.stats import binomtest

from dpbench import privacy
from dpbench.privacy.intervals import anytime
from dpbench.privacy.rounding import up_percent
from dpbench.report.plots.style import COLUMN, FULL
from dpbench.report.plots.threats import curves, threats
from dpbench.report.plots.tradeoff import points
from dpbench.report.sentence import sentence
from dpbench.report.summary import summary
from dpbench.report.tables import to_markdown
from dpbench.store.schema import frame
from tests.helpers.figures import assert_readable


def released(eps: float, releases: int = 1) -> dict:
    sigma = privacy.noise_multiplier(eps, 1e-5)
    same = {"delta": 1e-5, "max_grad_norm": 1.0, "accountant": "analytic", "eps_scope": "release"}
    same |= {"eps_release": eps, "noise_multiplier": sigma, "releases": releases}
    return same | {"rero_release": privacy.reconstruction_bound(sigma)}


def labels(axis):
    return axis.get_legend_handles_labels()[1]


@pytest.fixture
def table(make_rows) -> pd.DataFrame:
    rows = []
    for attack, model, known in (
        ("inverting-gradients", "honest", 0.0),
        ("analytic", "malicious-linear", 0.5),
    ):
        for eps in (None, 1.0, 100.0):
            given = {} if eps is None else released(eps)
            cell = make_rows(attack, "dp" if given else "none", 4, 9, 0.4, key=f"{attack}{eps}", **given)
            for i, row in enumerate(cell):
                row |= {"threat_model": model, "gallery_size": 20, "identified": bool(i < 4 * known)}
            rows += cell
    for eps, right in ((1.0, 3), (100.0, 20)):
        for seed in range(2):
            row = make_rows("prior-aware", "dp", 4, 0, 0, seed=seed, key=f"p{eps}{seed}", **released(eps))[0]
            row |= {"threat_model": "informed", "candidates": 10, "trials": 20, "success": right / 20}
            row |= {"success_bound": row["rero_release"]}
            rows.append({k: v for k, v in row.items() if "psnr" not in k and "lpips" not in k})
    return frame(rows)


def test_the_picture_names_the_attackers_whose_chance_is_not_exact(table):
    """Where labels are known and galleries have others, too: as with the bundled samples."""
    assert "exact" not in (threats(table).get_suptitle() or "")
    title = threats(table.assign(gallery_labels="any", labels="known")).get_suptitle()
    assert title == "without honest, malicious-linear, whose chance is not exact"


def test_threat_models_have_sections_of_their_own(table):
    text = to_markdown(table)
    parts = text.split("### ")[1:]
    assert [part.splitlines()[0] for part in parts] == [
        f"Batch of 4, threat model {name}" for name in ("honest", "informed", "malicious-linear")
    ]
    for part, attack in zip(parts, ("inverting-gradients", "prior-aware", "analytic"), strict=True):
        assert {
            line.split(" | ")[0] for line in part.splitlines() if line.startswith("| ") and "--" not in line
        } == {
            "| Attack",
            f"| {attack}",
        }


def test_what_the_informed_attacker_has_no_number_for_has_no_column(table):
    alone = to_markdown(
        table[(table["threat_model"] == "informed") | table["attack"].str.startswith("floor:")]
    )
    assert "PSNR" not in alone
    assert "Picked" in alone


def test_releases_stand_in_order_whatever_the_rounding_of_their_budget(table):
    again = table.assign(releases=10, eps_release=table["eps_release"] * (1 - 1e-12))
    lines = summary(pd.concat([again, table], ignore_index=True))
    lines = lines[(lines["threat_model"] == "informed") & lines["eps_release"].notna()]
    assert lines["releases"].tolist() == [1, 10, 1, 10]


def test_trials_of_all_cells_are_pooled(table):
    lines = summary(table)
    line = lines[(lines["threat_model"] == "informed") & (lines["eps_release"] == 1)].iloc[0]
    exact = binomtest(6, 40).proportion_ci(0.95, "exact")
    assert line["success"] == pytest.approx(6 / 40)
    assert (line["success_low"], line["success_high"]) == pytest.approx((exact.low, exact.high))
    planted = lines[(lines["threat_model"] == "malicious-linear") & (lines["eps_release"] == 1)].iloc[0]
    assert planted["identified_share"] == 0.5


def test_sentence_says_what_the_informed_attacker_gets_at_most(table):
    said = sentence(table).splitlines()[-1]
    measured = "measured among 10 candidates: 15 % of 40 trials, 95 % interval 6 to 30 %"
    assert f"in 10 % of cases, is right in at most 15.6 % under dp ε=1 ({measured})" in said
    assert "100 % under dp ε=100" in said
    bare = sentence(table[table["threat_model"] != "informed"]).splitlines()[-1]
    assert "at most 15.6 % under dp ε=1, 100 % under dp ε=100." in bare
    assert "informed" not in sentence(table[table["defense"] == "none"])


def test_each_prior_has_a_bound_of_its_own(table):
    """Among twenty candidates the bound at prior 1/10 says nothing: 15 % measured would be below it."""
    row = table["threat_model"] == "informed"
    sigma = table.loc[row, "noise_multiplier"].max()
    bound = privacy.reconstruction_bound(sigma, kappa=1 / 20)
    table.loc[row & (table["eps_release"] == 1), ["candidates", "success_bound"]] = [20, bound]
    table = table[~(row & (table["eps_release"] == 100))]
    tenth, twentieth = sentence(table).splitlines()[-2:]
    assert "in 10 % of cases, is right in at most 100 % under dp ε=100." in tenth
    assert f"in 5 % of cases, is right in at most {up_percent(bound)} under dp ε=1 (meas" in twentieth
    assert "dp ε=1 " not in tenth


def test_the_planted_layer_is_named(table):
    said = sentence(table).splitlines()
    assert said[0].startswith("Against the early convnet, batch of 4: floors are missing to say")
    planted = (
        "Against the early convnet with a layer that the server planted, batch of 4: analytic does better"
    )
    assert said[1].startswith(planted)


def test_a_gallery_of_other_labels_is_left_out_where_the_label_is_known(table):
    said = threats.alt(table.assign(gallery_labels="any", labels="known"), None)
    assert "malicious" in threats.alt(table.assign(gallery_labels="any", labels="inferred"), None)
    assert "informed" in said
    assert "malicious" not in said
    alone = table[table["threat_model"] != "informed"].assign(gallery_labels="any", labels="known")
    assert threats(alone) is None


def test_curves_take_the_attack_that_succeeds_most(table):
    better = table[table["attack"] == "inverting-gradients"].assign(attack="dlg", identified=True)
    found = curves(pd.concat([table, better])[lambda t: t["eps_release"].notna()])
    counted = {
        tuple(row) for row in found[["threat_model", "attack", "right", "trials"]].itertuples(index=False)
    }
    assert counted == {
        ("honest", "dlg", 4, 4),
        ("malicious-linear", "analytic", 2, 4),
        ("informed", "prior-aware", 6, 40),
        ("informed", "prior-aware", 40, 40),
    }


def test_plot_has_a_panel_with_its_bound_for_each_prior(table):
    picked, identified = threats(table).axes
    assert [axis.get_title() for axis in (picked, identified)] == [
        "batch of 4, one of 10",
        "batch of 4, one of 20",
    ]
    both = ["no attacker passes", "chance of a blind choice"]
    assert set(labels(picked)) == {"informed attacker, sample picked", *both}
    servers = ("honest server, image identified", "malicious server, image identified")
    assert set(labels(identified)) == {*servers, *both}
    for axis, prior in ((picked, 10), (identified, 20)):
        bound = next(line for line in axis.lines if line.get_label() == both[0])
        assert next(line for line in axis.lines if line.get_label() == both[1]).get_ydata()[0] == 1 / prior
        assert np.all(np.diff(bound.get_ydata()) >= 0)
        for eps, gamma in zip(*bound.get_data(), strict=True):
            sigma = privacy.noise_multiplier(eps, 1e-5)
            assert gamma == pytest.approx(privacy.reconstruction_bound(sigma, kappa=1 / prior))


def test_each_delta_has_a_panel_with_its_own_bound(table):
    """The same epsilon at a larger delta has less noise, and a higher bound."""
    large = 1e-2
    informed = table[(table["threat_model"] == "informed")]
    panels = threats(pd.concat([informed, informed.assign(delta=large)])).axes
    assert [axis.get_title() for axis in panels] == ["batch of 4, δ=1e-05", "batch of 4, δ=0.01"]
    for axis, delta in zip(panels, (1e-5, large), strict=True):
        assert axis.get_xlabel().endswith(f"δ={delta:g}")
        bound = next(line for line in axis.lines if line.get_label() == "no attacker passes")
        sigma = privacy.noise_multiplier(1.0, delta)
        assert bound.get_ydata()[0] == pytest.approx(privacy.reconstruction_bound(sigma))


def test_points_stand_at_their_own_budget(table):
    found = [curve for axis in threats(table).axes for curve in axis.containers]
    for curve in found:
        assert set(curve[0].get_xdata()) == {1.0, 100.0}
    assert len({curve[0].get_marker() for curve in found}) == len(found) == 3


def test_no_panel_has_more_than_five_styles(table):
    """Curves of five threat models, releases and inclusions: three curves, bound and chance in each panel."""
    more = [table.assign(threat_model=name) for name in ("a", "b")]
    drawn = table[table["threat_model"] == "informed"].assign(inclusion=0.5, releases=4, success=0.05)
    every = pd.concat([table, *more, drawn, *(table.assign(releases=n) for n in (2, 3, 10, 20, 30))])
    for width, most in ((FULL, 6), (COLUMN, 3)):
        figure = threats(every, width=width)
        panels = [axis for axis in figure.axes if axis.axison]
        assert len(panels) == most
        assert all(len(labels(axis)) <= 5 for axis in panels)
        assert len(figure.legends[0].get_texts()) <= 5
        said = figure.texts[0].get_text().replace("\n", " ")
        assert said.startswith(f"{most} of 8 settings; without")
        assert_readable(figure)


def test_candidates_are_not_mixed(table):
    more = table[table["threat_model"] == "informed"].assign(candidates=40, success=0.025)
    found = curves(pd.concat([table, more])[lambda t: t["eps_release"].notna()])
    informed = found[(found["threat_model"] == "informed") & (found["eps_release"] == 1)]
    assert informed[["choices", "right", "trials"]].values.tolist() == [[10, 6, 40], [40, 1, 40]]


def test_legends_are_not_cut_off(table):
    drawn = table[table["threat_model"] == "informed"].assign(inclusion=0.5, releases=4, success=0.05)
    figure = threats(pd.concat([table, drawn, table.assign(releases=10)]))
    FigureCanvasAgg(figure).draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert figure.axes[0].get_window_extent().height > 150
    assert box.y1 <= figure.axes[0].get_tightbbox().y0


def test_drawn_inclusion_has_a_curve_and_a_bound_of_its_own(table):
    drawn = table[table["threat_model"] == "informed"].assign(inclusion=0.5, releases=4, success=0.05)
    drawn["success_bound"] = drawn["eps_release"].map({1.0: 0.14, 100.0: 0.8})
    both = pd.concat([table, drawn])
    found = curves(both[both["eps_release"].notna()])
    assert found.loc[found["inclusion"] == 0.5, "bound"].tolist() == [0.14, 0.8]
    panels = {axis.get_title().replace("\n", " "): axis for axis in threats(both).axes if axis.axison}
    axis = panels["batch of 4, 4 releases, each with chance 0.5, one of 10"]
    bound = next(line for line in axis.lines if line.get_label() == "no attacker passes")
    assert bound.get_ydata().tolist() == [0.14, 0.8]
    assert "batch of 4, 1 release, one of 10" in panels


def test_no_plot_for_the_honest_server_alone_or_without_budgets(table):
    assert threats(table[table["threat_model"] == "honest"]) is None
    assert threats(table[table["defense"] == "none"]) is None


def test_many_settings_of_one_verdict_are_told_by_the_first_and_the_last(table):
    attacked = table[table["attack"] == "inverting-gradients"]
    private = attacked[attacked["eps_release"] == 1]
    bare = attacked[attacked["defense"] == "none"].assign(psnr=30.0, lpips=0.01)
    more = [private.assign(eps_release=float(eps), key=f"k{eps}") for eps in (2, 4, 8, 16)]
    said = sentence(pd.concat([bare, private, *more], ignore_index=True)).splitlines()[0]
    assert "under dp ε=1 (" in said
    assert " to dp ε=16 (" in said
    assert "5 settings in all, " in said
    assert "ε=4" not in said


def test_settings_with_others_between_them_are_no_range(table):
    """At ε=4 the images are rebuilt: what is said of ε=1 and ε=32 does not hold between them."""
    attacked = table[table["attack"] == "inverting-gradients"]
    private = attacked[attacked["eps_release"] == 1]
    bare = attacked[attacked["defense"] == "none"].assign(psnr=30.0, lpips=0.01)
    more = [private.assign(eps_release=float(eps), key=f"k{eps}") for eps in (1, 2, 4, 8, 16, 32)]
    more[2] = more[2].assign(psnr=30.0, lpips=0.01)
    said = sentence(pd.concat([bare, *more], ignore_index=True)).splitlines()[0]
    assert re.search(r"under dp ε=1 \([^()]*\), dp ε=32 \([^()]*\) and 3 more settings floors are", said)


def test_a_threat_model_of_a_third_party_has_a_curve(table):
    more = table[table["threat_model"] == "malicious-linear"].assign(threat_model="eavesdropper")
    shown = {label for axis in threats(pd.concat([table, more])).axes for label in labels(axis)}
    assert "eavesdropper, right choice" in shown
    assert "honest server, image identified" not in shown  # of four, the one that succeeds least


def test_a_frontiers_curve_counts_ranks_with_intervals_for_any_moment(table):
    """The frontier itself says 1 of 1 for one image of a batch that ranked first, and so does its picture."""
    first = (table["image"] == 0) & table["success"].isna()
    ranked = table.assign(ranked_first=pd.Series(True, table.index, dtype="boolean").where(first))
    found = curves(ranked[ranked["ranked_first"].notna() & ranked["eps_release"].notna()])
    assert set(zip(found["right"], found["trials"], found["choices"], strict=True)) == {(1, 1, 200)}
    assert {*zip(found["low"], found["high"], strict=True)} == {anytime(1, 1)}
    names = labels(threats(ranked).axes[0])
    assert "honest server, image ranked first" in names
    assert not any("identified" in name for name in names)


def test_a_photograph_counts_once_in_a_curve(table):
    """Two attack seeds on the same photographs are no twice as many of them."""
    again = pd.concat([table, table.assign(attack_seed=1)], ignore_index=True)
    once, twice = (
        curves(each[each["eps_release"].notna() & each["success"].isna()]) for each in (table, again)
    )
    assert twice["trials"].tolist() == once["trials"].tolist()


def test_what_differs_in_a_condition_is_not_put_together(table):
    """Two victims on the same photographs: one gives all away, and the other nothing."""
    early = table[table["threat_model"] == "malicious-linear"]
    both = [early.assign(victim=victim, identified=yes) for victim, yes in (("early", False), ("late", True))]
    both = pd.concat(both, ignore_index=True)
    found = curves(both[both["eps_release"].notna()])
    assert found["right"].tolist() == found["trials"].tolist() == [4, 4]
    assert sorted((p.attack, p.successes.right) for p in points(both)) == [
        *[("analytic, victim early", 0)] * 2,
        *[("analytic, victim late", 4)] * 2,
    ]


def test_the_words_keep_batch_sizes_apart_as_the_panels_do(table):
    more = table[table["threat_model"] == "malicious-linear"].assign(batch_size=8, identified=True)
    said = threats.alt(pd.concat([table, more], ignore_index=True), None)
    assert "malicious server, image identified, batch of 4, epsilon 1: 50 % of 4" in said
    assert "malicious server, image identified, batch of 8, epsilon 1: 100 % of 4" in said
