from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import dpbench
from dpbench.cell.floors import Floor
from dpbench.data import draw_batch, load_data
from dpbench.protocol import InputError

torch.set_num_threads(1)


def network(*before_last: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), *before_last, nn.Sigmoid(), nn.Flatten(), nn.Linear(512, 5)
    )


def batch(size: int = 2):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(size, 3, 16, 16, generator=generator), torch.tensor([3, 1, 4, 0][:size])


def bench(model=None, images=None, labels=None, **options):
    given = batch()
    images, labels = given[0] if images is None else images, given[1] if labels is None else labels
    return dpbench.benchmark(
        network().eval() if model is None else model,
        images,
        labels,
        **{"iterations": 3, "device": "cpu", "attacks": "inverting-gradients"} | options,
    )


def test_every_defence_stands_beside_its_undefended_rows_and_floors():
    table = bench(
        defense=["clip", "dp"], eps=[1, 10], attacks=["inverting-gradients", "dlg"], restarts=1, iterations=2
    )
    attacked = table[~table["attack"].str.startswith("floor:")]
    assert len(attacked) == 2 * 2 * 4  # images, attacks, and none, clip, dp at 1, dp at 10
    assert attacked["psnr_floor"].notna().all()
    assert sorted(attacked["eps"].dropna().unique()) == [1, 10]
    assert set(table["model"]) == {"Sequential"}
    assert (table["status"] == "ok").all()


@pytest.mark.parametrize(("defense", "given"), [("dp", {"eps": [1, 8]}), ("clip+noise", {"noise_std": 1.0})])
def test_a_delta_that_would_allow_to_publish_a_sample_is_warned_of_once(defense, given):
    with pytest.warns(RuntimeWarning, match=r"`delta` 0.1 is not below 1 / `train_size`") as told:
        bench(defense=defense, delta=0.1, iterations=1, **given)
    assert len([each for each in told if "`delta`" in str(each.message)]) == 1
    assert told[0].filename.endswith("test_benchmark.py")  # whoever called benchmark() is shown


def test_a_delta_of_a_release_is_compared_with_no_training_that_nobody_named():
    """It was set beside one of 50,000."""
    with pytest.warns(RuntimeWarning, match="is only for trainings of fewer than 1,000 samples"):
        bench(defense="dp", delta=1e-3, eps_scope="release", iterations=1)


def test_the_budget_is_that_of_the_users_training():
    given = {"train_size": 1000, "epochs": 2, "train_batch_size": [100, "batch"], "iterations": 1}
    table = bench(defense="dp", **given)
    rows = table[table["defense"] == "dp"].drop_duplicates("train_batch_size").sort_values("train_batch_size")
    assert rows[["train_batch_size", "sample_rate", "steps"]].to_numpy().tolist() == [
        [2, 0.002, 1000],
        [100, 0.1, 20],
    ]
    assert rows["noise_multiplier"].is_monotonic_increasing


def test_same_call_same_numbers():
    one, two = bench(defense="dp"), bench(defense="dp")
    assert one["psnr"].equals(two["psnr"])


def test_attack_without_defence_beats_one_under_heavy_noise():
    images = draw_batch(load_data("samples", size=16), 1, 0).images
    labels = torch.tensor([3])
    table = bench(images=images, labels=labels, defense="dp", noise_multiplier=50.0, iterations=200)
    undefended, defended = (
        table.loc[(table["attack"] == "inverting-gradients") & (table["defense"] == d), "psnr"].item()
        for d in ("none", "dp")
    )
    assert undefended > defended + 2


