"""Figures that the documentation takes from stored results follow from them."""

import re
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import binomtest, spearmanr

import dpbench
from benchmarks import quality
from benchmarks.default_attack import compared
from dpbench.privacy.intervals import clopper_pearson
from dpbench.report.sentence import sentence

ROOT = Path(__file__).parents[1]
FINDINGS = ROOT / "docs" / "findings"


def results(name):
    return pd.read_csv(ROOT / "results" / "reference" / name / "results.csv").query("status == 'ok'")


def rows_of(page, columns):
    """The cells of the tables with that many columns, as text."""
    lines = (FINDINGS / page).read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in cells if len(row) == columns]


def test_clipping_makes_quiet_images_leak_more():
    found = results("clip")
    found = found[found["floor"].isna()].set_index(["batch_seed", "image"])
    plain = found[found["defense"] == "none"]
    share, table = plain["image_grad_share"], rows_of("2026-11-clipping.md", 9)[2:]
    correlations = []
    for norm in (0.1, 1, 10):
        clipped = found[(found["defense"] == "clip") & (found["max_grad_norm"] == norm)]
        assert (len(plain), len(clipped)) == (80, 80)
        rows = {row[1]: row[2:] for row in table if row[0] == f"{norm:g}"}
        for name, which in (
            ("below .15", share < 0.15),
            (".15 to .3", share.between(0.15, 0.3)),
            ("above .3", share > 0.3),
        ):
            count, *said = rows[name]
            assert int(count) == which.sum()
            for before, after, change, column, digits in ((*said[:3], "psnr", 1), (*said[3:], "lpips", 3)):
                values = [one[column][which].mean() for one in (plain, clipped)]
                told = float(change.split(" ")[0].replace("−", "-"))
                assert [float(before), float(after)] == [round(value, digits) for value in values]
                assert told == pytest.approx(values[1] - values[0], abs=0.6 * 10**-digits)
        correlations.append(round(spearmanr(share, clipped["psnr"] - plain["psnr"]).statistic, 2))
    assert correlations == [-0.95, -0.95, -0.68]
    means = found.groupby(found["max_grad_norm"].fillna(0))["psnr"].mean().round(1)
    assert means.tolist() == [27.9, 28.7, 28.5, 28.2]


@pytest.mark.parametrize(
    ("attack", "expected"),
    [("lmmse", [0, 1, 4, 11, 34, 47, 50, 50]), ("map", [0, 1, 3, 17, 43, 50, 50, 50])],
)
def test_attacks_that_know_the_noise_identify_so_many_in_the_stored_run(attack, expected):
    found = results("epsilon")
    attacked = found[found["floor"].isna() & (found["defense"] == "dp") & (found["attack"] == attack)]
    counts = attacked.groupby("eps_release")["identified"].agg(["sum", "size"])
    assert counts["sum"].astype(int).tolist() == expected
    assert set(counts["size"]) == {50}
    told = [row for row in rows_of("2026-11-noise.md", 8) if row[0] == f"`{attack}`"]
    assert [int(row[3].split()[0]) for row in told] == expected
    assert [float(row[1].replace(",", "")) for row in told] == counts.index.tolist()
    psnr = attacked.set_index(["eps_release", "batch_seed"])["psnr"].unstack("batch_seed")
    assert [float(row[6]) for row in told] == psnr.mean(axis=1).round(2).tolist()
    of_it = found[found["floor_of"] == attack]
    class_mean = of_it[of_it["floor"] == "start"].set_index("batch_seed")["psnr"]
    gain = psnr - class_mean
    assert gain.mean(axis=1).min() > -0.02  # the finding: no mean is below the class mean
    assert [float(row[7].split(" ")[0]) for row in told] == gain.mean(axis=1).round(2).tolist()
    fed_noise = of_it[of_it["floor"] == "noise-gradient"]
    assert (int(fed_noise["identified"].sum()), len(fed_noise)) == (0, 50)


def test_the_search_beside_the_linear_estimate():
    """What the finding says of `map` less `lmmse`, image by image."""
    found = results("epsilon")
    attacked = found[found["floor"].isna() & (found["defense"] == "dp")]
    seen = attacked.pivot(
        index=["eps_release", "batch_seed"], columns="attack", values=["psnr", "identified"]
    )
    gain = (seen["psnr"]["map"] - seen["psnr"]["lmmse"]).groupby("eps_release")
    assert gain.mean().round(1).to_dict() == {
        1.0: 0.0, 10.0: 0.0, 32.0: 0.0, 100.0: 0.1, 350.0: 0.6, 1e3: 1.0, 1e4: 2.4, 1e6: 3.9
    }  # fmt: skip
    assert gain.sem().loc[350.0:].round(1).tolist() == [0.1, 0.1, 0.1, 0.2]
    hit = seen["identified"].astype(float)
    more, less = ((hit["map"] - hit["lmmse"]) == sign for sign in (1, -1))
    counts = [(int(m.loc[eps].sum())) for eps in (100.0, 350.0) for m in (more, less)]
    assert counts == [10, 4, 9, 0]


@pytest.mark.parametrize(
    ("victim", "certified", "above"), [("early", "49 back", 49), ("trained", "35 of them", 40)]
)
def test_peel_gives_so_many_images_back(victim, certified, above):
    found = pd.read_csv(ROOT / "results" / "reference" / "exact" / "peel.csv")
    fresh = found.query("victim == @victim and defense == 'none' and batch_seed >= 1050")
    assert (len(fresh), int((fresh["psnr"] > 60).sum())) == (50, above)
    assert int(fresh["certified"].sum()) == int(certified.split()[0])
    readme = (ROOT / "README.md").read_text()
    assert certified in readme
    assert victim == "early" or f"{above} from the converged victim above 60 dB" in readme


