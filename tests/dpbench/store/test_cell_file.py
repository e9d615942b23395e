"""One digest over the whole file of a cell; files of versions that had checksums instead."""

from __future__ import annotations

import json
import warnings
import zlib

import numpy as np
import pytest
from safetensors.numpy import save

from dpbench.store import cell_file, load, open_run

ROWS = [{"key": "a", "attack": "dlg", "defense": "none", "psnr": 20.0, "image": 0, "status": "ok"}]
PIXELS = np.linspace(0, 1, 12).reshape(1, 3, 2, 2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.safetensors"


def damaged(path, data: bytes) -> bool:
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cell_file.read(path) is None


def test_every_byte_counts(path):
    data = cell_file.content(ROWS, PIXELS, 1 - PIXELS)
    assert not damaged(path, data)
    for place in range(len(data)):
        for bit in (0x01, 0x20):  # the second makes other letters of the digest's
            changed = bytearray(data)
            changed[place] ^= bit
            assert damaged(path, bytes(changed)), (place, data[place : place + 20])


def test_pictures_in_each_others_place_are_damage(path):
    data = cell_file.content(ROWS, PIXELS, 1 - PIXELS)
    swapped = data.replace(b'"images"', b'"spare"').replace(b'"originals"', b'"images"')
    assert damaged(path, swapped.replace(b'"spare"', b'"originals"'))


def test_a_history_is_kept_and_guarded_like_the_rest(path):
    data = cell_file.content(ROWS, PIXELS, PIXELS, history=[3.0, 2.0, float("inf")])
    path.write_bytes(data)
    assert cell_file.read(path).history.tolist() == [3.0, 2.0, float("inf")]
    place = data.index(np.float32(2.0).tobytes(), len(data) - 200)
    assert damaged(path, data[:place] + b"\x01" + data[place + 1 :])
    path.write_bytes(cell_file.content(ROWS, PIXELS, PIXELS))
    assert cell_file.read(path).history is None
    path.write_bytes(cell_file.content(ROWS, None, None, history=range(10_000)))
    assert cell_file.read(path).history_steps is None
    kept = cell_file.read(path).history
    assert (len(kept), kept[-1]) == (cell_file.MOST_STEPS, 9_999)
    assert len(path.read_bytes()) < 1_000
    path.write_bytes(cell_file.content(ROWS, None, None, history=range(250), history_steps=range(7, 257)))
    kept = cell_file.read(path)
    assert (kept.history_steps - 7).tolist() == kept.history.tolist()
    path.write_bytes(cell_file.content(ROWS, None, None, history=[1.0, 0.5], history_steps=[3]))
    assert cell_file.read(path).history_steps is None


def test_a_history_that_is_none_is_damage(path):
    data = {"images": np.zeros((1, 3, 2, 2), np.uint8), "history": np.zeros((2, 2), np.float32)}
    assert damaged(path, save(data, metadata={"rows": json.dumps(ROWS), "sha256": "0" * 64}))


def test_the_digest_may_stand_in_a_row_and_in_a_picture(path):
    text = f'"sha256":"{"0" * 64}"'
    pixels = np.frombuffer(text.encode() * 3, np.uint8).reshape(1, 3, 1, -1) / 255
    path.write_bytes(cell_file.content([ROWS[0] | {"error": text}], pixels, pixels))
    assert cell_file.read(path).rows[0]["error"] == text


def of_an_older_version(rows, pixels) -> bytes:
    text = json.dumps(rows)
    total = 0
    for name in sorted(pixels):
        total = zlib.crc32(pixels[name].tobytes(), total)
    sums = {"rows": text, "rows_crc32": str(zlib.crc32(text.encode()))}
    return save(pixels, metadata=sums | {"pixels_crc32": str(total)})


def test_cells_of_older_versions_are_read_and_checked(tmp_path):
    store = open_run(tmp_path / "run", {})
    path = store.path / "cells" / "a.safetensors"
    grey = np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2)
    data = of_an_older_version(ROWS, {"images": grey, "originals": grey + 1})
    path.write_bytes(data)
    assert store.read("a").rows == ROWS
    assert (store.read("a").originals == grey + 1).all()
    assert load(store.path)["psnr"].tolist() == [20.0]
    for old, new in ((b"20.0", b"29.0"), (b"\x0b", b"\x0c"), (b"rows_crc32", b"rows_crc23")):
        assert damaged(path, data.replace(old, new))
