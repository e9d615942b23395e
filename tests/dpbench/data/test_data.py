import hashlib
import os

import numpy as np
import pytest
import torch
from PIL import Image

from dpbench import assets
from dpbench.data import Dataset, cifar10, draw_batch, image_files, load_data
from dpbench.data.channels import CIFAR10_MEAN
from dpbench.protocol import InputError


def picture(path, size=(32, 32), seed=0, mode="RGB"):
    """A small photograph-like file: smooth noise, saved without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    image.save(path)
    return np.array(image)


def labelled(labels):
    n = len(labels)
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, 2, 2).clone()
    return Dataset("toy", images, torch.tensor(labels), 10, (0.5,) * 3, (0.2,) * 3, torch.zeros(3, 2, 2))


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
    with pytest.raises(InputError, match="samples, imagenet-samples, cifar10, folder:PATH"):
        load_data(spec)


def test_unknown_split():
    with pytest.raises(InputError, match="train, test"):
        cifar10("validation")


@pytest.mark.parametrize("size", [0, -3])
def test_size_must_be_positive(size):
    with pytest.raises(InputError, match="positive"):
        load_data("samples", size=size)


# The rule for batches: written down here a second time, from its documentation.


def by_the_rule(count, seed):
    keys = {
        hashlib.sha256(b"dpbench batch " + str(seed).encode() + b" " + str(i).encode()).hexdigest(): i
        for i in range(count)
    }
    return [keys[k] for k in sorted(keys)]


@pytest.mark.parametrize("seed", [0, 7, -1])
def test_random_draw_follows_the_published_rule(seed):
    batch = draw_batch(load_data("samples"), 6, seed, "random")
    assert list(batch.indices) == by_the_rule(20, seed)[:6]
    assert batch.images.dtype == torch.float32
    assert torch.equal((batch.images * 255).round().byte(), load_data("samples").images[list(batch.indices)])
    assert torch.equal(batch.labels, load_data("samples").labels[list(batch.indices)])


def test_distinct_draw_takes_the_first_of_each_label():
    samples = load_data("samples")
    for seed in range(5):
        batch = draw_batch(samples, 8, seed)
        assert len(set(batch.labels.tolist())) == 8
        for index in batch.indices:
            order = by_the_rule(20, seed)
            same = [i for i in order if samples.labels[i] == samples.labels[index]]
            assert index == same[0]
        assert batch.indices[:3] == draw_batch(samples, 3, seed).indices


def test_the_default_batch_never_moves():
    assert draw_batch(load_data("samples"), 4, 0).indices == (0, 1, 14, 5)
    assert draw_batch(labelled(list(range(10)) * 1000), 4, 3, "random").indices == (3185, 2945, 6640, 685)


def test_every_image_can_be_drawn_about_equally_often():
    toy = labelled([i % 10 for i in range(20)])
    counts = np.bincount(
        [draw_batch(toy, 1, seed, "random").indices[0] for seed in range(2000)], minlength=20
    )
    assert ((counts - 100) ** 2 / 100).sum() < 43.8  # chi-squared, 19 degrees of freedom, p = 0.001


def test_draws_that_cannot_be():
    toy = labelled([0, 0, 1])
    with pytest.raises(InputError, match="toy has 3 images"):
        draw_batch(toy, 4, 0, "random")
    with pytest.raises(InputError, match="covers 2 classes"):
        draw_batch(toy, 3, 0)
    with pytest.raises(InputError, match="cannot be drawn"):
        draw_batch(toy, 0, 0)
    with pytest.raises(InputError, match="distinct, random"):
        draw_batch(toy, 1, 0, "all")


# Folders of the user's.


def test_folder_by_class_is_numbered_like_image_folder(tmp_path):
    a = picture(tmp_path / "cat" / "1.png", seed=1)
    b = picture(tmp_path / "ant" / "deep" / "2.png", seed=2)
    (tmp_path / "ant" / ".hidden").write_text("not an image, and not looked at")
    found = load_data(f"folder:{tmp_path}")
    assert found.class_names == ("ant", "cat")
    assert found.labels.tolist() == [0, 1]
    assert np.array_equal(found.images[0].permute(1, 2, 0), b)
    assert np.array_equal(found.images[1].permute(1, 2, 0), a)
    assert found.num_classes == 2
    assert found.mean_image.flatten(1).unique(dim=1).shape == (3, 1)


def test_folder_by_listing(tmp_path):
    a = picture(tmp_path / "images" / "x.png", seed=3)
    (tmp_path / "labels.csv").write_text("file,label,name\nimages/x.png,2,dog\n")
    found = load_data(f"folder:{tmp_path}")
    assert found.labels.tolist() == [2]
    assert found.num_classes == 3
    assert found.class_names == ("0", "1", "dog")
    assert np.array_equal(found.images[0].permute(1, 2, 0), a)


def test_large_folders_are_read_when_drawn(tmp_path, monkeypatch):
    for i in range(3):
        picture(tmp_path / str(i) / "x.png", seed=i)
    whole = load_data(f"folder:{tmp_path}")
    monkeypatch.setattr(image_files, "EAGER_BYTES", 0)
    lazy = load_data(f"folder:{tmp_path}")
    assert isinstance(lazy.images, image_files.ImageFiles)
    assert lazy.images.shape == tuple(whole.images.shape)
    one, other = draw_batch(whole, 3, 0), draw_batch(lazy, 3, 0)
    assert torch.equal(one.images, other.images)
    assert one.indices == other.indices


def test_resize_keeps_the_centre(tmp_path):
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 20:60] = 200  # the centre square is light, the wings are dark
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a" / "x.png")
    found = load_data(f"folder:{tmp_path}", size=20)
    assert found.images.shape == (1, 3, 20, 20)
    assert (found.images[..., 1:-1] == 200).all()


def refused(tmp_path, match, size=None):
    with pytest.raises(InputError, match=match) as raised:
        load_data(f"folder:{tmp_path}", size=size)
    assert "\n" not in str(raised.value)


def test_missing_and_empty_folders(tmp_path):
    refused(tmp_path / "nowhere", "There is no folder")
    refused(tmp_path, "has no images")
    picture(tmp_path / "a" / "x.png")
    (tmp_path / "b").mkdir()
    refused(tmp_path, "class folder .*b is empty")


def test_images_of_two_sizes_need_a_size(tmp_path):
    picture(tmp_path / "a" / "x.png", (32, 32))
    picture(tmp_path / "a" / "y.png", (48, 32))
    refused(tmp_path, r"y.png is 48 x 32 pixels where .*x.png is 32 x 32.*--image-size")
    assert load_data(f"folder:{tmp_path}", size=32).images.shape == (2, 3, 32, 32)


def test_images_must_be_square_unless_a_size_is_given(tmp_path):
    picture(tmp_path / "a" / "x.png", (48, 32))
    refused(tmp_path, "not square: choose --image-size")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\nrubbish"])
def test_files_that_are_no_images_are_named(tmp_path, content):
    picture(tmp_path / "a" / "x.png")
    (tmp_path / "a" / "notes.png").write_bytes(content)
    refused(tmp_path, "notes.png is not an image that can be read")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_files_are_named(tmp_path, suffix):
    file = tmp_path / "a" / f"cut.{suffix}"
    picture(file, (64, 64))
    file.write_bytes(file.read_bytes()[:-1000])
    refused(tmp_path, f"cut.{suffix} is not an image that can be read")


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_greyscale_is_refused_with_a_way_out(tmp_path, mode):
    picture(tmp_path / "a" / "grey.png", mode=mode)
    refused(tmp_path, "grey.png is greyscale .*convert")


@pytest.mark.parametrize(("mode", "suffix"), [("CMYK", "jpg"), ("RGBA", "png"), ("P", "png")])
def test_other_modes_are_refused(tmp_path, mode, suffix):
    picture(tmp_path / "a" / f"odd.{suffix}", mode=mode)
    refused(tmp_path, f"odd.{suffix} is not RGB .*convert")


@pytest.mark.parametrize(
    "limit", [1000, 600]
)  # Pillow warns above the limit, and refuses above twice the limit
def test_decompression_bombs_are_refused(tmp_path, monkeypatch, limit):
    picture(tmp_path / "a" / "bomb.png", (40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    refused(tmp_path, "bomb.png claims more than")


@pytest.mark.parametrize("label", ["-1", "1.5", "dog", "", "²", "1" * 30])
def test_labels_must_be_whole_numbers(tmp_path, label):
    picture(tmp_path / "x.png")
    (tmp_path / "labels.csv").write_text(f"file,label\nx.png,{label}\n", encoding="utf-8")
    refused(tmp_path, r"labels.csv, line 2: label .* is not an integer from 0 to 999999")


@pytest.mark.parametrize("text", ["image,class\nx.png,1\n", "file,label\n,1\n", "file,label\nx.png\n"])
def test_listings_need_their_columns(tmp_path, text):
    picture(tmp_path / "x.png")
    (tmp_path / "labels.csv").write_text(text)
    refused(tmp_path, "columns file,label")


def test_listings_that_name_a_missing_file(tmp_path):
    (tmp_path / "labels.csv").write_text("file,label\nghost.png,1\n")
    refused(tmp_path, "no file .*ghost.png")


def test_listings_that_are_no_text(tmp_path):
    (tmp_path / "labels.csv").write_bytes(os.urandom(50) + b"\xff\xfe\x00")
    refused(tmp_path, "labels.csv")