def test_what_the_finding_says_of_single_failures_is_the_run_that_its_table_shows():
    found = dpbench.load(ROOT / "results" / "reference" / "exact")
    found = found[found["floor"].isna() & (found["victim"] == "trained")]
    plain = found[(found["defense"] == "none") & ~found["certified"]].set_index("batch_seed")
    page = (FINDINGS / "2026-11-peel.md").read_text()
    explained = plain[plain["residual"] < 1e-4]["psnr"]
    assert f"Of {len(explained)} images that explain the release and are not certified" in page
    assert f"{explained.min():.1f} to {explained.max():.1f} dB" in page
    assert sorted(plain.index.difference(explained.index)) == [1007, 1011, 1014, 1023, 1044]
    close, searched = (f"{plain.loc[seed, 'psnr']:.1f} dB" for seed in (1007, 1023))
    assert f"(1007: {close}, 1023: {searched} after the search)" in page
    (refused,) = found[(found["defense"] == "clip") & (found["batch_seed"] == 1016)]["psnr"]
    assert f"1016 under clipping is at {refused:.1f} dB" in page


def test_so_many_images_of_large_batches_have_no_certificate():
    found = pd.read_parquet(ROOT / "results/reference/exact-batches/results.parquet")
    found = found[found["floor"].isna()]
    large = (found["victim"] == "trained") & (found["batch_size"] >= 32)
    assert found[~large]["certified"].astype(bool).all()
    found = found[large]
    without = found[~found["certified"].astype(bool)]
    assert set(without["batch_seed"]) == {1001, 1003, 1004}
    page = (ROOT / "docs" / "exact-batches.md").read_text()
    assert f"{len(without)} of {len(found):,} images came back without a certificate" in page
    above = int((without["psnr"] > 40).sum())
    assert (above, len(without)) == (8, 9)
    assert f"{above} of the {len(without)} are above 40 dB, one is lost" in page


def test_a_head_alone_gives_more_away_than_the_search_shows():
    rows = dpbench.load(ROOT / "results" / "reference" / "head")
    psnr = rows[rows["victim"] == "trained"].groupby("attack")["psnr"].mean()
    assert psnr["feature-inversion"] > psnr["inverting-gradients"] + 5
    fed = rows[(rows["floor"] == "noise-gradient") & (rows["floor_of"] == "feature-inversion")]
    for _, images in fed.groupby("victim"):
        chance = binomtest(int(images["identified"].sum()), len(images), 1 / 200, alternative="greater")
        assert chance.pvalue > 0.05


def test_drawn_images_are_nearer_than_the_search_under_noise_and_coarse_rounding():
    search, drawn = (dpbench.load(ROOT / "results/reference" / n) for n in ("defences", "defences-drawn"))
    search = search[search["adaptive"].fillna(True).astype(bool)]
    strengths = ["defense", "noise_std", "prune_ratio", "topk_ratio", "quantize_bits"]
    search, drawn = (
        table[table["floor"].isna()].set_index([*strengths, "original_index"]) for table in (search, drawn)
    )
    gain = (drawn[["psnr", "lpips"]] - search[["psnr", "lpips"]]).dropna().groupby(strengths, dropna=False)
    surely = gain.mean() / gain.sem()
    assert (gain.size() == 20).all()
    surely = {(key[0], *(k for k in key[1:] if pd.notna(k))): row for key, row in surely.iterrows()}
    nearer = {key for key, row in surely.items() if row["psnr"] > 2}
    assert nearer == {("noise", 0.1), ("noise", 0.3), ("quantize", 4), ("quantize", 1)}
    alike = {key for key, row in surely.items() if row["lpips"] < -2}
    assert alike == {("quantize", 4), ("quantize", 1), ("prune", 0.99), ("topk", 0.001)}
    behind = {
        name: {key for key, row in surely.items() if sign * row[name] < -2}
        for name, sign in (("psnr", 1), ("lpips", -1))
    }
    assert behind["psnr"] == {("none",), ("prune", 0.5), ("quantize", 8)}
    assert behind["lpips"] == behind["psnr"] | {("noise", 0.03), ("prune", 0.9), ("topk", 0.1)}


def test_of_a_noisy_head_features_tell_more_where_there_is_little_noise():
    rows = dpbench.load(ROOT / "results" / "reference" / "head-noise")
    rows = rows[rows["floor"].isna()]
    psnr = rows.pivot(index="batch_seed", columns=["attack", "eps_release"], values="psnr")
    found = rows.pivot(index="batch_seed", columns=["attack", "eps_release"], values="identified")
    norms = rows[rows["attack"] == "lmmse"].query("defense == 'none'").set_index("batch_seed")["release_norm"]
    for other in ("lmmse", "posterior-mean"):
        for eps in (1000, 10000):
            gain = psnr["feature-inversion", eps] - psnr[other, eps]
            assert gain.mean() > 3 * gain.std() / 50**0.5
            assert found["feature-inversion", eps].sum() > found[other, eps].sum()
        for eps in (10, 100):
            assert -0.3 < (psnr["feature-inversion", eps] - psnr[other, eps]).mean() < 0
    sure = found["feature-inversion"][[1000, 10000]][norms < 0.3].astype(bool)
    assert (len(sure), int(sure.to_numpy().sum())) == (17, 0)
    lost = rows[rows["status"] != "ok"]
    assert set(lost["attack"]) == {"posterior-mean"}
    assert (len(lost), norms[lost["batch_seed"]].max() < 0.01) == (9, True)