def test_users_model_stays_as_it_is():
    model = network(nn.Dropout(0.5)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bench(model, defense=["dp", "prune"])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_progress_is_told():
    heard, name, noise = [], "inverting-gradients", Floor.NOISE_GRADIENT
    bench(progress=lambda cell, *said: heard.append((cell.attack.name, cell.floor, *said)))
    assert {tuple(said[:2]) for said in heard} == {(name, floor) for floor in (None, noise)}
    assert all(0 <= done <= total == 3 for _, _, done, total, _ in heard)


BAD_CALLS = [
    ({"images": torch.ones(2, 3, 16, 16, dtype=torch.uint8)}, "which one is white"),
    ({"images": torch.rand(2, 4, 16, 16)}, "neither 1 nor 3 channels"),
    ({"images": torch.rand(2, 3, 16, 16) * 255}, r"images must lie in \[0, 1\]"),
    ({"images": torch.full((2, 3, 16, 16), float("nan"))}, "images hold NaN"),
    ({"images": torch.rand(2, 3, 20, 20)}, "does not take images of shape"),
    ({"labels": torch.tensor([0, 5])}, r"labels must lie in 0 \.\.\. 4.*from 0 to 5"),
    ({"labels": torch.tensor([0, -1])}, r"labels must lie in 0 \.\.\. 4"),
    ({"labels": torch.tensor([0.0, 1.0])}, "labels must be whole numbers"),
    ({"labels": torch.tensor([0])}, "one for each of the 2 images"),
    ({"model": nn.Conv2d(3, 5, 3)}, r"must return logits \[B, K\]"),
    ({"model": nn.Flatten()}, "no trainable parameter"),
    (
        {"model": nn.Sequential(nn.Flatten(), nn.LazyLinear(5))},
        "LazyLinear has no weights yet: run the model",
    ),
    ({"model": network(nn.BatchNorm2d(8)).train(), "defense": "dp"}, "(?i)batch ?norm"),
    ({"defense": "encrypt"}, "Unknown defense 'encrypt'"),
    ({"attacks": "guess"}, "known: analytic, deep"),
    ({"defense": "dp", "eps": []}, "`eps` needs at least one value"),
    ({"defense": []}, "`defense` needs at least one value"),
    ({"attacks": ()}, "`attacks` needs at least one value"),
    ({"defense": "dp", "eps": -1}, "`eps` must be above 0"),
    ({"defense": "dp", "eps": 1, "noise_multiplier": 1}, "not both"),
    ({"defense": "prune", "prune_ratio": 1.5}, "`prune_ratio` must be below 1"),
    ({"loss": lambda logits, labels: nn.functional.cross_entropy(logits, labels, reduction="sum")}, "mean"),
    ({"attack": "dlg"}, r"takes no attack \(did you mean 'attacks'\?\)"),
    (
        {"mean": (125.3, 123.0, 113.9)},
        r"`mean` must be of images in \[0, 1\], not 125\.3, 123, 113\.9: divide",
    ),
    ({"mean": (0.5, 0.5, float("nan"))}, "`mean` must be of images in"),
    ({"mean": "half"}, "`mean` must be a number for each channel, not 'half'"),
    ({"std": None}, "`std` must be a number for each channel, not None"),
    ({"std": (0.2, 0.0, 0.2)}, "`std` must be above 0, not 0: give 1 for what never changes"),
    ({"mean_image": "grey"}, "`mean_image` must be a tensor or an array"),
    ({"mean_image": torch.full((3, 16, 16), float("nan"))}, r"`mean_image` must lie in \[0, 1\]"),
]


@pytest.mark.parametrize(("changed", "said"), BAD_CALLS)
def test_what_cannot_be_used_is_refused_in_one_sentence(changed, said):
    with pytest.raises(InputError, match=said) as error:
        bench(**changed)
    assert "\n" not in str(error.value)


def test_images_without_labels_are_no_data_set():
    with pytest.raises(InputError, match="`labels` are missing: give one for each image"):
        dpbench.benchmark(network().eval(), batch()[0], progress=False)


def public(count: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    return torch.rand(count, 3, 16, 16, generator=generator), torch.arange(count) % 5


def test_every_threat_model_from_python():
    threats = ["honest", "malicious-linear", "informed"]
    given = {"defense": "dp", "noise_multiplier": 0.05, "eps_scope": "release", "iterations": 2}
    image, label = batch(1)
    table = bench(
        images=image, labels=label, threat_model=threats, releases=[1, 4], trials=20, others=public(), **given
    )
    rows = table[table["defense"] == "dp"].set_index(["threat_model", "releases"])
    assert set(rows.index) == {(name, count) for name in threats for count in (1, 4)}
    assert (table["status"] == "ok").all()
    assert (rows.loc["informed", "success"] > 0.6).all()
    assert (rows.loc["informed", "candidates"] == 10).all()
    assert (rows.loc[["honest", "malicious-linear"], "gallery_size"] == 31).all()
    undefended = table[(table["attack"] == "analytic") & (table["defense"] == "none")]
    assert undefended["psnr"].item() > 60
    assert bool(undefended["identified"].item())
    probes = rows.loc["malicious-linear", "psnr_unbiased_probe"]
    assert probes[4] - probes[1] == pytest.approx(6.02, abs=0.01)


def test_each_attack_brings_its_own_threat_model():
    image, label = batch(1)
    table = bench(images=image, labels=label, attacks=["dlg", "prior-aware"], others=public(), trials=5)
    attacked = table[~table["attack"].str.startswith("floor:")]
    assert set(zip(attacked["attack"], attacked["threat_model"], strict=True)) == {
        ("dlg", "honest"),
        ("prior-aware", "informed"),
    }


def test_sampled_inclusion_from_python():
    image, label = batch(1)
    given = {"defense": "dp", "noise_multiplier": 0.05, "eps_scope": "release", "threat_model": "informed"}
    table = bench(images=image, labels=label, inclusion=0.5, trials=60, others=public(), **given)
    row = table[table["defense"] == "dp"].iloc[0]
    assert row["inclusion"] == 0.5
    assert 0.3 < row["success"] < 0.8  # 1/2 + 1/20


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"threat_model": "informed"}, "informed attacker needs candidates.*give `others`"),
        ({"attacks": "analytic"}, "malicious-linear needs public images.*give `others`"),
        ({"threat_model": "informed", "others": public(5)}, "10 candidates cannot be drawn"),
        ({"others": (torch.rand(3, 3, 8, 8), torch.zeros(3, dtype=torch.int64))}, r"\[G, 3, 16, 16\]"),
        ({"others": (public(3)[0] * 2, public(3)[1])}, r"lie in \[0, 1\]"),
        ({"others": (public(3)[0], public(4)[1])}, "one for each of the 3 images"),
        ({"others": (public(3)[0], public(3)[1] + 4)}, r"0 \.\.\. 4"),
        (
            {"others": (torch.cat([public(3)[0], batch()[0]]), torch.zeros(5, dtype=torch.int64))},
            "take it out",
        ),
        (
            {"threat_model": "curious", "others": public()},
            "known: honest, fishing, informed, malicious-linear, loki",
        ),
        ({"releases": 0, "defense": "dp"}, "releases"),
        ({"threat_model": "informed", "inclusion": 1.5, "defense": "dp", "others": public()}, "inclusion"),
    ],
)
def test_what_threat_models_lack_is_said(changed, said):
    with pytest.raises(InputError, match=said):
        bench(**changed)


