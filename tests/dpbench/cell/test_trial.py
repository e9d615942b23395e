from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from dpbench.cell.grid import CONSTANT_IMAGE, MEAN_IMAGE, NOISE_GRADIENT, START, Cell
from torch.nn import functional as F

from dpbench import metrics
from dpbench.cell import trial
from dpbench.data import draw_batch, load_data
from dpbench.protocol import InputError, Reconstruction
from dpbench.store import schema
from dpbench.store.columns import conditions

torch.set_num_threads(1)
TIMES = ("seconds", "compile_seconds")


def cell(**changed) -> Cell:
    return Cell(
        **{
            "data": "samples",
            "images_digest": "",
            "image_size": None,
            "model": "convnet",
            "norm": "none",
            "victim": "untrained",
            "weights": None,
            "weights_digest": "",
            "batch_size": 2,
            "batch_seed": 0,
            "label_draw": "distinct",
            "labels": "known",
            "bn_stats": "none",
            "attack": "inverting-gradients",
            "attack_seed": 0,
            "iterations": 3,
            "device": "cpu",
            "version": "0",
        }
        | changed
    )


def dp(**changed) -> Cell:
    training = {
        "eps_scope": "training",
        "delta": 1e-5,
        "train_size": 50_000,
        "epochs": 10,
        "accountant": "pld",
    }
    return cell(**{"defense": "dp", "noise_multiplier": 0.6, "max_grad_norm": 1.0, **training, **changed})


def without_times(rows):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


class Spy:
    """An attack that notes what it is shown and hands back what it was told to."""

    def __init__(self, images=None, labels=None):
        self.images, self.labels = images, labels

    def __call__(self, release, knowledge, *, seed, device, progress):
        self.release, self.knowledge, self.seed = release, knowledge, seed
        images = (
            torch.zeros(release.batch_size, *knowledge.image_shape) if self.images is None else self.images
        )
        labels = torch.zeros(release.batch_size, dtype=torch.int64) if self.labels is None else self.labels
        return Reconstruction(images, labels, "known", 0.0, torch.zeros_like(images), 1, 0.0)


@pytest.fixture
def spy(monkeypatch):
    found = Spy()
    monkeypatch.setattr(trial, "attack_of", lambda cell: found)
    return found


@pytest.mark.parametrize("given", [cell(), dp(), cell(attack=NOISE_GRADIENT, floor_of="inverting-gradients")])
def test_same_cell_same_result_whatever_ran_before(given):
    first = trial.run_cell(given)
    torch.rand(17)
    trial.run_cell(cell(batch_seed=5))
    again = trial.run_cell(given)
    assert without_times(first.rows) == without_times(again.rows)
    assert torch.equal(first.images, again.images)


@pytest.mark.parametrize(
    "given",
    [cell(attack=MEAN_IMAGE), cell(), dp(), cell(attack=NOISE_GRADIENT, floor_of="dlg", attack_seed=1)],
)
def test_rows_fit_the_schema(given):
    result = trial.run_cell(given)
    table = schema.frame(schema.checked(row) for row in result.rows)
    assert (table["status"] == "ok").all()
    assert (table["key"] == given.key()).all()
    assert len(result.images) == len(result.originals) == len(result.rows)


def test_score_of_the_mean_image_by_hand():
    data = load_data("samples")
    batch = draw_batch(data, 2, 0)
    rows = trial.run_cell(cell(attack=MEAN_IMAGE)).rows
    for i, row in enumerate(rows):
        error = (data.mean_image.double() - batch.images[i].double()).square().mean()
        assert row["psnr"] == pytest.approx(-10 * float(error.log10()), abs=1e-4)
        assert (row["original_index"], row["label"]) == (batch.indices[i], int(batch.labels[i]))


def test_constant_image_beats_the_mean_image_it_is_an_oracle_for():
    best = trial.run_cell(cell(attack=CONSTANT_IMAGE)).rows
    grey = torch.full((2, 3, 32, 32), 0.5)
    given = metrics.psnr(grey, draw_batch(load_data("samples"), 2, 0).images)
    assert all(row["psnr"] >= float(p) for row, p in zip(best, given, strict=True))


