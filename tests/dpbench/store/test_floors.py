"""What is set beside each result: the best guess of the same image, and of the same search."""

from __future__ import annotations

import pandas as pd

from dpbench.cell import registered
from dpbench.store import schema
from dpbench.store.floors import attach_floors

registered.load()


def row(attack, psnr, lpips, **changed):
    same = {"status": "ok", "data": "samples", "model": "convnet", "victim": "early", "batch_size": 1}
    same |= {"batch_seed": 0, "image": 0, "attack_seed": 0, "labels": "known", "defense": "none"}
    floor = attack.removeprefix("floor:") if attack.startswith("floor:") else None
    return same | {"attack": attack, "floor": floor, "psnr": psnr, "lpips": lpips} | changed


def floors_of(rows) -> pd.DataFrame:
    table = attach_floors(schema.frame(rows))
    assert table.loc[table["floor"].notna(), ["psnr_floor", "lpips_floor"]].isna().all(axis=None)
    return table[table["floor"].isna()].reset_index()


PUBLIC = [
    row("floor:mean-image", 12.0, 0.6, attack_seed=None, labels=None),
    row("floor:constant-image", 13.0, 0.5, attack_seed=None, labels=None),
]


def test_floor_is_the_best_guess_of_the_same_image():
    others = [{"batch_seed": 1}, {"image": 1}]
    rows = [*PUBLIC, *(row("floor:mean-image", 20.0, 0.1, **changed) for changed in others)]
    rows += [row("dlg", 30.0, 0.1), row("dlg", 11.0, 0.3, defense="dp")]
    found = floors_of(rows)
    assert found["psnr_floor"].tolist() == [13.0, 13.0]
    assert found["lpips_floor"].tolist() == [0.5, 0.5]


def test_floor_counts_noise_and_start_of_the_same_search_only():
    other = [
        {"floor_of": "idlg"},
        {"floor_of": "dlg", "attack_seed": 1},
        {"floor_of": "dlg", "max_iterations": 9},
        {"floor_of": "dlg", "restarts": 3},
        {"floor_of": "dlg", "labels": "inferred"},
        {"floor_of": "dlg", "bn_stats": "exact"},
        {"floor_of": "dlg", "threat_model": "malicious-linear"},
        {"floor_of": "dlg", "victim": "trained"},
        {"floor_of": "dlg", "status": "failed"},
    ]
    rows = [
        *PUBLIC,
        row("floor:noise-gradient", 9.0, 0.2, floor_of="dlg"),
        row("floor:start", 14.0, 0.4, floor_of="dlg"),
        *(row("floor:noise-gradient", 99.0, 0.01, **change) for change in other),
        row("dlg", 30.0, 0.1),
    ]
    found = floors_of(rows)
    assert found[["psnr_floor", "lpips_floor"]].values.tolist() == [[14.0, 0.2]]


def test_a_floor_counts_beside_an_informed_attacker():
    """Its rows have whole numbers in columns that are empty in those of searches and their floors."""
    rows = [
        *PUBLIC,
        row("floor:start", 14.0, 0.4, floor_of="dlg"),
        row("dlg", 30.0, 0.1),
        row("prior-aware", None, None, threat_model="informed", candidates=200, trials=50),
    ]
    assert floors_of(rows)[["psnr_floor", "lpips_floor"]].values.tolist()[0] == [14.0, 0.4]


def test_what_only_a_defence_brings_is_not_looked_for_in_the_floors():
    """An attack's floors are of the undefended gradient: nothing adapts there, nothing is released twice."""
    rows = [row("floor:noise-gradient", 9.0, 0.2, floor_of="dlg")]
    rows.append(row("dlg", 30.0, 0.1, defense="dp", adaptive=True, releases=4, eps=1.0))
    assert floors_of(rows)["psnr_floor"].tolist() == [9.0]


def test_floor_without_lpips_and_without_floors():
    rows = [{**r, "lpips": None} for r in PUBLIC]
    rows += [row("dlg", 30.0, None), row("dlg", 30.0, None, batch_seed=7)]
    found = floors_of(rows)
    assert found["lpips_floor"].isna().all()
    assert found["psnr_floor"][0] == 13.0
    assert pd.isna(found["psnr_floor"][1])
