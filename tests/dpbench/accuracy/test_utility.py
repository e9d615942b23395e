"""`dpbench.utility`: what its numbers mean, that nothing is trained twice, and what it refuses."""

import json

import pandas as pd
import pytest
import torch
from torch import nn

import defenses
import dpbench
from dpbench.accuracy import session, table, trial
from dpbench.accuracy.data import checked
from dpbench.protocol import InputError, parameter
from dpbench.system import atomic

USUAL = {"epochs": 4, "train_batch_size": 32, "delta": 1e-3, "accountant": "rdp", "learning_rate": 0.02}


def utility(*arguments, **more):
    return dpbench.utility(*arguments, **{**USUAL, "device": "cpu", "progress": False, **more})


def test_what_can_be_learnt_is_learnt_and_drowns_in_noise(linear, train, test):
    """None and modest noise reach almost all, enormous noise is as good as chance."""
    found = utility(linear, train, test, noise_multiplier=[0.5, 1000.0], seeds=range(5))
    mean = table.summary(found).set_index(["defense", "noise_multiplier"])["mean"]
    assert mean["none"].item() > 0.97
    assert mean["dp", 0.5] > 0.95
    assert abs(mean["dp", 1000.0] - 0.5) < 0.25
    assert set(found["chance"]) == {0.5}


@pytest.mark.parametrize(
    "defense", ["clip", "prune", "noise", "topk", "sign", "quantize", "clip+prune", "outpost"]
)
def test_every_defence_is_trained(linear, train, test, defense):
    found = utility(linear, train, test, defense=defense, seeds=0)
    assert found["status"].tolist() == ["ok", "ok"]
    assert found["accuracy"].min() > 0.9
    assert found["accuracy"].max() <= 1


def test_a_clip_norm_of_almost_zero_and_dp_without_noise_are_clipping(linear, train, test):
    """Adam takes no notice of the gradient's scale, and noise of 1e-9 is none."""
    clipped = utility(linear, train, test, defense="clip", max_grad_norm=0.01, seeds=0)
    noised = utility(linear, train, test, noise_multiplier=1e-9, max_grad_norm=0.01, seeds=0, epochs=4)
    assert clipped["accuracy"].tolist() == noised["accuracy"].tolist()


def test_columns_are_those_that_others_read(linear, train, test):
    found = utility(linear, train, test, defense=["dp", "prune"], eps=[1, 8], seeds=(0, 1), prune_ratio=0.5)
    wanted = {"defense", "eps", "noise_multiplier", "max_grad_norm", "prune_ratio", "delta", "sample_rate"}
    wanted |= {"steps", "train_size", "train_batch_size", "epochs", "utility_model", "utility_seed"}
    wanted |= {"accuracy", "test_size", "chance", "seconds", "status", "error"}
    assert wanted <= set(found.columns)
    assert found.groupby("defense").size().to_dict() == {"none": 2, "dp": 4, "prune": 2}
    assert found.loc[found["defense"] == "dp", "eps"].tolist() == [1, 1, 8, 8]
    assert found.loc[found["defense"] == "prune", "prune_ratio"].tolist() == [0.5, 0.5]
    assert found.loc[found["defense"] != "dp", "eps"].isna().all()
    assert set(found["test_size"]) == {200}
    summed = table.summary(found)
    assert summed["seeds"].tolist() == [2, 2, 2, 2]
    assert (summed["min"] <= summed["mean"]).all()
    assert (summed["mean"] <= summed["max"]).all()


def test_nothing_is_trained_twice_and_an_interrupt_keeps_what_is_done(
    linear, train, test, monkeypatch, tmp_path
):
    """Whatever decides the result makes another training of it, and nothing else does."""
    done, once = [], session.train

    def impatient(*arguments, **more):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(more["seed"])
        return once(*arguments, **more)

    monkeypatch.setattr(session, "train", impatient)
    with pytest.raises(KeyboardInterrupt):
        utility(linear, train, test, defense="clip", seeds=(0, 1), out=tmp_path)
    assert len(pd.read_csv(tmp_path / "utility.csv")) == 2
    done.clear()
    whole = utility(linear, train, test, defense="clip", seeds=(0, 1), out=tmp_path)
    assert done == [0, 1]  # the two under clip: those under none were kept
    done.clear()
    again = utility(linear, train, test, defense="clip", seeds=(0, 1))
    assert done == []
    pd.testing.assert_frame_equal(whole, again)
    read = pd.read_csv(tmp_path / "utility.csv")
    assert read["accuracy"].tolist() == whole["accuracy"].tolist()
    other = (train[0].clone(), train[1])
    other[0][0] = 0.5
    for changed in ({"train": other}, {"learning_rate": 0.01}, {"epochs": 3}, {"max_grad_norm": 0.5}):
        done.clear()
        utility(linear, changed.pop("train", train), test, defense="clip", seeds=0, **changed)
        assert done, changed


