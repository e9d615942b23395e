from __future__ import annotations

import pytest
import torch
from torch import nn

import dpbench
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
    heard = []
    bench(progress=lambda cell, done, total, value: heard.append((cell.attack, done, total)))
    assert {attack for attack, _, _ in heard} == {"floor:noise-gradient", "inverting-gradients"}
    assert all(0 < done <= total == 3 for _, done, total in heard)


BAD_CALLS = [
    ({"images": torch.zeros(2, 3, 16, 16, dtype=torch.uint8)}, "divide bytes by 255"),
    ({"images": torch.rand(2, 1, 16, 16)}, "repeat a grey channel"),
    ({"images": torch.rand(2, 3, 16, 16) * 255}, r"images must lie in \[0, 1\]"),
    ({"images": torch.full((2, 3, 16, 16), float("nan"))}, r"images must lie in \[0, 1\]"),
    ({"images": torch.rand(2, 3, 20, 20)}, "does not take images of shape"),
    ({"labels": torch.tensor([0, 5])}, r"labels must lie in 0 \.\.\. 4.*from 0 to 5"),
    ({"labels": torch.tensor([0, -1])}, r"labels must lie in 0 \.\.\. 4"),
    ({"labels": torch.tensor([0.0, 1.0])}, "labels must be int64"),
    ({"labels": torch.tensor([0])}, "one for each of the 2 images"),
    ({"model": nn.Conv2d(3, 5, 3)}, r"must return logits \[B, K\]"),
    ({"model": nn.Flatten()}, "no trainable parameter"),
    ({"model": network(nn.BatchNorm2d(8)).train(), "defense": "dp"}, "(?i)batch ?norm"),
    ({"defense": "encrypt"}, "none"),
    ({"attacks": "guess"}, "known: analytic, dlg"),
    ({"defense": "dp", "eps": -1}, "eps"),
    ({"defense": "dp", "eps": 1, "noise_multiplier": 1}, "not both"),
    ({"defense": "prune", "prune_ratio": 1.5}, "prune"),
    ({"loss": lambda logits, labels: nn.functional.cross_entropy(logits, labels, reduction="sum")}, "mean"),
]


@pytest.mark.parametrize(("changed", "said"), BAD_CALLS)
def test_what_cannot_be_used_is_refused_in_one_sentence(changed, said):
    with pytest.raises(InputError, match=said) as error:
        bench(**changed)
    assert "\n" not in str(error.value)