def test_clipping_identifies_so_many_and_noise_none():
    found = results("clip")
    attacked, norm = found[found["floor"].isna()], found["max_grad_norm"].fillna(0)
    counts = attacked.groupby(norm)["identified"].sum().astype(int)
    assert counts.to_dict() == {0: 80, 0.1: 80, 1: 80, 10: 80}
    fed_noise = found[found["floor"] == "noise-gradient"]
    assert (len(fed_noise), int(fed_noise["identified"].sum())) == (80, 1)
    assert (round(fed_noise["psnr"].mean(), 1), round(fed_noise["lpips"].mean(), 3)) == (11.0, 0.353)
    page = (FINDINGS / "2026-11-clipping.md").read_text()
    assert "all 80 images are identified" in page
    assert "80 of 80 images are identified" in (ROOT / "docs" / "defences.md").read_text()
    assert "identifies 1 of 80" in page
    assert "has 11.0 dB and LPIPS .353" in page


def test_searches_and_estimates_without_noise_have_so_many_decibels():
    found = pd.read_csv(ROOT / "results" / "reference" / "default-attack" / "presets.csv")
    search = found.query("preset == 'tuned' and batch_size == 1").groupby("victim")["psnr"]
    assert search.mean().round(1).to_dict() == {"early": 34.4, "trained": 34.4}
    assert search.median().round(1).to_dict() == {"early": 34.7, "trained": 34.6}
    assert search.min().min() > 25  # no image that is alone is hidden, in either victim
    found = results("epsilon")
    undefended = found[found["floor"].isna() & (found["defense"] == "none")]
    estimate = undefended[undefended["attack"] == "lmmse"]["psnr"].mean()
    constant = found[found["floor"] == "constant-image"]["psnr"].mean()
    assert (round(estimate, 1), round(constant, 1)) == (19.2, 14.0)
    assert "34.4 dB (early) and 34.4 dB (converged)" in (ROOT / "README.md").read_text()
    assert "34.7 dB (early) and 34.6 dB (trained)" in (ROOT / "docs" / "exact.md").read_text()
    assert "19.2 dB" in (ROOT / "docs" / "noise.md").read_text()


def test_the_gains_of_the_tuned_preset_are_those_of_the_stored_rows():
    found = compared(pd.read_csv(ROOT / "results" / "reference" / "default-attack" / "presets.csv"))
    table = rows_of("2026-11-search-presets.md", 9)[2:]
    for row, cells in zip(found, table, strict=True):
        victim = {"early": "early", "trained": "converged"}[row["victim"]]
        assert cells[:4] == [f"{victim}, {row['B']}", *_short(row["images"], row["PSNR paper"], row["tuned"])]
        interval = f"({row['low']:.1f} to {row['high']:.1f}), {row['median gain']:+.1f}"
        assert cells[4:6] == [f"**{row['gain']:+.1f}** {interval}", str(row["better"])]
        for cell, way in zip(cells[6:8], ("LPIPS", "median"), strict=True):
            assert cell == f"{row[f'{way} paper']:.4f} → {row[f'{way} tuned']:.4f}"
        assert cells[8] == f"{row['s paper']:.1f}, {row['s tuned']:.1f}"
        assert 1 <= row["s tuned"] / row["s paper"] < 1.4
    assert min(row["low"] for row in found) > 6  # all four are decided


def _short(images, *psnr):
    return [str(images), *(f"{value:.1f}" for value in psnr)]


def test_the_committed_decision_is_what_the_page_on_decide_says():
    """Counts of the attacks at the noise of each epsilon, and accuracies."""
    home = ROOT / "results" / "reference" / "decide-run"
    seen, trained = pd.read_csv(home / "frontier.csv"), pd.read_csv(home / "utility.csv")
    table = {row[0].split(":")[0].split(" (")[0]: row[3:] for row in rows_of("2026-11-decide-run.md", 6)}
    for threat, title in (("honest", "honest"), ("informed", "informed"), ("malicious-linear", "malicious")):
        for sigma, cell in zip((0.536, 0.715, 1.114), table[title], strict=True):
            found = seen[(seen["threat_model"] == threat) & (seen["sigma"].round(3) == sigma)]
            counts = " and ".join(map(str, found["successes"]))
            assert cell.endswith(f"{counts} of {found['trials'].iloc[0]}")
    for model in ("scattering-linear", "convnet-tanh"):
        for eps, cell in zip((8, 3, 1), table[f"accuracy, `{model}`"], strict=True):
            found = trained[(trained["utility_model"] == model) & (trained["eps"] == eps)]
            assert len(found) == 3
            assert cell == f"{100 * found['accuracy'].mean():.1f} %"


def test_how_long_levels_with_a_leak_took_in_the_committed_decision_and_who_ranked_first_by_luck():
    home = ROOT / "results" / "reference" / "decide-run"
    seen = pd.read_csv(home / "frontier.csv").query("verdict == 'leak shown'")
    counted = set(seen.loc[(seen["threat_model"] != "honest") | (seen["sigma"] < 1), "trials"])
    page = (FINDINGS / "2026-11-decide-run.md").read_text()
    assert f"after one batch; near the frontiers they took {min(counted - {1})} to {max(counted)}." in page
    found = results("decide-run")
    first = found[(found["attack"] == "lmmse") & (found["ranked_first"] == True)]  # noqa: E712
    seeds = {sigma: {*rows["batch_seed"]} for sigma, rows in first.groupby("noise_multiplier")}
    assert seeds[4.5] == {1006, 1033}
    (near,) = (found for sigma, found in seeds.items() if round(sigma, 2) == 1.11)
    assert {1006, 1033, 1093} < near
    assert len(near) == 4
    assert "all three do at σ 1.12, the first two at 4.5" in page


