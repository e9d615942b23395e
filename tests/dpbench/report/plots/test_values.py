"""The new figures hold the numbers of the table, and of the files beside it."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest, spearmanr

from dpbench.protocol import Factorisation
from dpbench.report.plots.leakage import leakage
from dpbench.report.plots.noise import _certified, noise
from dpbench.report.plots.pictures import reconstructions
from dpbench.report.plots.search import search
from dpbench.report.plots.shares import shares
from dpbench.report.plots.tradeoff import points, tradeoff
from dpbench.report.plots.utility import joined, utility
from dpbench.store import Store
from dpbench.store.schema import frame

SIGMAS = {0.5: 12.0, 2.0: 2.5}


@pytest.fixture
def table(make_rows, dp):
    rows = make_rows("lmmse", "none", 4, 20, 0.1, threat_model="honest")
    for sigma, eps in SIGMAS.items():
        own = dp | {"noise_multiplier": sigma, "eps_release": eps, "eps": eps / 4, "threat_model": "honest"}
        rows += make_rows("lmmse", "dp", 4, 20 - 4 * sigma, 0.2 * sigma, key=f"s{10 * sigma:g}", **own)
    for row in rows:
        row |= {"gallery_size": 20, "identified": row["image"] < 1, "image_loss": 1.0 + row["image"]}
        row |= {"image_grad_share": (0.1, 0.2, 0.3, 0.4)[row["image"]]}
    return frame(rows)


def line(axis, gid):
    return next(each for each in axis.lines if each.get_gid() == gid)


def test_noise_has_medians_worst_images_floors_and_frontiers(table):
    figure = noise(table)
    for axis, metric, worst in zip(figure.axes, ("psnr", "lpips"), ("max", "min"), strict=True):
        by = table[table["noise_multiplier"].notna()].groupby("noise_multiplier")[metric]
        for gid, expected in (("lmmse", by.median()), ("lmmse: most exposed", by.agg(worst))):
            assert line(axis, gid).get_xdata().tolist() == list(SIGMAS)
            assert line(axis, gid).get_ydata() == pytest.approx(expected)
        bare = table.loc[table["defense"] == "none", metric].median()
        assert line(axis, "lmmse: no defence").get_ydata()[0] == pytest.approx(bare)
        assert line(axis, "floor").get_ydata()[0] == table[f"{metric}_floor"].median()
        for prior in (0.1, 0.005):
            sigma = 1 / (ndtri(prior + 0.05) - ndtri(prior))
            assert line(axis, f"certified {prior:g}").get_xdata()[0] == pytest.approx(sigma)
        (upper,) = axis.child_axes
        assert [text.get_text() for text in upper.get_xticklabels()] == ["12\n3", "2.5\n0.625"]
        assert upper.get_xlabel() == "ε of the release / of the training"


def test_each_curve_has_its_own_floor(table):
    """The median of both is a floor of neither, and one attack would lie beyond it that beats none."""
    own = {"lmmse": 0.1, "dlg": 0.4}
    both = pd.concat([table.assign(attack=name, lpips_floor=floor) for name, floor in own.items()])
    axis = noise(both.reset_index(drop=True)).axes[1]
    assert sorted(each.get_ydata()[0] for each in axis.lines if each.get_gid() == "floor") == [0.1, 0.4]


def test_copies_are_drawn_at_a_ceiling_that_is_told(table):
    """An exact copy has an infinite PSNR; drawn at 60 dB without a word it has one of 60."""
    told = "PSNR, dB (up: leaks more)\n60: or more"
    for psnr, label in ((np.inf, told), (20.0, told.split("\n")[0])):
        copies = table.assign(psnr=psnr, lpips=None)
        assert noise(copies).axes[0].get_ylabel() == label
        assert shares(copies).axes[0].get_ylabel() == label


def test_nothing_is_written_over_the_floor_of_noise(table):
    """The best floor is often the highest thing drawn, where its name stood on the frame."""
    figure = noise(table)
    assert "dashed: best floor" in " ".join(figure.get_suptitle().split())
    assert not any(axis.texts for axis in figure.axes)
    assert "floor" not in noise(table.assign(psnr_floor=None, lpips_floor=None)).get_suptitle()


def test_attack_seeds_make_no_rank_correlation(table):
    """Two results of each of four images are no eight images."""
    again = pd.concat([table, table.assign(attack_seed=1)], ignore_index=True)
    assert "lmmse, no defence: 4 images, rank correlation — for gradient" in shares.alt(again)


def test_tradeoff_has_the_gaussian_curve_and_every_attacker(table):
    found = points(table)
    assert [(p.curve, p.chance, p.successes.right, p.successes.asked) for p in found] == [
        ((sigma, 1, 1), 1 / 20, 1, 4) for sigma in SIGMAS
    ]
    axis = tradeoff(table).axes[0]
    curves = {each.get_label(): each for each in axis.lines if each.get_label().startswith("σ")}
    assert list(curves) == ["σ 0.5, ε 12", "σ 2, ε 2.5"]
    for sigma, curve in zip(SIGMAS, curves.values(), strict=True):
        x, y = curve.get_data()
        assert y == pytest.approx(ndtr(ndtri(x) + 1 / sigma))
    assert len(axis.containers) == len(found)
    ci = binomtest(1, 4).proportion_ci(0.95, "exact")
    for bar in axis.containers:
        assert bar[0].get_ydata()[0] == 0.25
        (low, high) = bar[2][0].get_segments()[0][:, 1]
        assert (low, high) == pytest.approx((ci.low, ci.high))


def test_of_several_epsilons_of_one_noise_the_largest_stands_in_a_figure(table):
    """Sampling makes the epsilon of a release smaller, a smaller delta or more releases make it larger."""
    sampled = table.assign(inclusion=0.1, eps_release=table["eps_release"] / 10, threat_model="informed")
    smaller = table.assign(delta=1e-9, eps_release=2 * table["eps_release"])
    lines = tradeoff(pd.concat([table, sampled, sampled, smaller], ignore_index=True)).axes[0].lines
    told = [each.get_label() for each in lines if each.get_label().startswith("σ")]
    assert told == ["σ 0.5, ε 24", "σ 2, ε 5"]
    more = table.assign(releases=4, eps_release=2 * table["eps_release"])
    (upper,) = noise(pd.concat([table, more], ignore_index=True)).axes[0].child_axes
    assert [text.get_text() for text in upper.get_xticklabels()] == ["24\n3", "5\n0.625"]


def test_many_points_of_one_chance_stay_near_it(table):
    """Read along x, a point belongs to its chance: fourteen of them stand within a third of it."""
    several = [table.assign(attack=f"attack {i}") for i in range(7)]
    axis = tradeoff(pd.concat(several, ignore_index=True)).axes[0]
    places = [bar[0].get_xdata()[0] for bar in axis.containers]
    assert len(set(places)) == 14
    assert 1 / 20 / 1.34 < min(places) < 1 / 20 < max(places) < 1.34 / 20


def test_attackers_with_another_bound_are_no_points(table):
    assert points(table.assign(inclusion=0.5)) == []
    ranked = points(table.assign(ranked_first=table["image"] == 0))
    assert {(p.chance, p.successes.right, p.successes.asked) for p in ranked} == {(1 / 200, 1, 4)}


def test_who_knows_the_label_has_a_better_chance_than_a_mixed_gallery_says(table):
    mixed = table.assign(gallery_labels="any")
    assert points(mixed.assign(labels="known")) == []
    assert (
        len(points(mixed.assign(labels="inferred"))) == len(points(mixed.assign(gallery_labels="same"))) == 2
    )


def test_correlated_noise_has_a_curve_of_its_own(table):
    releases, bands = 16, 4
    several = table.assign(releases=releases, bands=bands)
    sensitivity = Factorisation(releases, bands).sensitivity()
    assert sensitivity > 1.5 * releases**0.5  # so it is no detail
    curves = [each for each in tradeoff(several).axes[0].lines if each.get_label().startswith("σ")]
    assert curves[0].get_label() == "σ 0.5, 16 releases, 4 bands, ε 12"
    for sigma, curve in zip(SIGMAS, curves, strict=True):
        x, y = curve.get_data()
        assert y == pytest.approx(ndtr(ndtri(x) + sensitivity / sigma))
    marks = _certified(several[several["noise_multiplier"].notna()])
    assert marks[0.1] == pytest.approx(sensitivity / (ndtri(0.15) - ndtri(0.1)))


def test_settings_that_give_copies_back_do_not_crowd_out_the_others(table):
    """Six settings with twice as many images, all of them copies, and room for five."""
    copies = [table[table["defense"] == "none"].assign(attack=f"exact {i}", lpips=1e-8) for i in range(6)]
    copies += [each.assign(key=each["key"] + "again", batch_seed=1) for each in copies]
    figure = shares(pd.concat([*copies, table], ignore_index=True))
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [text.split(",")[0] for text in shown] == ["lmmse"] * 3 + ["exact 0", "exact 1"]
    assert "exact copies last" in figure.get_suptitle()
    assert figure.axes[0].get_ylim()[1] > 0.05


def test_shares_of_exact_copies_do_not_look_apart(table):
    """LPIPS of 1e-8 is none."""
    exact = table.assign(lpips=1e-8 * table["lpips"])
    assert shares(exact).axes[0].get_ylim()[1] == 0.01
    assert shares(table).axes[0].get_ylim()[1] > 0.05


def test_shares_are_times_an_equal_share(table):
    figure = shares(table)
    gradient, loss = figure.axes
    rows = table[table["defense"] == "none"]
    x, y = line(gradient, "lmmse, no defence").get_data()
    assert x == pytest.approx(4 * rows["image_grad_share"])
    assert y == pytest.approx(rows["lpips"])
    assert line(loss, "lmmse, no defence").get_xdata() == pytest.approx([0.4, 0.8, 1.2, 1.6])
    assert shares(table[table["batch_size"] == 1]) is None
    twice = pd.concat(
        [table, table.assign(key=table["key"] + "-2", batch_seed=9, lpips=table["lpips"] * 1.1)]
    )
    words = [text.get_text() for text in shares(twice).legends[0].get_texts()]
    part = twice[twice["defense"] == "none"]
    assert f"gradient {spearmanr(part['image_grad_share'], part['lpips']).statistic:+.2f}" in words[0]


def test_search_draws_the_histories_that_cells_keep(table, tmp_path):
    store, table = Store(tmp_path), table.assign(iterations=50, max_iterations=50)
    histories = {key: np.geomspace(1, 0.1, 20) * (i + 1) for i, key in enumerate(table["key"].unique())}
    assert search(table, store) is None  # cells of older versions keep none
    for key, history in histories.items():
        store.write(key, table[table["key"] == key].to_dict("records"), history=history.tolist())
    (axis,) = search(table, store).axes
    for name, end in (("no defence", 0.1), ("dp ε=3", 0.2), ("dp ε=0.625", 0.3)):
        x, y = line(axis, name).get_data()
        assert (x[0], x[-1]) == (0.5, 50)
        assert y[-1] == pytest.approx(end)
    again = table[table["defense"] == "none"].assign(key="again", batch_seed=3)
    store.write("again", again.to_dict("records"), history=[3.0, 0.7, 0.5])
    (axis,) = search(pd.concat([table, again]), store).axes
    for key, history in (("again", [3.0, 0.7, 0.5]), (table["key"].iloc[0], histories[table["key"].iloc[0]])):
        x, y = line(axis, key).get_data()
        assert y == pytest.approx(history, rel=1e-6)
        assert x == pytest.approx(50 * np.arange(1, len(history) + 1) / len(history))
    assert line(axis, "no defence").get_ydata()[-1] == pytest.approx((0.1 + 0.5) / 2)
    store.write("again", again.to_dict("records"), history=[3.0, 0.7, 0.5], history_steps=[1, 5, 30])
    (axis,) = search(pd.concat([table, again]), store).axes
    assert line(axis, "again").get_xdata().tolist() == [1, 5, 30]  # as they were, not evenly apart


def test_utility_joins_what_leaks_with_what_is_left_of_the_accuracy(table, tmp_path):
    trained = [{"defense": "none", "accuracy": a} for a in (0.7, 0.72)]
    # another train size and epsilon, as of a training that was described in another way: the noise counts
    trained += [
        {"defense": "dp", "noise_multiplier": 2.0000001, "accuracy": 0.5, "train_size": 9, "eps": 7.0}
    ]
    trained += [
        {"defense": "dp", "noise_multiplier": 3.0, "accuracy": 0.1},
        {"defense": "dp", "status": "failed"},
    ]
    pd.DataFrame(trained).assign(utility_model="convnet-tanh").to_csv(tmp_path / "utility.csv", index=False)
    store = Store(tmp_path)
    found = joined(table, store).set_index("defense")
    assert list(found.index) == ["none", "dp"]
    assert found.loc["none", ["mean", "least", "most"]].tolist() == pytest.approx([0.71, 0.7, 0.72])
    assert found["bound"].tolist() == [1.0, 0.8]
    over = table["psnr"] - table["psnr_floor"]
    expected = [over[table["defense"] == "none"].median(), over[table["noise_multiplier"] == 2].median()]
    assert found["over_floor"].tolist() == pytest.approx(expected)
    leak, bound = utility(table, store).axes
    for axis, measure in ((leak, "over_floor"), (bound, "bound")):
        drawn = [(bar[0].get_xdata()[0], bar[0].get_ydata()[0]) for bar in axis.containers]
        assert drawn == [pytest.approx(pair) for pair in zip(found["mean"], found[measure], strict=True)]
    assert line(leak, "front convnet-tanh").get_xdata() == pytest.approx([0.71, 0.5])


def test_an_epsilon_is_named_as_on_the_axes_of_other_figures(table, tmp_path):
    nearly = table.assign(eps=table["eps"].where(table["noise_multiplier"] != 2, 0.62499))
    trained = [{"defense": "dp", "noise_multiplier": 2.0, "accuracy": 0.5, "utility_model": "net"}]
    pd.DataFrame(trained).to_csv(tmp_path / "utility.csv", index=False)
    assert joined(nearly, Store(tmp_path))["name"].tolist() == ["dp ε=0.625"]
    written = [text.get_text() for axis in utility(nearly, Store(tmp_path)).axes for text in axis.texts]
    assert written == ["ε=0.625", "ε=0.625"]


def test_trainings_of_several_lengths_are_not_averaged(table, tmp_path):
    trained = [
        {"defense": "none", "accuracy": accuracy, "epochs": epochs, "utility_seed": seed}
        for epochs, accuracies in ((1, (0.3, 0.32)), (10, (0.7, 0.72)))
        for seed, accuracy in enumerate(accuracies)
    ]
    trained += [{"defense": "dp", "noise_multiplier": 2.0, "accuracy": 0.5, "epochs": 10}]
    pd.DataFrame(trained).assign(utility_model="convnet-tanh").to_csv(tmp_path / "utility.csv", index=False)
    found = joined(table, Store(tmp_path))
    assert found["mean"].tolist() == pytest.approx([0.31, 0.71, 0.5])
    assert found["name"].str.endswith(("epochs 1", "epochs 10")).all()


@pytest.mark.parametrize("rates", [(1e-4, 5e-4), (1e-4, 1e-4, 5e-4)])
def test_a_learning_rate_is_named_where_one_defence_has_several(rates, table, tmp_path):
    """A model may have one for training without noise and one for training with it."""
    defences = [{"defense": "none"}] * (len(rates) - 1) + [{"defense": "dp", "noise_multiplier": 2.0}]
    trained = [each | {"accuracy": 0.5, "learning_rate": r} for each, r in zip(defences, rates, strict=True)]
    if len(rates) > 2:
        trained[1]["learning_rate"] = 2e-4
    pd.DataFrame(trained).assign(utility_model="convnet-tanh").to_csv(tmp_path / "utility.csv", index=False)
    named = joined(table, Store(tmp_path))["name"].str.contains("learning rate")
    assert named.tolist() == ([False, False] if len(rates) == 2 else [True, True, False])


def test_alt_texts_say_the_numbers(table, tmp_path):
    assert f"median PSNR {table.loc[table['noise_multiplier'] == 2, 'psnr'].median():.1f} dB" in noise.alt(
        table
    )
    assert "25 % of 4" in tradeoff.alt(table)
    assert "lmmse, no defence: 4 images" in shares.alt(table)
    assert json.dumps(search.alt(table, Store(tmp_path)))


def test_the_words_are_of_what_is_drawn(table, make_run):
    """A curve for each attack with its own medians, no LPIPS where there is none, images and not results."""
    weaker = table.assign(attack="dlg", psnr=table["psnr"] - 5, attack_seed=1)
    both = pd.concat([table, weaker], ignore_index=True)
    for name, part in both[both["noise_multiplier"] == 2].groupby("attack"):
        assert f"{name}, sigma 2: median PSNR {part['psnr'].median():.1f} dB" in noise.alt(both)
    again = pd.concat([table, table.assign(attack_seed=1)], ignore_index=True)
    assert "lmmse, no defence: 4 images" in shares.alt(again)
    run = make_run(lpips_there=False, batch_sizes=(1,))
    assert "LPIPS" not in leakage.alt(run) + reconstructions.alt(run)
    floor = run.loc[run["attack"] == "floor:constant-image", "psnr"].max()
    assert f"(best floor {floor:.1f} dB)" in leakage.alt(run)
    assert "floor:constant-image" not in reconstructions.alt(run)
    assert "inverting-gradients dp ε=1;" in reconstructions.alt(run)
    without = leakage.alt(run[run["floor"].isna()])
    assert "floor" not in without
    assert "nan" not in without


def test_a_frontiers_folder_has_no_floors_but_ranks(table, tmp_path):
    table = table.assign(psnr_floor=None, ranked_first=table["defense"] == "none")
    trained = [
        {"defense": "none", "accuracy": 0.7},
        {"defense": "dp", "noise_multiplier": 2.0, "accuracy": 0.5},
    ]
    pd.DataFrame(trained).assign(utility_model="net").to_csv(tmp_path / "utility.csv", index=False)
    found = joined(table, Store(tmp_path)).set_index("defense")
    assert found["over_floor"].isna().all()
    assert found["ranked"].to_dict() == {"none": 1.0, "dp": 0.0}
    figure = utility(table, Store(tmp_path))
    assert "ranks first of 200" in figure.axes[0].get_ylabel()
    assert "ranks 100.0 % of images first of 200" in utility.alt(table, Store(tmp_path))
