"""A run like the default one, made up: batches of 1 and 4, floors, undefended, DP and pruned rows."""

import numpy as np
import pytest

from dpbench.cell import registered
from dpbench.store.schema import frame

registered.load()  # tests are written for the columns of all parts

FLOORS = {
    "floor:mean-image": (11.0, 0.60),
    "floor:constant-image": (12.0, 0.55),
    "floor:noise-gradient": (9.0, 0.25),
    "floor:start": (8.0, 0.40),
}
DP = {
    "delta": 1e-5,
    "max_grad_norm": 1.0,
    "accountant": "pld",
    "eps_scope": "training",
    "adjacency": "add-remove",
    "train_size": 50_000,
    "epochs": 10.0,
    "steps": 500_000,
    "sample_rate": 2e-5,
}
VICTIM = {
    "model": "convnet",
    "norm": "none",
    "mode": "eval",
    "victim": "early",
    "victim_accuracy": 0.55,
    "data": "samples",
    "label_draw": "distinct",
    "device": "cpu",
    "status": "ok",
}


def rows_of(
    attack, defense, batch_size, about_psnr, about_lpips, *, lpips_there=True, seed=0, key=None, **more
):
    """Rows of one cell; its images' PSNR and LPIPS scatter about what is given."""
    rng = np.random.default_rng([seed, batch_size, sum(map(ord, attack + defense))])
    floor = attack.startswith("floor:")
    if floor:
        more = {"floor": attack.removeprefix("floor:")} | more
    rows = []
    for image in range(batch_size):
        row = VICTIM | {
            "key": key
            or f"{attack}-{defense}-{more.get('eps', '')}-{batch_size}-{seed}".translate(
                dict.fromkeys(map(ord, ":.+"), "-")
            ),
            "attack": attack,
            "defense": defense,
            "adaptive": defense != "none",
            "batch_size": batch_size,
            "batch_seed": seed,
            "attack_seed": 0,
            "image": image,
            "psnr": float(about_psnr + rng.uniform(-0.2, 0.2)),
            "ssim": 0.3,
            "fft2d": 0.01,
            "seconds": 4.0,
            "psnr_floor": 12.2,
        }
        if not floor:
            row |= {"labels": "inferred", "label_correct": image % 2 == 0}
        if lpips_there:
            row |= {
                "lpips": float(about_lpips * rng.uniform(0.95, 1.05)),
                "lpips_net": "alex",
                "lpips_floor": 0.2375,
            }
        rows.append(row | more)
    return rows


def alone(table):
    """The same results, each image in a batch of its own."""
    return table.assign(batch_seed=table["batch_seed"] * 1000 + table["image"], image=0, batch_size=1)


def run(undefended=(20.0, 0.08), defended=(9.0, 0.45), *, lpips_there=True, dp=True, batch_sizes=(1, 4)):
    """Rows of a whole run; `undefended` and `defended` are (PSNR, LPIPS)."""
    rows = []
    for size in batch_sizes:
        for floor, (psnr, lpips) in FLOORS.items():
            of = (
                {}
                if floor in ("floor:mean-image", "floor:constant-image")
                else {"floor_of": "inverting-gradients"}
            )
            rows += rows_of(floor, "none", size, psnr, lpips, lpips_there=lpips_there, **of)
        rows += rows_of("inverting-gradients", "none", size, *undefended, lpips_there=lpips_there)
        if dp:
            for eps, sigma, release in ((1.0, 0.49, 12.0), (1000.0, 0.11, 90.0)):
                given = DP | {
                    "eps": eps,
                    "noise_multiplier": sigma,
                    "eps_release": release,
                    "rero_release": 0.8,
                }
                rows += rows_of(
                    "inverting-gradients", "dp", size, *defended, lpips_there=lpips_there, **given
                )
    return rows


@pytest.fixture(scope="session")
def make_run():
    return lambda *args, **kwargs: frame(run(*args, **kwargs))


@pytest.fixture(scope="session")
def make_rows():
    return rows_of


@pytest.fixture(scope="session")
def in_batches_of_their_own():
    return alone


@pytest.fixture
def dp():
    """Columns of a DP row."""
    return DP | {"eps": 1.0, "noise_multiplier": 0.5, "eps_release": 12.0, "rero_release": 0.8}