def test_accuracies_are_those_of_the_committed_trainings():
    """Mean, least and most of three seeds."""
    found = pd.read_csv(ROOT / "results" / "reference" / "decide-run" / "utility.csv")
    rows = [row for row in rows_of("2026-11-utility.md", 5) if row[0].endswith("three seeds")]
    assert len(rows) == 2
    for name, *cells in rows:
        model = name.split("`")[1]
        for eps, cell in zip((None, 8, 3, 1), cells, strict=True):
            same = found["eps"].isna() if eps is None else found["eps"] == eps
            values = 100 * found[(found["utility_model"] == model) & same]["accuracy"]
            assert len(values) == 3
            assert cell == f"{values.mean():.1f} % ({values.min():.1f} to {values.max():.1f})"


def test_what_gradinversions_terms_and_statistics_are_worth_in_the_stored_runs():
    page = (FINDINGS / "2026-11-gradinversion.md").read_text()
    found = results("gradinversion-ablation")
    attacked, noise = found[found["floor"].isna()], found[found["floor"] == "noise-gradient"]
    terms = ["gradient", "fidelity", "lazy", "registered"]
    by_setting = {
        setting: rows.set_index("image")["lpips"] for setting, rows in attacked.groupby(["bn_stats", "terms"])
    }
    for source, medians, nearer in (
        ("exact", [0.154, 0.079, 0.081, 0.086], [7, 4, 3]),
        ("running", [0.154, 0.092, 0.131, 0.125], [6, 3, 2]),
    ):
        assert [round(by_setting[source, name].median(), 3) for name in terms] == medians
        gradient, fidelity, lazy, registered = (by_setting[source, name] for name in terms)
        better = [(fidelity, gradient), (lazy, fidelity), (registered, fidelity)]
        assert [int((one < other).sum()) for one, other in better] == nearer
    lpips = noise[noise["bn_stats"] == "exact"].groupby("terms")["lpips"].median().round(3)
    assert [lpips[name] for name in terms[:2]] == [0.215, 0.130]
    assert "(0.154 to 0.079), and bring all 8 images nearer but one" in page
    assert "0.081 (lazy) and 0.086\n(registered), nearer than without them on 4 and 3 of the 8" in page
    assert "(0.154 to 0.092), and the group terms take a part of it back" in page
    assert "(0.131 and 0.125, nearer on 3 and 2 of the 8)" in page
    found = results("bn-knowledge")
    attacked = found[found["floor"].isna()]
    assert attacked["original_index"].nunique() == 12
    lpips = attacked.groupby(["bn_stats", "labels"])["lpips"].median()
    for labels in ("known", "inferred"):
        exact, running, none = (lpips[source, labels] for source in ("exact", "running", "none"))
        assert exact < none == running

    def nearer(one, other, rows=attacked, others=attacked):
        """Images of settings (statistics, labels) that are nearer by LPIPS in one than in the other."""
        names = ["bn_stats", "labels", "batch_seed", "image"]
        one, other = (
            found.set_index(names).sort_index()["lpips"].loc[setting]
            for found, setting in ((rows, one), (others, other))
        )
        return int((one < other).sum())

    assert [nearer(("exact", labels), ("none", labels)) for labels in ("known", "inferred")] == [12, 10]
    assert "bring 12 of 12 images nearer than none where the labels are known, and 10 of 12 where" in page
    for one, other in (("none", "running"), ("running", "none")):
        assert not any(nearer((one, labels), (other, labels)) for labels in ("known", "inferred"))
    noise = found[found["floor"] == "noise-gradient"]
    for labels in ("known", "inferred"):
        assert nearer(("none", labels), ("none", labels), others=noise) == 10
    assert "nearer than when fed noise on 10 of 12 images" in page
    correct = attacked[attacked["labels"] == "inferred"].groupby("batch_seed")["label_correct"].mean()
    assert sorted(correct) == [0.5, 1, 1]
    assert {6, 3} <= set(attacked.groupby(["bn_stats", "labels"])["iip"].sum())
    for count, words in ((6, "6 of 12 is 21 to 79 %"), (3, "of 3 of 12 5 to 57 %")):
        low, high = clopper_pearson(count, 12)
        assert words.endswith(f"{100 * low:.0f} to {100 * high:.0f} %")
        assert words in page


def test_how_a_share_of_the_gradient_goes_with_what_comes_back_in_the_stored_run():
    found, page = results("confidence"), (FINDINGS / "2026-11-gradinversion.md").read_text()
    found = found[found["floor"].isna()]
    assert found["original_index"].nunique() == 8
    for defence, ends in (("none", "between −.88 and −.33"), ("clip", "between −.50 and .17")):
        rows = found[found["defense"] == defence].groupby(["victim", "logit_scale"])
        ranks = [spearmanr(each["image_grad_share"], each["lpips"]).statistic for _, each in rows]
        low, high = (f"{end:.2f}".replace("-", "−").replace("0.", ".") for end in (min(ranks), max(ranks)))
        assert ends == f"between {low} and {high}"
        assert f"lie {ends}" in page
    converged = found[found["victim"] == "trained"]
    each = converged.pivot(index=["logit_scale", "batch_seed", "image"], columns="defense", values="lpips")
    assert ((each["clip"] < each["none"]).sum(), len(each)) == (17, 24)
    medians = converged[converged["defense"] == "none"].groupby("logit_scale")["lpips"].median().round(3)
    assert list(medians[[1, 0.25]]) == [0.093, 0.061]
    assert medians.is_monotonic_increasing


