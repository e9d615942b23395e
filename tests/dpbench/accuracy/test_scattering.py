"""Scattering features: what they are, and that they are computed once."""

import pytest
import torch
from kymatio.scattering2d.frontend.numpy_frontend import ScatteringNumPy2D

from dpbench.accuracy import scattering
from dpbench.accuracy.scattering import scattered
from dpbench.protocol import InputError


@pytest.fixture
def images():
    return torch.randint(0, 256, (7, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def quiet(done, total):
    pass


def test_features_are_normalised_coefficients(images):
    """Against kymatio's other backend; each group of coefficients of a sample has mean 0 and variance 1."""
    found = scattered(images, quiet)
    assert (found.shape, found.dtype) == ((7, 3 * 81 * 4), torch.float16)
    raw = torch.from_numpy(ScatteringNumPy2D(J=2, shape=(8, 8), L=8)(images[0].numpy() / 255.0))
    groups = raw.reshape(27, -1)
    centred = groups - groups.mean(1, keepdim=True)
    expected = centred / (groups.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(found[0].double(), expected.flatten(), atol=5e-3)


def test_a_sample_does_not_depend_on_the_others(images, cache):
    """So they cost no privacy, whatever is trained on them."""
    alone = scattered(images[3:4], quiet)
    assert torch.equal(scattered(images, quiet)[3], alone[0])


def test_what_was_computed_is_read_again_and_an_interrupt_keeps_whole_blocks(images, monkeypatch, cache):
    monkeypatch.setattr(scattering, "BLOCK", 3)
    monkeypatch.setattr(scattering, "CHUNK", 2)
    told = []

    def impatient(done, total):
        told.append((done, total))
        if done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scattered(images, impatient)
    assert told == [(2, 7), (3, 7), (5, 7)]
    assert len(list((cache / "scattering").glob("*.safetensors"))) == 1
    computed, once = [], scattering._computed

    def counted(block, tell):
        computed.append(len(block))
        return once(block, tell)

    monkeypatch.setattr(scattering, "_computed", counted)
    whole = scattered(images, quiet)
    assert computed == [3, 1]
    assert torch.equal(whole, scattered(images, quiet))
    assert computed == [3, 1]
    assert torch.equal(whole, once(images, lambda done: None))


def test_a_damaged_file_and_a_full_disk_cost_time_only(images, monkeypatch, cache):
    whole = scattered(images, quiet)
    (file,) = (cache / "scattering").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scattering, "replacing", full)
    assert torch.equal(scattered(images, quiet), whole)
    assert file.stat().st_size == 100


def test_images_without_such_features_are_refused():
    for shape in ((2, 3, 2, 8), (2, 192)):
        with pytest.raises(InputError, match="use another model"):
            scattered(torch.rand(shape), quiet)
