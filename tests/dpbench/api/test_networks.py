"""The table of docs/own-model.md: ordinary networks, under each defence and two attacks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dpbench
from dpbench.protocol import InputError
from dpbench.sweep.own_model import copied
from dpbench.victim.fitting import fit
from tests.helpers.networks import CLASSES, NETWORKS, SIZE, Returns

DEFENCES = ["none", "clip", "dp", "prune"]
HOOKS = 9
"""Images from which per-sample gradients are first tried by hooks."""

BATCH_NORM = (
    "Nothing that was asked for could be run. bn1 (BatchNorm2d) is batch norm in training mode, which mixes "
    "the samples of a batch: use its running statistics (model.eval()), or put group norm in its place."
)
TWO_CANDIDATES = (
    "The model returns 2 tensors that may be the logits, of shapes (2, 4), (2, 4): return the logits alone, "
    "or as `.logits`, or under the key `logits`."
)
REFUSED = {"ResNet, batch norm in training mode": BATCH_NORM, "two candidates": TWO_CANDIDATES}


def benched(name: str, size: int = 2, **options):
    torch.manual_seed(0)
    network = NETWORKS[name]
    images, labels = torch.rand(size, network.channels, SIZE, SIZE), torch.arange(size) % 2
    given = {"attacks": ["inverting-gradients", "dlg"], "defense": DEFENCES, "noise_multiplier": 0.1}
    given |= {"iterations": 2, "device": "cpu", "progress": False, "loss": network.loss}
    return dpbench.benchmark(network.build(), images, labels, **given | options)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in REFUSED])
def test_it_runs_under_every_defence_and_attack(name):
    table = benched(name)
    rows = table[table["floor"].isna()]
    assert (rows["status"] == "ok").all()
    assert set(zip(rows["attack"], rows["defense"], strict=True)) == {
        (attack, defence) for attack in ("inverting-gradients", "dlg") for defence in DEFENCES
    }
    assert rows["psnr"].notna().all()
    found = rows.loc[rows["defense"].isin(["clip", "dp"]), "per_sample"]
    assert set(found) == {"loop" if NETWORKS[name].per_sample == "loop" else "functorch"}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_run_is_refused_in_one_sentence(name):
    with pytest.raises(InputError) as refusal:
        benched(name)
    assert str(refusal.value) == REFUSED[name]


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in REFUSED])
def test_the_row_says_how_the_gradients_of_a_larger_batch_were_computed(name):
    network = NETWORKS[name]
    table = benched(name, HOOKS, attacks="label-restoration", defense="clip", noise_multiplier=None)
    found = table.loc[table["defense"] == "clip", "per_sample"]
    assert set(found) == {network.per_sample}


@pytest.mark.parametrize("name", ["one logit [B, 1]", "one logit [B]", "one logit, default loss"])
def test_the_gradient_of_a_single_logit_is_that_of_the_binary_cross_entropy(name):
    norm = benched(name, defense="none", noise_multiplier=None, attacks="dlg")["release_norm"].dropna()
    torch.manual_seed(0)
    images = torch.rand(2, 3, SIZE, SIZE)
    model = NETWORKS[name].build()
    loss = F.binary_cross_entropy_with_logits(model(images).flatten(), torch.tensor([0.0, 1.0]))
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]).norm()
    assert norm.to_numpy() == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("labels", [[0], [1], [1, 0]])
def test_labels_are_inferred_from_a_single_logit(labels):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 8), nn.ReLU(), nn.Linear(8, 1))
    table = dpbench.benchmark(
        model, torch.rand(len(labels), 3, SIZE, SIZE), torch.tensor(labels), attacks="label-restoration",
        labels_known=False, device="cpu", progress=False,
    )  # fmt: skip
    rows = table[table["attack"] == "label-restoration"]
    assert rows["label_correct"].all()


def test_a_loss_that_takes_no_single_logit_is_refused():
    model = Returns(lambda logits: logits, classes=1)
    with pytest.raises(InputError, match=r"single logit .*binary_cross_entropy_with_logits\.$"):
        dpbench.benchmark(model, torch.rand(2, 3, SIZE, SIZE), torch.tensor([0, 1]), loss=F.nll_loss)


def test_a_probability_in_place_of_a_logit_is_refused():
    model = nn.Sequential(Returns(lambda logits: logits, classes=1), nn.Sigmoid())
    with pytest.raises(InputError, match=r"single logit .*: leave out a sigmoid at its end, and give loss="):
        dpbench.benchmark(model, torch.rand(2, 3, SIZE, SIZE), torch.tensor([0, 1]), loss=nn.BCELoss())


def test_a_model_that_overwrites_its_input_leaves_the_images_alone():
    images = torch.rand(2, 3, SIZE, SIZE)
    before = images.clone()
    model = NETWORKS["in place"].build()
    table = dpbench.benchmark(model, images, torch.tensor([0, 1]), iterations=1, device="cpu", progress=False)
    assert torch.equal(images, before)
    floor = table.loc[table["attack"] == "floor:constant-image", "psnr"].to_numpy(float)
    constant = before.mean((2, 3), keepdim=True).expand_as(before)
    expected = -10 * (before - constant).square().mean((1, 2, 3)).log10()
    assert floor == pytest.approx(expected.numpy(), abs=1e-3)  # scored against the images as they were


def test_grey_images_have_statistics_of_their_own_and_grey_pictures(tmp_path):
    table = benched("one channel", defense="none", noise_multiplier=None, out=tmp_path / "out")
    assert (table["status"] == "ok").all()
    assert table[["psnr", "ssim"]].notna().all().all()
    assert (tmp_path / "out" / "reconstructions.png").exists()
    with pytest.raises(InputError, match="`mean` has 2 numbers and the images have 1 channel:"):
        benched("one channel", mean=[0.5, 0.5])


def test_freezing_a_layer_or_another_loss_is_another_cell(tmp_path):
    torch.manual_seed(0)
    model, images = Returns(lambda logits: logits), torch.rand(1, 3, SIZE, SIZE)

    def keys(loss):
        table = dpbench.benchmark(
            model, images, torch.tensor([CLASSES - 1]), loss=loss, iterations=1, device="cpu", progress=False
        )
        return set(table["key"])

    plain, smooth = keys(F.cross_entropy), keys(nn.CrossEntropyLoss(label_smoothing=0.1))
    model.body[0].requires_grad_(False)
    frozen = keys(F.cross_entropy)
    assert plain.isdisjoint(smooth)
    assert plain.isdisjoint(frozen)


@pytest.mark.parametrize("name", ["tuple", "one logit [B]", "VisionTransformer", "in place"])
def test_a_compiled_search_is_traced_through_what_was_added(name, traces):
    options = {"defense": "none", "noise_multiplier": None, "attacks": "inverting-gradients"}
    compiled = benched(name, 1, engine="compiled", **options)
    assert len(traces) > 0
    eager = benched(name, 1, **options)
    for table in (compiled, eager):
        assert (table["status"] == "ok").all()
    pairs = (t[t["attack"] == "inverting-gradients"]["psnr"].item() for t in (compiled, eager))
    assert next(pairs) == pytest.approx(next(pairs), abs=0.01)


def test_recurrent_layers_run_without_cudnn_and_leave_it_as_it_was():
    seen = []
    model = NETWORKS["LSTM over rows"].build()
    fit(model, F.cross_entropy, torch.rand(1, 3, SIZE, SIZE))
    model.lstm.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
    model(torch.rand(1, 3, SIZE, SIZE))
    with pytest.raises(RuntimeError):
        model.lstm(torch.rand(1, 2, 5))
    assert seen == [False, False]
    assert torch.backends.cudnn.enabled


def test_batch_norm_in_training_mode_runs_where_no_image_needs_a_gradient_of_its_own():
    table = benched("ResNet, batch norm in training mode", attacks="inverting-gradients", bn_stats="none")
    rows = table[table["floor"].isna()].drop_duplicates("defense").set_index("defense")
    assert rows["status"].to_dict() == {"none": "ok", "clip": "skipped", "dp": "skipped", "prune": "ok"}
    assert rows["error"]["clip"] == BATCH_NORM.split("run. ")[1]


def test_weights_in_low_precision_are_computed_in_single_precision_and_that_is_said():
    model = NETWORKS["bfloat16 weights"].build()
    with pytest.warns(UserWarning, match="weights are bfloat16; all is computed in float32"):
        assert {p.dtype for p in copied(model).parameters()} == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