def test_which_methods_see_more_than_their_noise_on_one_batch():
    found, page = results("gradinversion-table"), (FINDINGS / "2026-11-gradinversion.md").read_text()
    nearer = {}
    for attack in ("gradinversion", "inverting-gradients", "latent-projection", "dlg"):
        own = found[(found["attack"] == attack) & found["floor"].isna()].set_index("image")["lpips"]
        fed = found[(found["floor"] == "noise-gradient") & (found["floor_of"] == attack)]
        nearer[attack] = int((own < fed.set_index("image")["lpips"]).sum())
    assert nearer.pop("gradinversion") == 7
    assert set(nearer.values()) == {4}
    assert "than the same search fed noise on 7 of the 8, the three others on 4 each" in page


def test_knowing_of_pruning_costs_nothing_in_the_stored_run():
    (row,) = pd.read_csv(ROOT / "results/reference/prune-half/adaptive.csv").to_dict("records")
    assert (row["batches"], row["psnr_verdict"], row["lpips_verdict"]) == (150, "no worse", "no worse")
    change = [f"{row[f'psnr_{name}']:.2f}".replace("-", "−") for name in ("gain", "low", "high")]
    means = {f"{row[f'psnr_{name}']:.1f}" for name in ("adaptive", "not_adaptive")}
    assert means == {"31.3"}
    said = (FINDINGS / "2026-11-softened.md").read_text()
    assert "31.3 dB with and without knowing: +{} dB ({} to {}), LPIPS +.0001".format(*change) in said
    assert f"{row['lpips_gain']:.4f}" == "0.0001"


def test_knowing_of_four_bits_pays_in_the_stored_run():
    (row,) = pd.read_csv(ROOT / "results/reference/quantize-4/adaptive.csv").to_dict("records")
    assert (row["batches"], row["psnr_verdict"], row["lpips_verdict"]) == (150, "better", "better")
    psnr, lpips = (
        [f"{row[f'{metric}_{name}']:.{digits}f}" for name in ("gain", "low", "high")]
        for metric, digits in (("psnr", 2), ("lpips", 3))
    )
    lpips = [value.replace("-0.", "−.") for value in lpips]
    said = (FINDINGS / "2026-11-defences.md").read_text()
    assert "at 4 bits +{} dB ({} to {}) and LPIPS {} ({} to {})".format(*psnr, *lpips) in said


def test_updates_of_local_steps_are_those_of_the_stored_run():
    found = results("fedavg")
    attacked = found[found["floor"].isna()].fillna({"local_batch_size": 4})
    means = attacked.groupby(["local_epochs", "local_batch_size", "update"])[["psnr", "lpips"]].mean()
    by_batch = attacked.groupby(["local_epochs", "local_batch_size", "batch_seed", "update"])["psnr"].mean()
    page = (FINDINGS / "2026-11-fedavg.md").read_text()
    table = {row[0]: row[2:] for row in rows_of("2026-11-fedavg.md", 6)[2:]}
    assert len(table) == 4
    for setting, (*ways, difference) in table.items():
        key = tuple(float(n) for n in setting.split(", "))
        for name, told in zip(("simulate", "surrogate", "single-gradient"), ways, strict=True):
            psnr, lpips = means.loc[(*key, name)]
            assert told == f"{psnr:.1f} ({lpips:.3f})".replace("(0.", "(.")
        if key != (1, 4):
            each = by_batch.loc[key].unstack()
            change = each["simulate"] - each["single-gradient"]
            half = 3.182 * change.std(ddof=1) / 2  # Student's t with 3 degrees of freedom, 4 batches
            listed = ", ".join(f"{c:.1f}" for c in change)
            assert difference == f"{listed}; mean {change.mean():.1f} ± {half:.1f}"
            gain = each["surrogate"] - each["single-gradient"]
            half = 3.182 * gain.std(ddof=1) / 2
            assert f"{gain.mean():.1f} ± {half:.1f}".replace("-", "−") in page
    alone = means.xs("single-gradient", level="update")["psnr"].drop((1, 4))
    assert f"gets far**: {alone.min():.1f} to {alone.max():.1f} dB" in page
    many, one = (means.loc[(*key, "simulate"), "psnr"] for key in ((5, 1), (1, 4)))
    assert f"a gradient did ({many:.1f} and {one:.1f} dB;" in page


def test_knowing_a_defence_makes_no_search_worse_in_the_stored_suite():
    found = pd.read_csv(ROOT / "results/reference/defences/adaptive.csv")
    verdicts = found.set_index("defense")[["psnr_verdict", "lpips_verdict"]]
    assert "worse" not in verdicts.to_numpy()
    assert (len(found), (found["psnr_verdict"] == "better").sum()) == (26, 24)
    assert "better by PSNR in 24 of 26" in (FINDINGS / "2026-11-defences.md").read_text()
    undecided = [
        (name, column) for column in verdicts for name in verdicts.index[verdicts[column] == "undecided"]
    ]
    assert undecided == [("prune ratio=0.5", "psnr_verdict"), ("quantize bits=8", "psnr_verdict")]
    told = verdicts["psnr_verdict"][lambda v: v.index.str.startswith(("noise", "prune ratio=0.9"))]
    assert set(told) == {"better"}
    assert len(told) == 5