def test_start_of_the_undefended_attack_comes_along_and_only_there():
    assert [row["attack"] for row in trial.run_cell(cell()).rows] == ["inverting-gradients"] * 2 + [START] * 2
    assert {row["attack"] for row in trial.run_cell(dp()).rows} == {"inverting-gradients"}


def test_permuted_batch_is_put_in_order_labels_with_it(spy):
    batch = draw_batch(load_data("samples"), 4, 0)
    order = torch.tensor([2, 0, 3, 1])
    spy.images, spy.labels = batch.images[order], batch.labels[order].clone()
    spy.labels[0] = (spy.labels[0] + 1) % 10  # what was found for original 2
    result = trial.run_cell(cell(batch_size=4))
    rows = result.rows[:4]
    assert [row["psnr"] for row in rows] == [float("inf")] * 4
    assert [row["label_correct"] for row in rows] == [True, True, False, True]
    assert torch.equal(result.images[:4], batch.images)


@pytest.mark.parametrize("labels", ["known", "inferred"])
def test_attack_is_told_labels_only_where_they_are_known(spy, labels):
    trial.run_cell(cell(labels=labels))
    batch = draw_batch(load_data("samples"), 2, 0)
    if labels == "known":
        assert torch.equal(spy.knowledge.labels, batch.labels)
    else:
        assert spy.knowledge.labels is None


