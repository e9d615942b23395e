"""Pictures as people have them: bytes, channels last, grey, 16 bits, several sizes, PIL, loaders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import dpbench
from dpbench.data.decode import resize, to_tensor
from dpbench.protocol import InputError
from dpbench.sweep.own_arrays import as_inputs, as_pair
from dpbench.sweep.own_checks import checked_batches
from dpbench.sweep.own_forms import as_given, form_for, one_channel, three_channels

BYTES = np.random.default_rng(0).integers(0, 256, (2, 12, 9, 3), dtype=np.uint8)
FLOATS = torch.from_numpy(BYTES).movedim(-1, 1).double() / 255


def flat(channels: int, side: int = 8) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * side**2, 3))


@pytest.mark.parametrize(
    "images",
    [
        BYTES,
        BYTES.transpose(0, 3, 1, 2),
        torch.from_numpy(BYTES).long(),
        BYTES.astype(np.float32),  # 0 ... 255
        BYTES / 255,
        (BYTES.astype(np.uint16) * 257),
        [Image.fromarray(each) for each in BYTES],
        list(BYTES),
    ],
    ids=["bytes", "channels first", "int64", "bytes as floats", "floats", "16 bits", "PIL", "list"],
)
def test_pixels_mean_the_same_however_they_are_kept(images):
    found = as_inputs(images)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), FLOATS, atol=1e-6)


def test_what_the_caller_has_is_left_alone():
    given = torch.rand(2, 3, 4, 4)
    as_inputs(given).zero_()
    assert given.any()


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (
            np.ones((2, 3, 4, 4), dtype=np.uint8),
            "whole numbers from 1 to 1, which says nothing of which one is",
        ),
        (np.full((2, 3, 4, 4), 300), "whole numbers from 300 to 300"),
        (np.full((2, 3, 4, 4), -0.1), r"must lie in \[0, 1\]"),
        (np.full((2, 3, 4, 4), 1.5), r"must lie in \[0, 1\]"),
        (np.ones((2, 4, 5, 6)), "neither 1 nor 3 channels"),
        (np.ones(3), "must be pictures"),
        (np.ones((0, 3, 4, 4)), "images are none: give at least one"),
        (np.ones((0,)), "images are none: give at least one"),
        (np.ones((2, 0, 4, 4)), "must be pictures"),
        (np.full((2, 3, 4, 4), np.nan), r"images hold NaN: give numbers in \[0, 1\]"),
        (np.array([[0.5, np.nan]]), r"images hold NaN: give numbers in \[0, 1\]"),
        (np.ones((2, 5), dtype=int), r"rows of a table of torch.int64: give floats in \[0, 1\]"),
        (["a", "b"], "must be tensors or arrays"),
        (torch.ones(2, 3, 4, 4).to_sparse(), r"images must be dense tensors: call their `to_dense\(\)`"),
        ([], "are none"),
        ([Image.new("F", (4, 4))], "Pillow's mode F has no fixed range: convert it to RGB"),
        ([np.ones((3, 4, 4)), np.ones((3, 5, 4))], "of several shapes, such as .* `image_size`"),
    ],
)
def test_what_is_ambiguous_or_no_input_is_refused_in_one_sentence(images, said):
    with pytest.raises(InputError, match=said) as refusal:
        as_inputs(images)
    assert "\n" not in str(refusal.value)


def test_labels_in_a_column_as_medmnist_has_them():
    assert as_pair(BYTES, np.array([[2], [1]], dtype=np.uint8))[1].tolist() == [2, 1]
    with pytest.raises(InputError, match="one for each of the 2 images"):
        as_pair(BYTES, np.eye(2, dtype=int))


def test_one_picture_is_told_from_three_grey_ones():
    with pytest.raises(InputError, match=r"each of the 3 images, .*; one picture alone is \[1, C, H, W\]\.$"):
        as_pair(np.full((3, 8, 8), 0.5), 3)
    with pytest.raises(InputError, match="labels must be tensors or arrays of numbers"):
        as_pair(BYTES, ["cat", "dog"])


@pytest.mark.parametrize("shape", [(12, 9), (9, 12), (40, 8), (4, 4)])
def test_resizing_is_that_of_files(shape):
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    wanted = to_tensor(resize(Image.fromarray(pixels), 8)).double() / 255
    found = as_inputs(pixels[None], size=8)[0]
    assert found.shape == (3, 8, 8)
    assert (found - wanted).abs().max() < 2.5 / 255  # Pillow rounds after each axis


def test_a_size_is_for_pictures():
    assert as_inputs(torch.rand(2, 20, 10), size=8).shape == (2, 8, 8)
    with pytest.raises(InputError, match="`image_size` is for pictures"):
        as_inputs(torch.rand(2, 5), size=8)
    with pytest.raises(InputError, match="`image_size` must be a positive number"):
        as_inputs(torch.rand(2, 3, 8, 8), size=0)


@pytest.mark.parametrize(
    ("shape", "model", "form"),
    [
        ((2, 1, 8, 8), flat(1), as_given),
        ((2, 1, 8, 8), flat(3), three_channels),
        ((2, 3, 8, 8), flat(3), as_given),
        ((2, 8, 8), flat(1), one_channel),
        ((2, 8, 8), flat(3), three_channels),
        ((2, 8, 8), nn.Conv1d(8, 2, 3), as_given),  # a signal of 8 channels
        ((2, 8), nn.Linear(8, 3), as_given),
        ((2, 1, 4, 8, 8), nn.Conv3d(1, 2, 3), as_given),
    ],
)
def test_the_model_says_in_which_form_it_takes_them(shape, model, form):
    assert form_for(model, torch.rand(shape)) is form


def test_three_equal_channels_become_one_and_colours_do_not():
    grey = torch.rand(2, 1, 8, 8).repeat(1, 3, 1, 1)
    assert form_for(flat(1), grey) is one_channel
    with pytest.raises(InputError, match=r"does not take images of shape \(2, 3, 8, 8\)"):
        form_for(flat(1), torch.rand(2, 3, 8, 8))


def test_grey_bytes_and_public_images_end_in_the_models_colours():
    public = np.random.default_rng(1).integers(0, 256, (30, 8, 8), dtype=np.uint8), np.arange(30) % 3
    table = dpbench.benchmark(
        flat(3), BYTES[:, :8, :8, 0], [[0], [1]], others=public, attacks="label-restoration", device="cpu",
        progress=False,
    )  # fmt: skip
    assert (table["status"] == "ok").all()


def test_a_loader_is_drawn_from_by_our_rule_whatever_its_order():
    data = TensorDataset(torch.rand(6, 3, 8, 8), torch.arange(6))
    found = [checked_batches(DataLoader(data, 2, shuffle=s), None, None, (0, 1)) for s in (True, False)]
    places = [[batch[2] for batch in each] for each in found]
    assert places[0] == places[1]
    assert all(batch[1].tolist() == list(batch[2]) for batch in found[0])
    (larger,) = checked_batches(DataLoader(data, 2), None, 4, (0,))
    assert len(larger[0]) == 4


def test_a_loaders_own_collation_is_used():
    data = TensorDataset(torch.full((4, 3, 8, 8), 2.0), torch.arange(4))

    def collate(items):
        return torch.stack([image for image, _ in items]) / 4, torch.tensor(
            [int(label) for _, label in items]
        )

    ((images, _, _),) = checked_batches(DataLoader(data, 2, collate_fn=collate), None, None, (0,))
    assert images.unique().tolist() == [0.5]


class Pictures(Dataset):
    """As torchvision's ImageFolder without a transform: Pillow's images of several sizes."""

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return Image.fromarray(np.full((20 + i, 30, 3), 10 * i, dtype=np.uint8)), np.array([i])


def test_a_data_set_of_pillows_images():
    with pytest.raises(InputError, match="of several shapes"):
        checked_batches(Pictures(), None, 4, (0,))
    ((images, labels, places),) = checked_batches(Pictures(), None, 4, (0,), size=16)
    assert images.shape == (4, 3, 16, 16)
    assert labels.tolist() == list(places)
    assert (images.amax((1, 2, 3)) * 25.5).round().tolist() == labels.tolist()


class Stream(IterableDataset):
    def __iter__(self):
        yield from ()


@pytest.mark.parametrize(("data", "said"), [(Stream(), "only be read in its own order"), (3, "Give labels")])
def test_what_cannot_be_drawn_from_is_said(data, said):
    with pytest.raises(InputError, match=said):
        checked_batches(data, None, 2, (0,))