def same(table, reference):
    times = ["seconds", "compile_seconds", "key"]
    pd.testing.assert_frame_equal(table.drop(columns=times), reference.drop(columns=times))


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize(
    "ambient",
    [torch.no_grad, torch.inference_mode, lambda: default_dtype(torch.float64)],
    ids=["no_grad", "inference mode", "float64"],
)
def test_settings_around_the_call_change_nothing_and_are_left_alone(ambient):
    asked = {"defense": "dp", "iterations": 2}
    model, (images, labels) = network().eval(), batch()  # drawn in float32
    reference = bench(model, images, labels, **asked)
    with ambient():
        before = torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        same(bench(model, images, labels, **asked), reference)
        assert before == (
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
        )


def test_numpy_is_taken_for_what_it_is():
    images, labels = batch()
    asked = {"defense": "dp", "eps": [1.0, 8.0], "iterations": 2, "attack_seed": 3}
    reference = bench(mean=(0.5, 0.4, 0.3), mean_image=torch.full((3, 16, 16), 0.4), **asked)
    as_numpy = {"defense": "dp", "eps": np.array([1.0, 8.0]), "iterations": np.int64(2)}
    as_numpy |= {"attack_seed": np.uint8(3), "mean": np.array([0.5, 0.4, 0.3])}
    as_numpy |= {"mean_image": np.full((3, 16, 16), 0.4, dtype=np.float32)}
    same(bench(images=images.double().numpy(), labels=labels.numpy(), **as_numpy), reference)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.half])
def test_a_model_of_another_precision_is_used_in_single_precision(dtype):
    given = network().eval().to(dtype)
    rounded = network().eval().to(dtype).float()
    same(bench(given, iterations=2), bench(rounded, iterations=2))
    assert next(given.parameters()).dtype == dtype


def test_an_attack_that_does_not_fit_costs_no_other_its_rows():
    table = bench(attacks=["inverting-gradients", "analytic"], defense="clip")
    status = table[table["floor"].isna()].groupby("attack")["status"].unique()
    assert status["inverting-gradients"].tolist() == ["ok"]
    assert status["analytic"].tolist() == ["skipped"]
    said = table.loc[table["status"] == "skipped", "error"]
    assert len(said)
    assert said.str.contains("give `others`").all()