def test_the_groups_of_defences_are_those_of_the_stored_suite():
    """What each leaves to the search that knows or to draws, whichever is more, on average."""
    found = results("defences")
    found = found[found["floor"].isna()]
    plain = found[found["defense"] == "none"]["psnr"].mean()
    found = found[(found["adaptive"] == True) | (found["defense"] == "censor")]  # noqa: E712
    strengths = ["prune_ratio", "topk_ratio", "noise_std", "quantize_bits", "outpost_noise", "precode_width"]
    strengths.append("percentile_gamma")
    drawn = dpbench.load(ROOT / "results/reference/defences-drawn").query("defense != 'none'")
    both = pd.concat([found, drawn[drawn["floor"].isna()]], ignore_index=True)
    means = both.groupby(["attack", "defense", *strengths], dropna=False)["psnr"].mean()
    means = means.groupby(["defense", *strengths], dropna=False).max()
    taken = {(key[0], *(k for k in key[1:] if pd.notna(k))): plain - mean for key, mean in means.items()}
    for low, high, group in (
        (1, 4, [("prune", 0.5), *(("percentile", share) for share in (0.001, 0.01, 0.1))]),
        (5, 10, [("prune", 0.9), ("topk", 0.1), ("sign",), ("quantize", 8), ("noise", 0.03)]),
        (5, 10, [("outpost", 0.08), ("outpost", 0.8), ("outpost", 8)]),
        (4, 11, [("precode", 16), ("precode", 64), ("precode", 256)]),
        (11, 13, [("prune", 0.99), ("topk", 0.01), ("noise", 0.1), ("quantize", 4)]),
        (15, 17, [("topk", 0.001), ("noise", 0.3)]),
    ):
        assert all(low <= taken[key] <= high for key in group), {key: taken[key] for key in group}
    rows = found[found["defense"] == "soteria"]
    assert (plain - rows.groupby("soteria_ratio")["psnr"].mean()).max() < 2
    ignorant = results("defences").query("defense == 'percentile' and adaptive == False")
    assert 12 < (plain - ignorant.groupby("percentile_gamma")["psnr"].mean()).max() < 13


def test_what_is_worth_nothing_and_what_one_bit_leaves():
    solved = pd.read_parquet(ROOT / "results/reference/exact-behind/results.parquet")
    solved = solved[solved["floor"].isna() & (solved["victim"] == "early")]
    strengths = solved.groupby(["defense", "soteria_ratio", "precode_width"], dropna=False)["psnr"]
    assert len(strengths) == 7
    assert (strengths.count() == 20).all()
    assert (strengths.min() > 100).all()
    psnr, count = [], []
    for name in ("defences", "defences-linear"):
        rows = results(name).query("quantize_bits == 1")
        rows = rows[rows["floor"].isna() & (rows["adaptive"].astype(str) != "False")]
        psnr.append(f"{rows['psnr'].mean():.1f}")
        count.append(int(rows["identified"].astype(bool).sum()))
    said = (FINDINGS / "2026-11-defences.md").read_text()
    assert "have {} and {} dB and identify {} and {} of 20 images".format(*psnr, *count) in said


def test_what_the_page_on_exact_attacks_behind_defences_says_of_the_search():
    """Beside the figures of before, which are the page's own."""
    page = (FINDINGS / "2026-11-exact-behind-defences.md").read_text()
    knows = results("defences").query("adaptive == True and floor.isna()")
    psnr = {
        name: knows.query(f"defense == '{name}'").groupby(strength)["psnr"].mean()
        for name, strength in (
            ("soteria", "soteria_ratio"),
            ("precode", "precode_width"),
            ("outpost", "outpost_noise"),
            ("quantize", "quantize_bits"),
        )
    }
    said = f"{psnr['soteria'][0.5]:.1f} dB under `soteria` .5 and {psnr['precode'][256]:.1f} dB"
    assert said in page
    gained = [*(psnr["outpost"] - [24.8, 24.7, 22.4]), psnr["quantize"][1] - 13.1, psnr["quantize"][4] - 18.2]
    assert f"{min(gained):.1f} to {max(gained):.1f} dB more than the search that knew before" in page
    one_bit = knows.query("defense == 'quantize' and quantize_bits == 1")["identified"].astype(bool)
    assert f"and {one_bit.sum()} of {len(one_bit)} images are identified" in page


def test_only_censor_kept_a_search_from_identifying_half_of_the_images():
    assert (
        "only `censor` kept a search from identifying at least half of 20"
        in (ROOT / "docs" / "defences.md").read_text()
    )
    found = results("defences")
    found = found[found["floor"].isna() & (found["adaptive"].astype(str) != "False")]
    settings = ["defense", *(name for name in found if name.startswith(tuple(found["defense"].unique())))]
    counts = found.groupby(settings, dropna=False)["identified"].agg(["sum", "count"])
    assert len(counts) == 30
    assert (counts["count"] == 20).all()
    few = counts.index.get_level_values("defense")[counts["sum"] < 10]
    assert list(few) == ["censor"] * 3


def test_the_default_search_beside_breaching():
    """What attacks.md says of the finding's table; the table itself comes from the files."""
    page = (ROOT / "docs" / "attacks.md").read_text()
    convnet, deep = (
        pd.DataFrame(
            quality.compared(pd.read_csv(ROOT / "results" / "reference" / "quality" / f"{name}.csv"))
        )
        for name in ("convnet", "resnet20")
    )
    rows = convnet.set_index(["batch_size", "defense", "attack"])
    peers = rows[rows.index.get_level_values("attack").str.startswith("breaching:")]
    gain = peers["gain"].groupby(level=[0, 1]).min()
    noisy = gain.xs("dp:100", level="defense")
    rest = gain.drop("dp:100", level="defense")
    assert set(peers["images"]) == {20}
    assert f"by {rest.min():.0f} to {rest.max():.0f} dB on average" in page
    assert (peers.drop("dp:100", level="defense")["low"] > 0).all()
    assert f"(it gains {min(noisy):.1f} and {max(noisy):.1f} dB)" in page
    deep = deep.set_index("attack")
    better = deep.loc[deep.loc[deep.index.str.startswith("breaching:"), "PSNR"].idxmax()]
    counted = f"nearer on {better['better']} of {better['images']} images after 1,500 iterations"
    assert f"{counted}, by {better['gain']:.0f} dB on average" in page