def test_same_seed_gives_the_same_accuracy_without_the_cache(linear, train, test, monkeypatch, tmp_path):
    def dropping():
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 2))

    found = []
    for name in "ab":
        monkeypatch.setattr(trial, "folder", lambda name=name: tmp_path / name)
        torch.manual_seed(len(found))  # the caller's random state plays no part, and is left alone
        state = torch.get_rng_state()
        found.append(utility(dropping, train, test, noise_multiplier=2.0, seeds=(0, 1), epochs=1))
        assert torch.equal(state, torch.get_rng_state())
    assert found[0]["accuracy"].tolist() == found[1]["accuracy"].tolist()


def test_a_damaged_file_is_trained_again(linear, train, test, cache):
    first = utility(linear, train, test, defense="none", seeds=0)
    (file,) = (cache / "trial").glob("*.json")
    accuracy = json.loads(file.read_text())["accuracy"]
    file.write_text("{")
    again = utility(linear, train, test, defense="none", seeds=0)
    assert again["accuracy"].tolist() == first["accuracy"].tolist() == [accuracy]


def test_a_full_disk_is_a_sentence_and_keeps_what_was_written(linear, train, test, monkeypatch, cache):
    kept = utility(linear, train, test, defense="none", seeds=0)

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "_sync", full)
    with pytest.raises(InputError, match="disk is full"):
        utility(linear, train, test, defense="none", seeds=(0, 1))
    monkeypatch.setattr(session, "train", lambda *_, **__: pytest.fail("trained again"))
    again = utility(linear, train, test, defense="none", seeds=0)
    pd.testing.assert_frame_equal(kept, again)


