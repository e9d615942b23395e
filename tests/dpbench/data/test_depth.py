"""Images of 10 to 14 bits in 16, as radiographs have them, are not taken for nearly black ones."""

import numpy as np
import pytest
import torch
from PIL import Image

from dpbench.data import depth, load_data
from dpbench.protocol import InputError
from dpbench.sweep.own_arrays import as_inputs

PIXELS = np.random.default_rng(3).integers(0, 4096, (3, 8, 8)).astype(np.uint16)
PIXELS[:, 0, 0] = 4095


def saved(home, factors, suffix="png", **options):
    for place, factor in enumerate(factors):
        (home / f"class{place}").mkdir()
        for i, image in enumerate(PIXELS):
            Image.fromarray(image * factor).save(home / f"class{place}" / f"{i}.{suffix}", **options)
    return load_data(f"folder:{home}").images


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_files_of_12_bits_are_refused(tmp_path, suffix):
    with pytest.raises(InputError, match=f"images of {tmp_path} .* 4,095 of 65,535, as those of 12 bits do"):
        saved(tmp_path, [1, 1], suffix)


def test_one_file_that_is_bright_enough_shows_what_white_is(tmp_path):
    images = saved(tmp_path, [1, 16])
    assert images[3:].max() == 255
    assert images[:3].max() == 16


def test_black_files_are_black(tmp_path):
    assert saved(tmp_path, [0, 0]).max() == 0


def test_of_many_dark_files_some_are_decoded(tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(depth, "LOOKED_AT", 2)
    monkeypatch.setattr(depth, "brightest", lambda file: decoded.append(file) or 0.1)
    with pytest.raises(InputError):
        saved(tmp_path, [1, 1])
    assert [file.parent.name for file in decoded] == ["class0", "class1"]


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_arrays_of_fewer_bits_are_refused(bits):
    values = np.full((2, 8, 8), 2**bits - 1, np.uint16)
    for given in (values, torch.from_numpy(values), list(values)):
        with pytest.raises(InputError, match=f"as those of {bits} bits do.* give floats"):
            as_inputs(given)


def test_lists_of_pictures_follow_the_rule_of_files():
    pictures = [Image.fromarray(image) for image in PIXELS]
    with pytest.raises(InputError, match=r"4,095 of 65,535, as those of 12 bits do.* give floats"):
        as_inputs(pictures)
    bright = as_inputs([*pictures, Image.fromarray(PIXELS[0] * 16)])
    assert bright[3:].max() > 0.99
    assert bright[:3].max() < 0.07
    assert as_inputs([Image.fromarray(image * 0) for image in PIXELS]).max() == 0
    assert as_inputs([Image.fromarray((image // 64).astype(np.uint8)) for image in PIXELS]).max() < 0.3


def test_arrays_of_16_bits_and_black_ones_are_taken():
    assert as_inputs(PIXELS * 16).max() > 0.99
    assert as_inputs(PIXELS * 0).max() == 0
