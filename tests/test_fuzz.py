"""Whatever a suite, a picture, a file of weights or a name holds: it works, or one sentence says why not.

Each check runs on a few of hypothesis' inputs in CI and on thousands under `-m nightly`.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dpbench.data import load_data
from dpbench.protocol import InputError
from dpbench.report import tables
from dpbench.store import Store
from dpbench.store.schema import frame
from dpbench.sweep import suite
from dpbench.sweep.options import Options, defaults, parse
from dpbench.victim.networks import build
from dpbench.victim.weights import load_weights

BUDGETS = {"suite": 60, "picture": 125, "weights": 100, "name": 25}  # a command line is slow to read
AT_NIGHT = 32  # times as many: 10,000


def fuzzed(kind, check, **strategies):
    """The test that runs `check` on as many inputs as the mark allows."""

    @pytest.mark.parametrize(
        "count",
        [
            pytest.param(BUDGETS[kind], id="ci"),
            pytest.param(AT_NIGHT * BUDGETS[kind], id="night", marks=pytest.mark.nightly),
        ],
    )
    def test(count, tmp_path):
        seen = [0]

        @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(**strategies)
        def run(**values):
            seen[0] += 1
            outside = set(os.listdir(tmp_path.parent))
            check(tmp_path, **values)
            assert set(os.listdir(tmp_path.parent)) == outside

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run()
        print(f"{kind}: {seen[0]} inputs")  # shown by pytest -rP
        assert seen[0] >= count or seen[0] > 100  # hypothesis may exhaust a small space

    return test


def one_sentence(work, *arguments):
    """What `work` gives, or None where it refuses with one line."""
    try:
        return work(*arguments)
    except InputError as error:
        return None if str(error).strip() else pytest.fail("an error without a word")


plain = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.dates(),
    st.sampled_from(["dp", "dlg"]),
)
values = st.one_of(plain, st.lists(plain, max_size=4), st.lists(st.lists(plain, max_size=2), max_size=2))
keys = st.one_of(st.sampled_from([*defaults()]), st.text(min_size=1, max_size=8))


def toml(content: dict) -> bytes:
    import tomli_w

    return tomli_w.dumps(content).encode(errors="surrogatepass")


def check_suite(folder: Path, content: bytes) -> None:
    file = folder / "fuzzed.toml"
    file.write_bytes(content)
    options = one_sentence(parse, ["--suite", str(file)])
    assert options is None or (isinstance(options, Options) and options.out is None and not options.resume)


test_suite = fuzzed(
    "suite",
    check_suite,
    content=st.one_of(
        st.dictionaries(keys, values, max_size=5).map(toml),
        st.binary(max_size=200),
        st.text(alphabet="[]{}=\"'.,0123456789eEinfadt-_ \n#\\", max_size=80).map(str.encode),
    ),
)


def picture(kind: str, side: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


PICTURES = {kind: picture(kind, 8) for kind in ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")}
ENDINGS = {"PNG": "png", "JPEG": "jpg", "BMP": "bmp", "WEBP": "webp", "GIF": "gif", "TIFF": "tif"}


def bomb(side: int) -> bytes:
    """A PNG whose header promises side x side pixels."""
    import struct
    import zlib

    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = PICTURES["PNG"]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def damaged(data: bytes, cut: int, flips: list[tuple[int, int]]) -> bytes:
    found = bytearray(data[: max(0, len(data) - cut)])
    for place, value in flips:
        if found:
            found[place % len(found)] ^= value
    return bytes(found)


def second_class(home: Path) -> None:
    """A folder of one class is refused, whatever it holds."""
    (home / "other").mkdir(exist_ok=True)
    (home / "other" / "0.png").write_bytes(PICTURES["PNG"])


def check_picture(folder: Path, content: bytes, ending: str) -> None:
    home = folder / "pictures" / "class"
    home.mkdir(parents=True, exist_ok=True)
    for old in home.iterdir():
        old.unlink()
    (home / f"0.{ending}").write_bytes(content)
    second_class(folder / "pictures")
    data = one_sentence(load_data, f"folder:{folder / 'pictures'}")
    if data is not None:
        images = one_sentence(lambda: data.images[0:1])
        assert images is None or images.dtype == torch.uint8


flips = st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=4)
test_picture = fuzzed(
    "picture",
    check_picture,
    content=st.one_of(
        st.builds(damaged, st.sampled_from([*PICTURES.values()]), st.integers(0, 300), flips),
        st.integers(1, 2**31 - 1).map(bomb),
        st.binary(max_size=100),
    ),
    ending=st.sampled_from([*ENDINGS.values()]),
)

MODEL = build("lenet", size=8)


class Trap:
    """A pickle that, if it were run, would leave a file behind."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self):
        return (open, (self.file, "w"))


