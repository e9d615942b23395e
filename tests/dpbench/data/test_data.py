from dataclasses import replace

import pytest
import torch

from dpbench import assets
from dpbench.data import Dataset, cifar10, dataset, datasets, load_data
from dpbench.data.channels import CIFAR10_MEAN
from dpbench.protocol import InputError


def test_samples_are_foolboxs_test_images_and_say_so():
    samples = load_data("samples")
    assert samples.images.shape == (20, 3, 32, 32)
    assert samples.images.dtype == torch.uint8
    assert samples.labels.tolist()[:7] == [3, 8, 8, 0, 6, 6, 1]  # the first labels of CIFAR-10's test set
    assert "8 classes" in samples.note
    assert "demonstration" in samples.note
    assert len(samples.class_names) == samples.num_classes == 10


def test_samples_are_the_first_images_of_the_full_test_set():
    try:
        assets.path("cifar10", fetch=False)
    except assets.AssetUnavailable:
        pytest.skip("CIFAR-10 is not on this machine")
    images, labels = cifar10("test")
    samples = load_data("samples")
    assert torch.equal(images[:20], samples.images)
    assert torch.equal(labels[:20], samples.labels)
    assert labels.bincount().tolist() == [1000] * 10
    train, train_labels = cifar10("train")
    assert train_labels.bincount().tolist() == [5000] * 10
    expected = train.double().mean(0) / 255
    assert (samples.mean_image - expected).abs().max() < 1e-6
    assert load_data("cifar10").images.shape == (10000, 3, 32, 32)


def test_mean_image_is_a_plausible_mean_of_cifar10():
    mean_image = load_data("samples").mean_image
    assert mean_image.shape == (3, 32, 32)
    assert torch.allclose(mean_image.mean((1, 2)), torch.tensor(CIFAR10_MEAN), atol=1e-4)


def test_imagenet_samples_are_224_and_resized_on_request():
    samples = load_data("imagenet-samples")
    assert samples.images.shape == (20, 3, 224, 224)
    assert samples.mean_image.shape == (3, 224, 224)
    assert samples.num_classes == 1000
    assert len(set(samples.labels.tolist())) > 15
    assert load_data("imagenet-samples", size=64).images.shape == (20, 3, 64, 64)


def test_size_resizes_images_and_mean_image_alike():
    samples, small = load_data("samples"), load_data("samples", size=16)
    assert small.images.shape == (20, 3, 16, 16)
    assert small.mean_image.shape == (3, 16, 16)
    halved = samples.images.float().mean((2, 3))
    assert (small.images.float().mean((2, 3)) - halved).abs().max() < 2  # resizing keeps the mean colour


@pytest.mark.parametrize("spec", ["bogus", "", "folder", "sample"])
def test_unknown_data_lists_the_known(spec):
    with pytest.raises(InputError, match="known: samples, imagenet-samples, cifar10, folder:PATH"):
        load_data(spec)


def test_unknown_split():
    with pytest.raises(InputError, match="train, test"):
        cifar10("validation")


@pytest.mark.parametrize("size", [0, -3, 4097, 100_000])
def test_size_must_be_positive_and_not_absurd(size):
    with pytest.raises(InputError, match="positive number of pixels up to 4096"):
        load_data("imagenet-samples", size=size)


def test_what_would_fill_the_memory_is_refused_at_once():
    many = torch.zeros(1, dtype=torch.uint8).expand(10_000, 3, 8, 8)
    half = (0.5,) * 3

    @dataset("many")
    def load(argument, size):
        return Dataset("many", many, torch.arange(10_000) % 2, 2, half, half, torch.full((3, 8, 8), 0.5))

    try:
        with pytest.raises(InputError, match="many at 4096 x 4096 pixels takes 469 GiB of memory"):
            load_data("many", size=4096)
    finally:
        del datasets._items["many"]


@pytest.fixture
def toy():
    """A data set as another package would bring it: one function."""

    @dataset("toy", argument="COLOUR")
    def load(argument, size):
        images = torch.full((3, 3, 4, 4), int(argument), dtype=torch.uint8)
        half = (0.5,) * 3
        return Dataset(f"toy:{argument}", images, torch.arange(3), 3, half, half, torch.full((3, 4, 4), 0.5))

    yield load
    del datasets._items["toy"]


def test_a_data_set_is_one_function(toy):
    found = load_data("toy:7", size=8)
    assert found.images.shape == (3, 3, 8, 8)
    assert (found.images == 7).all()
    assert found.name == "toy:7"
    with pytest.raises(InputError, match=r"known: .*folder:PATH, toy:COLOUR\.$"):
        load_data("toy")


def test_a_data_set_of_another_package_may_come_undecorated(toy, monkeypatch):
    def theirs(argument, size):
        return toy(argument or "9", size)

    _ = list(datasets)
    monkeypatch.setitem(datasets._items, "theirs", theirs)
    assert (load_data("theirs").images == 9).all()
    assert (load_data("theirs:5").images == 5).all()


def test_nothing_may_follow_a_name_that_takes_no_argument():
    with pytest.raises(InputError, match="Unknown data 'samples:3'"):
        load_data("samples:3")


def test_a_single_class_is_refused(monkeypatch, toy):
    def one(argument, size):
        data = toy("3", size)
        return Dataset("one", data.images, data.labels * 0, 1, data.mean, data.std, data.mean_image)

    _ = list(datasets)
    monkeypatch.setitem(datasets._items, "one", one)
    with pytest.raises(InputError, match="one has a single class"):
        load_data("one")


LOADER = """
import torch
from dpbench.data import Dataset

def load(argument, size):
    images, half = torch.full((2, 3, 4, 4), 128, dtype=torch.uint8), torch.full((3, 4, 4), 0.5)
    return Dataset("mine", images, torch.arange(2), 2, (0.5,) * 3, (0.25,) * 3, half)
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("128", "129"),
        ("arange(2), 2", "arange(2), 3"),
        ("(0.5,) * 3", "(0.4,) * 3"),
        ("(0.25,) * 3", "(0.2,) * 3"),
        ("4), 0.5)", "4), 0.4)"),
        ("return", "torch.manual_seed(0)\n    return"),
    ],
)
def test_all_that_a_loader_gives_and_its_code_make_the_content(old, new, monkeypatch):
    def content(text):
        names = {"__name__": "console without a file"}
        exec(text, names)
        monkeypatch.setitem(datasets._items, "mine", names["load"])
        return load_data("mine").content

    assert old in LOADER
    assert content(LOADER) == content(LOADER) != content(LOADER.replace(old, new))


def test_the_mean_of_a_data_set_counts_without_the_code_of_its_loader(monkeypatch):
    """It may stand in a file."""

    def content(**changes):
        monkeypatch.setattr(given, "changes", changes)
        monkeypatch.setitem(datasets._items, "mine", given)
        return load_data("mine").content

    def given(argument, size):
        return replace(load_data("samples"), content=None, **given.changes)

    given.changes = {}
    other = [content(mean=(0.1,) * 3), content(std=(0.1,) * 3), content(num_classes=11)]
    assert content() == content()
    assert len({content(), *other}) == 4