def test_nothing_is_trained_that_could_not_be_kept(linear, train, test, monkeypatch):
    def homeless():
        raise InputError("There is no home folder.")

    monkeypatch.setattr(trial, "folder", homeless)
    monkeypatch.setattr(session, "train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(InputError, match="no home folder"):
        utility(linear, train, test, defense="none", seeds=0)


def test_fewer_images_are_a_random_subset(linear, train, test):
    found = utility(linear, train, test, train_size=[100, 320], seeds=0, defense="none")
    assert found["train_size"].tolist() == [100, 320]
    assert found["sample_rate"].tolist() == [0.32, 0.1]
    images = checked(train, test)
    fewer = images.subset(100)
    assert len(fewer.train[1]) == 100
    assert 0.3 < fewer.train[1].float().mean() < 0.7
    assert torch.equal(fewer.train[0], images.subset(100).train[0])
    assert fewer.digest != images.digest


def test_data_sets_and_bytes_are_taken_too(linear, train, test):
    """A data set is read into memory; bytes are divided by 255."""
    pairs = [[(image, int(label)) for image, label in zip(*split, strict=True)] for split in (train, test)]

    class Listed(torch.utils.data.Dataset):
        def __init__(self, samples):
            self.samples = samples

        def __len__(self):
            return len(self.samples)

        def __getitem__(self, place):
            return self.samples[place]

    given = utility(linear, train, test, defense="none", seeds=0)
    read = utility(linear, *map(Listed, pairs), defense="none", seeds=0)
    assert read["accuracy"].tolist() == given["accuracy"].tolist()
    as_bytes = [((images * 255).round().byte(), labels) for images, labels in (train, test)]
    rounded = utility(linear, *as_bytes, defense="none", seeds=0)
    assert rounded["accuracy"].item() == pytest.approx(given["accuracy"].item(), abs=0.02)


def test_weights_that_overflow_are_a_failed_row(train, test):
    class Exploding(nn.Linear):
        def forward(self, images):
            return super().forward(images.flatten(1)) * float("inf")

    with pytest.raises(InputError, match="no longer finite"):
        utility(lambda: Exploding(36, 2), train, test, defense="none", seeds=0)


class _Forgetful(defenses.PostProcessor):
    """Remembers, and does not say how."""

    remembers = True
    forgetful_share: float = parameter(0.5, "a share", at_least=0)

    def process(self, gradients, generator):
        return gradients


SAME = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
REFUSED = {
    "correlated": ({"defense": "dp-ftrl"}, "dp-ftrl cannot be trained here"),
    "release": ({"eps_scope": "release"}, "nothing can be trained"),
    "whole batch": ({"train_batch_size": "batch"}, "as a number"),
    "more than there are": ({"train_size": 321}, "320 training images"),
    "both": ({"eps": 1, "noise_multiplier": 1}, "not both"),
    "unknown": ({"optimiser": "sgd"}, "takes no optimiser"),
    "batch": ({"train_batch_size": 400}, "no batches of 400"),
    "seed": ({"seeds": -1}, "whole numbers"),
    "rate": ({"learning_rate": 0}, "above 0"),
    "rates": ({"learning_rate": [0.1, 0.01]}, r"a finite number above 0, not \[0.1, 0.01\]"),
    "frozen": ({"make_model": lambda: SAME.requires_grad_(False)}, "nothing to train"),
    "same": ({"make_model": lambda: SAME.requires_grad_(True)}, "weights that it has returned before"),
    "same part": ({"make_model": lambda: nn.Sequential(SAME, nn.ReLU())}, "has returned before"),
    "defence": ({"defense": "dq"}, "Unknown defense"),
    "range": ({"eps": -1}, "above 0"),
    "model": ({"make_model": "convnet"}, "known: convnet-tanh, scattering-linear"),
    "made": ({"make_model": nn.Linear(3, 3)}, "a function that makes the model"),
    "outputs": ({"make_model": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 1))}, r"logits \[B, 2\]"),
    "input": (
        {"make_model": lambda: nn.Sequential(nn.Flatten(), nn.Linear(35, 2))},
        "cannot take images",
    ),
    "labels": ({"train": (torch.rand(4, 1, 6, 6), torch.rand(4))}, "whole numbers from 0"),
    "count": ({"train": (torch.rand(4, 1, 6, 6), torch.arange(3))}, "one label for each image"),
    "shapes": ({"test": (torch.rand(4, 1, 5, 6), torch.arange(4) % 2)}, "the same shape"),
    "nan": ({"train": (torch.full((4, 1, 6, 6), float("nan")), torch.arange(4) % 2)}, "not finite"),
    "neither": ({"train": 7}, "a pair of tensors"),
    "norm": (
        {"make_model": lambda: nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(36, 2))},
        "replace the layer",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_refused_in_a_sentence(linear, train, test, monkeypatch, name):
    monkeypatch.setattr(session, "train", lambda *_, **__: pytest.fail("trained before it was refused"))
    given, words = REFUSED[name]
    given = {"make_model": linear, "train": train, "test": test, **given}
    with pytest.raises(InputError, match=words) as caught:
        utility(**given)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_a_defence_that_remembers_without_a_stream_is_refused(linear, train, test):
    defenses.defense("forgetful")(_Forgetful)
    try:
        with pytest.raises(InputError, match="no `stream`"):
            utility(linear, train, test, defense="forgetful", seeds=0)
    finally:
        del defenses.defenses_registry._items["forgetful"]


class Weighted(nn.Module):
    """Logits times a number that is no weight."""

    def __init__(self, factor):
        super().__init__()
        self.factor, self.layers = factor, nn.Sequential(nn.Flatten(), nn.Linear(36, 2))

    def forward(self, x):
        return self.factor * self.layers(x)


def test_a_model_with_another_attribute_is_trained_anew(train, test):
    given = {"defense": "none", "epochs": 1, "train_batch_size": 32, "seeds": 0, "progress": False}
    one, other = (
        dpbench.utility(lambda f=f: Weighted(f), train, test, learning_rate=0.1, **given)["accuracy"].item()
        for f in (1.0, 0.0)
    )
    assert one > other == 0.5


def test_freezing_a_layer_is_another_training(train, test):
    def make_model(frozen):
        made = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
        made[1].weight.requires_grad_(not frozen)
        return made

    given = {"defense": "none", "epochs": 1, "train_batch_size": 32, "seeds": 0, "progress": False}
    free, frozen = (
        dpbench.utility(lambda f=f: make_model(f), train, test, learning_rate=0.1, **given)["accuracy"].item()
        for f in (False, True)
    )
    assert free > frozen