def trapped(folder: Path, form: str) -> bytes:
    trap = {"features.0.weight": Trap(str(folder / "sprung"))}
    file = io.BytesIO()
    if form == "torch":
        torch.save(trap, file)
    elif form == "old torch":
        torch.save(trap, file, _use_new_zipfile_serialization=False)
    elif form == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(trap))
    else:
        pickle.dump(trap, file)
    return file.getvalue()


def state() -> bytes:
    file = io.BytesIO()
    torch.save(MODEL.state_dict(), file)
    return file.getvalue()


STATE = state()


def check_weights(folder: Path, form: str, cut: int, places: list[tuple[int, int]], ending: str) -> None:
    content = STATE if form == "sound" else trapped(folder, form)
    file = folder / f"weights.{ending}"
    file.write_bytes(damaged(content, cut, places))
    one_sentence(load_weights, build("lenet", size=8), file)
    assert not (folder / "sprung").exists()


test_weights = fuzzed(
    "weights",
    check_weights,
    form=st.sampled_from(["torch", "old torch", "zip", "pickle", "sound"]),
    cut=st.one_of(st.just(0), st.integers(0, 5000)),
    places=st.one_of(st.just([]), flips),
    ending=st.sampled_from(["pt", "pth", "safetensors", "bin"]),
)

hostile = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["../../x", "/etc/passwd", "<script>alert(1)</script>", "$(touch x)", "; rm -rf .", "a\0b"]
    ),
    st.builds("{}/{}".format, st.text(max_size=8), st.text(max_size=8)),
)


def check_name(folder: Path, name: str, option: str) -> None:
    """As an option, as a key, and in a table."""
    one_sentence(parse, [f"{option}={name}"])
    store = Store(folder)
    with contextlib.suppress(ValueError):
        store.write(name, [{"psnr": 1.0}])
    assert {path.name for path in folder.iterdir()} <= {"cells"}
    row = {
        "attack": name,
        "defense": name,
        "batch_size": 1,
        "image": 0,
        "psnr": 1.0,
        "status": "ok",
        "key": "k",
    }
    table = frame([row])
    assert "<script" not in tables.to_markdown(table)
    # a name as a file's name: the suites that come along, and nothing outside their folder
    assert one_sentence(suite.load, name, {}) is None


options = st.sampled_from(["--suite", "--model", "--engine"])  # the others are looked up later
test_name = fuzzed("name", check_name, name=hostile, option=options)


def test_the_checks_can_tell(tmp_path):
    """Sound pictures and weights are taken, so that refusing everything would be noticed; the trap works."""
    home = tmp_path / "pictures" / "class"
    home.mkdir(parents=True)
    (home / "0.png").write_bytes(PICTURES["PNG"])
    second_class(tmp_path / "pictures")
    assert load_data(f"folder:{tmp_path / 'pictures'}").images[0:1].shape == (1, 3, 8, 8)
    (tmp_path / "sound.pt").write_bytes(STATE)
    load_weights(build("lenet", size=8), tmp_path / "sound.pt")
    with contextlib.suppress(Exception):
        pickle.loads(trapped(tmp_path, "pickle"))
    assert (tmp_path / "sprung").exists()
