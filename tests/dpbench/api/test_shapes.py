"""Inputs that are not pictures: volumes, signals and rows of a table, attacked like pictures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dpbench
from attacks import attacks
from attacks.regularisers import TotalVariation
from dpbench.protocol import InputError, Release
from dpbench.store import Store

LABELS = torch.tensor([0, 2])
ATTACKS = ["inverting-gradients", "dlg", "idlg", "label-restoration"]


def volumes():
    return nn.Sequential(nn.Conv3d(2, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 27, 3))


def signals():
    return nn.Sequential(nn.Conv1d(2, 4, 5, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 14, 3))


def tables():
    return nn.Sequential(nn.Linear(20, 16), nn.Sigmoid(), nn.Linear(16, 3))


KINDS = {"volumes": (volumes, (2, 7, 8, 8)), "signals": (signals, (2, 32)), "table": (tables, (20,))}


def benched(kind, **more):
    build, shape = KINDS[kind]
    torch.manual_seed(0)
    inputs = torch.rand(2, *shape)
    usual = {"attacks": ATTACKS, "iterations": 2, "device": "cpu", "progress": False}
    return dpbench.benchmark(build(), inputs, LABELS, **usual | more), inputs


@pytest.mark.parametrize("kind", KINDS)
def test_they_run_under_every_defence_with_the_metrics_that_make_sense(kind):
    defences = ["none", "clip", "dp", "prune"]
    table, inputs = benched(kind, defense=defences, noise_multiplier=0.1)
    assert (table["status"] == "ok").all()
    rows = table[table["floor"].isna()]
    assert set(rows["defense"]) == set(defences)
    rebuilt = rows[rows["attack"] != "label-restoration"]
    assert rebuilt["psnr"].notna().all()
    assert rebuilt[["ssim", "lpips", "iip", "fft2d"]].isna().all().all()
    floor = table[table["attack"] == "floor:mean-image"]["psnr"].to_numpy(float)
    expected = -10 * (inputs - 0.5).flatten(1).square().mean(1).log10()
    assert floor == pytest.approx(expected.numpy(), abs=1e-3)


def test_the_picture_of_a_volume_is_its_middle_slice_and_a_table_has_none(tmp_path):
    for kind in KINDS:
        _, inputs = benched(kind, attacks="idlg", iterations=1, out=tmp_path / kind)
        assert (tmp_path / kind / "report.html").exists()
        store = Store(tmp_path / kind)
        shown = [store.read(key).originals for key in store.done()]
        if kind == "volumes":
            middle = (inputs[:, :1, 3] * 255).round().byte().repeat(1, 3, 1, 1)
            assert all((each[:2] == middle.numpy()).all() for each in shown)
        else:
            assert shown == [None] * len(shown)
        assert (tmp_path / kind / "reconstructions.png").exists() == (kind == "volumes")


def test_a_row_of_a_table_comes_back_from_its_gradient():
    torch.manual_seed(0)
    row = torch.rand(1, 20)
    table = dpbench.benchmark(
        tables(), row, torch.tensor([1]), attacks="idlg", iterations=300, device="cpu", progress=False
    )
    assert table.loc[table["attack"] == "idlg", "psnr"].item() > 40


def test_a_volume_beats_its_floors_without_a_defence():
    torch.manual_seed(0)
    volume = nn.functional.interpolate(torch.rand(1, 2, 2, 2, 2), (7, 8, 8), mode="trilinear")
    table = dpbench.benchmark(
        volumes(), volume, torch.tensor([1]), attacks="inverting-gradients", iterations=150, device="cpu",
        progress=False,
    )  # fmt: skip
    rows = table[table["attack"] == "inverting-gradients"]
    assert (rows["psnr"] > rows["psnr_floor"] + 1).all()


def test_informed_attackers_pick_rows_of_a_table():
    others = torch.rand(30, 20), torch.arange(30) % 3
    table, _ = benched(
        "table", attacks="prior-aware", threat_model="informed", others=others, trials=10, iterations=None
    )
    assert table.loc[table["attack"] == "prior-aware", "success"].item() == 1


def test_decoys_are_found_among_rows_of_a_table():
    others = torch.rand(60, 20), torch.arange(60) % 3
    table, _ = benched("table", attacks="idlg", others=others, iterations=300)
    rows = table[table["attack"] == "idlg"]
    assert rows["identified"].all()


def test_what_is_for_pictures_is_refused_in_one_sentence():
    with pytest.raises(
        InputError, match=r"gradinversion is for pictures \(C, H, W\), and the inputs are \(20,\)"
    ):
        benched("table", attacks="gradinversion")
    with pytest.raises(InputError, match="malicious-linear plants a layer for pictures"):
        benched("table", attacks="analytic", others=(torch.rand(9, 20), torch.arange(9) % 3))


def test_every_attack_says_whether_it_is_for_pictures_only():
    free = {name for name, kind in attacks.items() if not kind.pictures_only}
    assert free >= {*ATTACKS, "prior-aware"}
    assert {"gradinversion", "analytic", "deepinversion", "lmmse"}.isdisjoint(free)


@pytest.mark.parametrize("shape", [(1, 2, 5), (1, 2, 4, 5), (1, 2, 3, 4, 5)])
def test_total_variation_is_over_all_axes(shape):
    z = torch.rand(shape)
    expected = sum(float((z.narrow(a, 1, n - 1) - z.narrow(a, 0, n - 1)).abs().mean())
                   for a, n in enumerate(shape) if a > 1)  # fmt: skip
    assert float(TotalVariation(1.0)(z)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("wrap", [lambda z: (z, z.mean()), lambda z: {"logits": z}], ids=["tuple", "dict"])
def test_a_step_of_a_model_with_other_outputs_is_attacked(wrap):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = tables()

        def forward(self, x):
            return wrap(self.body(x))

    torch.manual_seed(0)
    model, x = Model(), torch.rand(2, 20)
    output = model(x)
    logits = output[0] if isinstance(output, tuple) else output["logits"]
    nn.functional.cross_entropy(logits, LABELS).backward()
    release = Release.from_gradients(model, batch_size=2)
    table = dpbench.attack(
        release,
        model=model,
        originals=(x, LABELS),
        attacks="idlg",
        iterations=2,
        device="cpu",
        progress=False,
    )
    assert (table["status"] == "ok").all()


@pytest.mark.parametrize("flat", [True, False], ids=["[B]", "[B, 1]"])
def test_a_step_of_a_model_with_a_single_logit_is_attacked(flat):
    torch.manual_seed(0)
    end = [nn.Flatten(0)] if flat else []
    model = nn.Sequential(nn.Linear(20, 8), nn.Tanh(), nn.Linear(8, 1), *end)
    x, y = torch.rand(2, 20), torch.tensor([0, 1])
    nn.functional.binary_cross_entropy_with_logits(model(x).flatten(), y.float()).backward()
    release = Release.from_gradients(model, batch_size=2)
    table = dpbench.attack(
        release, model=model, originals=(x, y), attacks="idlg", iterations=2, device="cpu", progress=False
    )
    assert (table["status"] == "ok").all()