def test_undefended_release_is_the_gradient_of_the_mean_loss(spy):
    trial.run_cell(cell())
    scene = trial.prepare(cell())
    model = scene.victim.model
    expected = [torch.zeros_like(p) for p in model.parameters()]
    for image, label in zip(scene.images, scene.labels, strict=True):
        model.zero_grad()
        F.cross_entropy(model(image[None]), label[None]).backward()
        expected = [e + p.grad / 2 for e, p in zip(expected, model.parameters(), strict=True)]
    for found, wanted in zip(spy.release.gradients, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert spy.release.guarantee is None


def test_noise_floor_knows_nothing_of_the_gradient(spy):
    trial.run_cell(cell(attack=NOISE_GRADIENT, floor_of="dlg"))
    true = trial.released(cell(), trial.prepare(cell()))
    noise, gradient = (torch.cat([g.flatten() for g in r.gradients]) for r in (spy.release, true))
    assert noise.norm() == pytest.approx(float(gradient.norm()), rel=1e-4)
    cosine = F.cosine_similarity(noise, gradient, 0)
    assert abs(cosine) < 5 / len(noise) ** 0.5 * 5  # tensors of few entries carry much of the norm


def test_all_attacks_meet_the_same_noise():
    scene = trial.prepare(dp())
    one, two = (trial.released(dp(attack=name), scene) for name in ("dlg", "idlg"))
    other = trial.released(dp(attack_seed=1), scene)
    assert all(torch.equal(a, b) for a, b in zip(one.gradients, two.gradients, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one.gradients, other.gradients, strict=True))


def test_dp_row_carries_its_guarantee():
    row = trial.run_cell(
        dp(noise_multiplier=None, eps=8.0, eps_scope="release", train_size=None, epochs=None)
    ).rows[0]
    assert row["eps"] is None
    assert row["eps_release"] == pytest.approx(8, rel=1e-3)
    assert row["noise_multiplier"] == pytest.approx(0.6002, rel=0.01)
    assert (row["sample_rate"], row["steps"], row["accountant"]) == (1, 1, "analytic")
    assert 0.1 < row["rero_release"] <= 1


def test_undefended_row_has_no_epsilon():
    row = schema.checked(trial.run_cell(cell()).rows[0])
    assert {"eps", "eps_release", "noise_multiplier", "rero_release", "delta"}.isdisjoint(row)


def test_shares_are_the_gradients_own():
    shares = trial.image_shares(trial.prepare(cell(batch_size=4)))
    assert sum(share for _, share in shares) == pytest.approx(1)
    assert all(loss > 0 and 0 < share < 1 for loss, share in shares)


def test_broken_attack_is_a_failed_row_and_no_exception(monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(trial, "attack_of", lambda cell: broken)
    result = trial.run_cell(cell())
    assert result.status == "failed"
    assert len(result.rows) == 2
    assert "ZeroDivisionError: by nought" in result.rows[0]["error"]
    schema.checked(result.rows[0])


def test_failed_row_stands_beside_those_of_the_same_conditions(monkeypatch):
    asked = dp(
        noise_multiplier=None,
        eps=8.0,
        eps_scope="release",
        train_size=None,
        epochs=None,
        model="convnet",
        norm="none",
        victim="early",
    )
    whole = trial.run_cell(asked).rows[0]
    monkeypatch.setattr(trial, "attack_of", lambda cell: 1 / 0)
    failed = trial.run_cell(asked).rows[0]
    names = [name for name in conditions() if name != "labels"]
    assert {name: failed.get(name) for name in names} == {name: whole.get(name) for name in names}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (cell(batch_size=21, label_draw="random"), "20 images"),
        (cell(attack="nothing"), "Unknown attack"),
        (cell(defense="nothing"), "Unknown defen"),
        (cell(data="folder:/nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_run_is_skipped_with_the_reason(given, said):
    result = trial.run_cell(given)
    assert result.status == "skipped"
    assert said in result.rows[0]["error"]


def test_images_that_are_not_square_are_refused(monkeypatch):
    data = load_data("samples")
    monkeypatch.setattr(trial, "load_data", lambda spec, size: replace(data, images=data.images[..., :24]))
    trial.dataset.cache_clear()
    try:
        with pytest.raises(InputError, match="--image-size"):
            trial.prepare(cell())
    finally:
        trial.dataset.cache_clear()


def test_user_model_is_left_as_it_was():
    scene = trial.prepare(dp())
    before = {name: value.clone() for name, value in scene.victim.model.state_dict().items()}
    trial.measure(dp(), scene)
    after = scene.victim.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None and not hasattr(p, "grad_sample") for p in scene.victim.model.parameters())


def test_defence_that_hides_everything_leaves_less_than_none():
    undefended = trial.run_cell(cell(batch_size=1, iterations=150)).rows[0]
    defended = trial.run_cell(dp(batch_size=1, iterations=150, noise_multiplier=5.0)).rows[0]
    assert undefended["psnr"] > defended["psnr"] + 3


def row(attack, psnr, lpips, **changed):
    same = {"status": "ok", "data": "samples", "model": "convnet", "victim": "early", "batch_size": 1}
    same |= {"batch_seed": 0, "image": 0, "attack_seed": 0, "labels": "known", "defense": "none"}
    return same | {"attack": attack, "psnr": psnr, "lpips": lpips} | changed


def floors_of(rows) -> pd.DataFrame:
    table = trial.attach_floors(schema.frame(rows))
    return table[~table["attack"].str.startswith("floor:")].reset_index()


PUBLIC = [
    row(MEAN_IMAGE, 12.0, 0.6, attack_seed=None, labels=None),
    row(CONSTANT_IMAGE, 13.0, 0.5, attack_seed=None, labels=None),
]


def test_floor_is_the_best_guess_of_the_same_image():
    rows = [*PUBLIC, row(MEAN_IMAGE, 20.0, 0.1, batch_seed=1), row(MEAN_IMAGE, 21.0, 0.1, image=1)]
    rows += [row("dlg", 30.0, 0.1), row("dlg", 11.0, 0.3, defense="dp")]
    found = floors_of(rows)
    assert found["psnr_floor"].tolist() == [13.0, 13.0]
    assert found["lpips_floor"].tolist() == [0.5, 0.5]


def test_floor_counts_noise_and_start_of_the_same_search_only():
    rows = [
        *PUBLIC,
        row(NOISE_GRADIENT, 9.0, 0.2, floor_of="dlg"),
        row(START, 14.0, 0.4, floor_of="dlg"),
        row(NOISE_GRADIENT, 99.0, 0.01, floor_of="idlg"),
        row(NOISE_GRADIENT, 99.0, 0.01, floor_of="dlg", attack_seed=1),
        row(NOISE_GRADIENT, 99.0, 0.01, floor_of="dlg", max_iterations=9),
        row(NOISE_GRADIENT, 99.0, 0.01, floor_of="dlg", status="failed"),
        row("dlg", 30.0, 0.1),
    ]
    found = floors_of(rows)
    assert found[["psnr_floor", "lpips_floor"]].values.tolist() == [[14.0, 0.2]]


def test_floor_without_lpips_and_without_floors():
    rows = [{**r, "lpips": None} for r in PUBLIC] + [
        row("dlg", 30.0, None),
        row("dlg", 30.0, None, batch_seed=7),
    ]
    found = floors_of(rows)
    assert found["lpips_floor"].isna().all()
    assert found["psnr_floor"][0] == 13.0
    assert pd.isna(found["psnr_floor"][1])


def planted(given: Cell) -> Cell:
    return replace(given, attack="analytic", threat_model="malicious-linear", iterations=None)


def test_planted_layer_is_attacked_and_scored():
    row = trial.run_cell(planted(cell(batch_size=1))).rows[0]
    assert row["psnr"] > 60
    assert (row["identified"], row["gallery_size"], row["threat_model"]) == (True, 20, "malicious-linear")
    defended = trial.run_cell(planted(dp(batch_size=1, noise_multiplier=0.001, prior="wiener"))).rows[0]
    assert 20 < defended["psnr"] < row["psnr"]
    assert defended["prior"] == "wiener"


def test_releases_are_noised_anew_and_attacks_get_their_mean():
    scene = trial.prepare(dp(releases=4))
    found = trial.released(dp(releases=4), scene)
    assert len(found.each) == 4
    flat = torch.stack([torch.cat([g.flatten() for g in each]) for each in found.each])
    mean = torch.cat([g.flatten() for g in found.gradients])
    torch.testing.assert_close(flat.mean(0), mean)
    # sigma C / B each, and the noise of different releases is independent
    noise = flat - mean
    assert float(noise.std() * (4 / 3) ** 0.5) == pytest.approx(0.6 / 2, rel=0.02)
    assert found.guarantee.releases == 4
    single = trial.released(dp(), scene).guarantee
    assert found.guarantee.eps_release > single.eps_release
    assert found.guarantee.eps == single.eps


def test_the_attack_sees_all_releases_and_no_original(spy):
    trial.run_cell(dp(releases=3))
    assert len(spy.release.repeats) == 3
    assert spy.knowledge.candidates is None
    assert not torch.equal(spy.knowledge.prior.mean_image, draw_batch(load_data("samples"), 1, 0).images[0])


def test_data_without_shipped_statistics_are_judged_by_their_other_images():
    given = planted(
        dp(data="imagenet-samples", image_size=16, label_draw="random", prior="wiener", batch_size=1)
    )
    scene = trial.prepare(given)
    assert scene.prior.spectrum.shape == (3, 16, 16)
    assert trial.run_cell(given).status == "ok"


@pytest.mark.parametrize("net", [None, "alex"])
def test_metrics_are_given_the_others_and_the_trunk_that_can_be_had(monkeypatch, net):
    asked = []

    def measure(scored):
        asked.append(scored)
        return [{"gallery_size": 7}, {}]

    monkeypatch.setattr(metrics, "why_no_lpips", lambda *_: None if net else "No source.")
    monkeypatch.setattr("dpbench.metrics.matching.match", lambda images, *_: torch.arange(len(images)))
    monkeypatch.setattr(metrics, "measure", measure)
    scene = trial.prepare(cell())
    rows = trial.measure(cell(attack=CONSTANT_IMAGE), scene).rows
    (scored,) = asked
    assert scored.originals.equal(scene.images)
    assert scored.images.equal(metrics.floors.constant_image(scene.images))
    assert scored.others[0].equal(scene.others[0])
    assert scored.lpips_net == net
    assert [row.get("gallery_size") for row in rows] == [7, None]


def test_no_gallery_without_other_images():
    scene = trial.prepare(cell())
    assert trial.measure(cell(attack=MEAN_IMAGE), scene).rows[0]["gallery_size"] == 19
    alone = trial.measure(cell(attack=MEAN_IMAGE), replace(scene, others=None)).rows[0]
    assert not {"identified", "gallery_size", "iip"} & set(alone)