def test_what_was_counted_without_a_card():
    page, told = (ROOT / "docs" / "engine.md").read_text(), []
    files = [
        pd.read_csv(ROOT / "results" / "reference" / "kernels" / f"{n}.csv") for n in ("before", "after")
    ]
    for before, after in zip(*(f.itertuples(index=False) for f in files), strict=True):
        for row, first in ((before, None), (after, "after")):
            _, search, operations, launches, _, calls, gb, library, gflop, *_ = row
            words = {
                "inverting": "`inverting-gradients --preset paper`",
                "gradinver": "`gradinversion` with its",
            }
            first = first or f"{words[search[:9]]}"
            told.append(
                rf"\| {re.escape(first)}[^|]* \| {operations:,} \| {launches:,} \| {gb:.2f} \| {calls} "
                rf"\| {library:.2f} \| {gflop:.0f} \|"
            )
    assert all(re.search(line, page) for line in told)


def on_the_h200(name):
    return pd.read_csv(ROOT / "results" / "reference" / "h200" / f"{name}.csv")


def test_what_the_h200_took():
    page, found = (ROOT / "docs" / "engine.md").read_text(), on_the_h200("versus_breaching")
    section = page[page.index("## Measured on an H200") : page.index("## Searches side by side")]
    for case, rows in found.groupby("case", sort=False):
        times = rows.set_index("way")["ms/iteration"]
        peer = times[["breaching", "breaching, affine norm"]].min()
        model, size, batch = re.fullmatch(r"resnet(\d+) (\d+) px B=(\d+)", case).groups()
        cells = [f"ResNet-{model}, {batch} image{'s' * (batch != '1')} of {size} px", f"{peer:.1f}"]
        for engine in ("eager", "graph", "compiled"):
            ratio, digits = peer / times[f"dpbench {engine}"], 2 if engine == "eager" else 1
            told = "times as fast" if engine == "eager" and batch == "1" and size == "32" else "times"
            cells.append(f"{times[f'dpbench {engine}']:.1f} ({ratio:.{digits}f} {told})")
        assert "| " + " | ".join(cells) + " |" in section
    engine = on_the_h200("engine").set_index(["case", "variant"])
    few, many = (engine.loc[f"resnet50 224 px B={b}"] for b in (8, 48))
    plain, last = few.loc["as it is"], many.loc["as it is"]
    for row, whole, between, gib, compiling in ((plain, 9.0, 8.7, 5.4, 102), (last, 33.0, 30.5, 11.0, 127)):
        assert row["ms/iteration"] == pytest.approx(whole, abs=0.05)
        assert row["ms between iterations"] == pytest.approx(between, abs=0.051)
        assert row["peak MiB"] / 1024 == pytest.approx(gib, abs=0.05)
        assert int(row["compile s"]) == compiling
    assert f"would make {plain['bound ms']:.1f} ms" in section
    assert f"({plain['TFLOP/s']:.0f} TFLOP/s)" in section
    assert f"({plain['GB/s'] / 1000:.1f} TB/s)" in section
    kinds = on_the_h200("kernels").query("case == 'resnet50 224 px B=8'").set_index("kind")["ms"]
    assert f"libraries take {kinds['convolutions and matrix products']:.1f} ms" in section
    assert f"Triton's kernels {kinds['Triton']:.1f} ms" in section
    assert f"all kernels together take {plain['kernels ms']:.1f} ms" in section
    assert kinds.sum() == pytest.approx(plain["kernels ms"], abs=0.01)
    for variant, words in (
        ("cuDNN tries every algorithm", "let try every algorithm, took {:.1f} ms"),
        ("without combo kernels", "one without combo kernels {:.1f} ms"),
        ("PyTorch's double backward of batch norm", "double backward of batch norm {:.1f} ms"),
    ):
        assert words.format(few.loc[variant, "ms/iteration"]) in section
    later = results("gradinversion-224").query("attack == 'gradinversion' and batch_seed == 1")
    assert f"{1000 * later['seconds'].iloc[0] / (4 * 1500):.1f} ms for an iteration of one seed" in section
    clipped = on_the_h200("defence").query("gradient == 'clipped'")["times plain"].round(1).tolist()
    assert clipped == [6.5, 7.8, 5.3, 18.1]
    assert (on_the_h200("parity")["right"].dropna() == "yes").all()


def test_what_gradinversion_gets_at_224_px():
    found, page = results("gradinversion-224"), (FINDINGS / "2026-11-gradinversion.md").read_text()
    section = page[page.index("## Results at 224 px") :]
    for attack, name in (
        ("gradinversion", "GradInversion"),
        ("floor:noise-gradient", "the same search fed noise instead of the gradient"),
        ("floor:mean-image", "mean image"),
        ("floor:constant-image", "best constant image"),
    ):
        rows = found[found["attack"] == attack]
        lpips = f"{rows['lpips'].mean():.3f}"
        lpips = f"**{lpips}**" if attack == "gradinversion" else lpips
        chosen = [f"{rows[column].sum()} of {len(rows)}" for column in ("iip", "identified")]
        line = " | ".join([name, f"{rows['psnr'].mean():.1f} dB", lpips, *chosen])
        assert f"| {line} |" in section
    images = found.pivot(index=["batch_seed", "image"], columns="attack", values=["psnr", "lpips"])
    gained = images["psnr"]["gradinversion"] - images["psnr"]["floor:noise-gradient"]
    nearer = images["lpips"]["floor:noise-gradient"] - images["lpips"]["gradinversion"]
    assert round(nearer.mean(), 3) == 0.111
    assert nearer.groupby("batch_seed").mean().round(3).tolist() == [0.113, 0.109]
    assert ((nearer > 0).sum(), (gained > 0).sum()) == (15, 12)
    assert gained.groupby("batch_seed").mean().round(1).tolist() == [0.8, 2.2]
    chosen = found.pivot(index=["batch_seed", "image"], columns="attack", values="iip").astype(bool)
    attack, noise = chosen["gradinversion"], chosen["floor:noise-gradient"]
    assert ((attack & ~noise).sum(), (noise & ~attack).sum()) == (8, 0)
    assert [each.groupby("batch_seed").sum().tolist() for each in (attack, noise)] == [[8, 8], [5, 3]]
    assert "there are not enough batches to say whether gradinversion" in sentence(found)
    assert [round(end, 2) for end in clopper_pearson(8, 16)] == [0.25, 0.75]
    assert "got 8 of 16 photographs" in (ROOT / "docs" / "gradinversion.md").read_text()
    tuned = on_the_h200("tuning").set_index("variant")["LPIPS"]
    assert tuned.idxmin() == "cosine, limited (the preset)"
    assert [round(tuned.min(), 3), *tuned.sort_values().round(3).iloc[[1, -1]]] == [0.584, 0.591, 0.644]


def test_a_pretrained_resnet50_does_not_hide_small_photographs():
    found = results("resnet50-search")
    each = found.pivot(index="original_index", columns="attack", values=["psnr", "lpips", "iip"])
    assert len(each) == 4
    lpips, psnr = (each[metric].astype(float) for metric in ("lpips", "psnr"))
    assert (lpips.pop("inverting-gradients") < lpips.min(axis=1)).all()
    assert psnr["inverting-gradients"].mean() > psnr["floor:constant-image"].mean()
    searched = found[found["attack"] == "inverting-gradients"]
    assert (searched["bn_stats"] == "running").all()
    assert searched["note"].isna().all()  # the loss gradients were told
    assert (found["logit_scale"] == 1).all()
    readme = (ROOT / "README.md").read_text()
    (said,) = re.findall(r"Nor does a ResNet-50.*\n.*", readme)
    assert each["iip"]["inverting-gradients"].sum() == 4
    assert each["iip"]["floor:noise-gradient"].sum() == 0
    assert "4 of 4 (40 to 100 %) are identified by features among 20; fed pure noise, 0 of 4" in said


def test_the_informed_attacker_of_rero():
    rows = results("rero").query("threat_model == 'informed' and defense == 'dp' and releases == 1")
    found = rows.groupby("eps_release")[["success", "success_bound"]].mean().loc[[1, 8, 16]]
    said = (ROOT / "results" / "reference" / "README.md").read_text()
    right, bounds = ([f"{share:.3f}".lstrip("0") for share in found[name]] for name in found)
    assert f"right in {right[0]}, {right[1]} and {right[2]} of 400 trials at ε 1, 8 and 16" in said
    assert f"bounds {bounds[0]}, {bounds[1]} and {bounds[2]})" in said
    assert rows.groupby("eps_release")["trials"].sum().unique().tolist() == [400]
    assert rows["original_index"].nunique() == 2


def test_what_is_read_of_a_last_layer_that_a_defence_changed():
    """Before and seeds of tuning are not stored."""
    found = results("defences-converged").query("floor.isna()")
    setting = {
        "none": "defense == 'none'",
        "`prune` .5": "defense == 'prune' and prune_ratio == 0.5",
        "`prune` .9": "defense == 'prune' and prune_ratio == 0.9",
        "largest 10 % (`topk`)": "defense == 'topk'",
        "`percentile` γ .01": "defense == 'percentile'",
        "`quantize` to 8 bits": "defense == 'quantize'",
        "`noise` .003": "noise_std == 0.003",
        "`noise` .03": "noise_std == 0.03",
    }
    rows = [row for row in rows_of("2026-11-held.md", 4) if row[0] in setting]
    assert [row[0] for row in rows] == list(setting)
    now = {}
    for name, ignorant, _, knowing in rows:
        part = found.query(setting[name])
        for said, unaware in ((ignorant, True), (knowing, False)):
            if not said:
                continue
            asked = part if name == "none" else part[(part["adaptive"] == False) == unaware]  # noqa: E712
            assert len(asked) == 20
            lpips = f"{asked['lpips'].mean():.3f}".removeprefix("0")
            assert said == f"{asked['psnr'].mean():.1f} / {lpips}"
        now[name] = knowing.split(" ")[0]
    named = [now[name] for name in list(setting)[1:6]]
    told = f"has {', '.join(named[:-1])} and {named[-1]} dB in the mean"
    page = (FINDINGS / "2026-11-defences.md").read_text()
    assert told in page
    assert f"and {now['none']} dB undefended: within 3 dB" in page
    early = results("defences").query("floor.isna() and adaptive == True")
    for name in list(setting)[1:6]:
        strength = {
            "`percentile` γ .01": "percentile_gamma == 0.01",
            "`quantize` to 8 bits": "quantize_bits == 8",
        }
        strength |= {"largest 10 % (`topk`)": "topk_ratio == 0.1"}
        part = early.query(setting[name]).query(strength.get(name, "psnr > 0"))
        assert len(part) == 20
        assert abs(part["psnr"].mean() - float(now[name])) < 3
