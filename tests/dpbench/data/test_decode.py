"""Image files of all kinds: their RGB values, or one sentence."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFile

from dpbench.data import decode, load_data
from dpbench.protocol import InputError

NOISE = np.random.default_rng(5).integers(0, 256, (8, 12, 3), dtype=np.uint8)
"""Not square, so that a turned image is another shape."""


def decoded(file, size=None):
    found = decode.pixels(file, size).permute(1, 2, 0).numpy()
    if size is None:
        assert decode.header(file).size == (found.shape[1], found.shape[0])
    return found


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_orientation_is_applied(tmp_path, orientation, suffix):
    """Each file is stored turned, as a camera does, and must come out upright."""
    back = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 3),
    }[orientation]
    upright = np.repeat(np.repeat(NOISE // 128 * 200, 8, 0), 8, 1)  # blocks: JPEG keeps them roughly
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}.get(suffix, {})
    file = tmp_path / f"x.{suffix}"
    Image.fromarray(np.ascontiguousarray(back(upright))).save(file, exif=exif, **options)
    found = decoded(file)
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).mean() < (5 if suffix == "jpg" else 1e-9)


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0rubbish", b"Exif\0\0MM\0*\xff\xff\xff\xff"])
def test_damaged_orientation_says_nothing(tmp_path, exif):
    Image.fromarray(NOISE).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(decoded(tmp_path / "x.png"), NOISE)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_scale(tmp_path, suffix):
    values = np.array([[0, 128, 257], [32768, 65278, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"x.{suffix}")
    before = (tmp_path / f"x.{suffix}").read_bytes()
    found = decoded(tmp_path / f"x.{suffix}")
    assert np.array_equal(found, np.repeat(np.array([[0, 0, 1], [128, 254, 255]])[..., None], 3, 2))
    assert (tmp_path / f"x.{suffix}").read_bytes() == before


def test_16_bit_grey_portable_pixmaps(tmp_path):
    (tmp_path / "x.pgm").write_bytes(b"P5 2 1 65535\n" + np.array([65535, 32896], ">u2").tobytes())
    assert decoded(tmp_path / "x.pgm")[..., 0].tolist() == [[255, 128]]


def test_grey_is_repeated(tmp_path):
    Image.fromarray(NOISE[..., 0]).save(tmp_path / "x.png")
    assert np.array_equal(decoded(tmp_path / "x.png"), np.repeat(NOISE[..., :1], 3, 2))
    Image.fromarray(NOISE[..., 0] > 127).save(tmp_path / "y.png")
    assert np.array_equal(decoded(tmp_path / "y.png")[..., 1], (NOISE[..., 0] > 127) * 255)


def test_transparent_pixels_lie_over_white(tmp_path):
    layer = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    Image.fromarray(layer).save(tmp_path / "x.png")
    assert decoded(tmp_path / "x.png").tolist() == [[[10, 20, 30], [255] * 3, [204] * 3]]
    Image.fromarray(layer[..., [0, 3]]).save(tmp_path / "grey.png")
    assert decoded(tmp_path / "grey.png")[..., 0].tolist() == [[10, 255, 204]]


def test_one_colour_may_be_declared_transparent(tmp_path):
    Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)).save(
        tmp_path / "x.png", transparency=(1, 2, 3)
    )
    assert decoded(tmp_path / "x.png").tolist() == [[[255] * 3, [4, 5, 6]]]
    assert decode.header(tmp_path / "x.png").kind == "transparent"


def test_palettes_and_the_first_frame_of_an_animation(tmp_path):
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    red.save(tmp_path / "x.gif", save_all=True, append_images=[blue])
    assert (decoded(tmp_path / "x.gif") == [255, 0, 0]).all()
    Image.fromarray(NOISE).quantize(200).save(tmp_path / "x.png")
    expected = Image.open(tmp_path / "x.png").convert("RGB")
    assert np.array_equal(decoded(tmp_path / "x.png"), np.array(expected))


def test_cmyk(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "x.tif")
    assert (decoded(tmp_path / "x.tif") == [255, 0, 0]).all()


@pytest.mark.parametrize(("mode", "value"), [("F", 0.5), ("I", 70_000), ("LAB", 3)])
def test_values_without_a_fixed_range_are_refused(tmp_path, mode, value):
    Image.new(mode, (4, 4), value).save(tmp_path / "x.tif")
    for read in (decode.header, lambda file: decode.pixels(file, None)):
        with pytest.raises(
            InputError, match=rf"x.tif \(Pillow's mode {mode}\) have no fixed range.*another name"
        ):
            read(tmp_path / "x.tif")


def test_one_note_for_the_data_set(tmp_path, picture):
    for i, mode in enumerate(["RGB", "L", "RGBA", "L", "P"]):
        picture(tmp_path / str(i) / "x.png", mode=mode)
    note = load_data(f"folder:{tmp_path}").note
    kinds = "2 greyscale, 1 palette, 1 transparent, over white"
    assert note == f"4 of 5 images are not plain RGB and were converted ({kinds})"


# Files that cannot be used.


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\nrubbish"])
def test_files_that_are_no_images_are_named(tmp_path, picture, refused, content):
    picture(tmp_path / "a" / "x.png")
    (tmp_path / "a" / "notes.png").write_bytes(content)
    refused("notes.png is not an image that can be read")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_files_are_named(tmp_path, picture, refused, suffix):
    file = tmp_path / "a" / f"cut.{suffix}"
    picture(file, (64, 64))
    file.write_bytes(file.read_bytes()[:-1000])
    refused(f"cut.{suffix} is not an image that can be read")


@pytest.mark.parametrize("suffix", ["eps", "avif", "dds", "jp2", "ico", "tga"])
def test_other_decoders_are_never_started(tmp_path, refused, monkeypatch, suffix):
    """An EPS would start Ghostscript, whatever the file is called."""
    content = io.BytesIO()
    name = {"jp2": "JPEG2000"}.get(suffix, suffix)
    Image.new("RGB", (16, 16), "red").save(content, format=name)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(content.getvalue())
    Image.init()
    for other in set(Image.OPEN) - set(decode.FORMATS):
        monkeypatch.setitem(Image.OPEN, other, (pytest.fail, None))
    refused(r"x.png is not an image that can be read \(none of BMP, GIF, JPEG")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("a\nb"), KeyError(3), EOFError(), RecursionError()]
)
def test_whatever_a_decoder_raises_becomes_one_sentence(tmp_path, picture, refused, monkeypatch, error):
    picture(tmp_path / "a" / "x.png")

    def broken(self):
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", broken)
    refused("x.png (needs more memory|is not an image)")


@pytest.mark.parametrize("limit", [1000, 600])  # Pillow warns above it, and refuses above twice as much
def test_decompression_bombs_are_refused(tmp_path, picture, refused, monkeypatch, limit):
    picture(tmp_path / "a" / "bomb.png", (40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    refused("bomb.png claims more than")


# Sizes.


def test_resize_keeps_the_centre():
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 20:60] = 200  # the centre square is light, the wings are dark
    found = decode.to_tensor(decode.resize(Image.fromarray(pixels), 20))
    assert found.shape == (3, 20, 20)
    assert (found[..., 1:-1] == 200).all()


@pytest.mark.parametrize("shape", [(7, 300), (300, 7), (10, 41), (41, 10)])
def test_long_images_are_cropped_first_with_the_same_result(shape, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    cropped = decode.to_tensor(decode.resize(image, 24)).int()
    monkeypatch.setattr(decode, "LONG", 1e9)
    whole = decode.to_tensor(decode.resize(image, 24)).int()
    assert (cropped - whole).abs().max() <= 1


def test_a_line_of_pixels_needs_no_memory(monkeypatch):
    """1 x 60,000 pixels at 1024: 190 GB if it were resized whole."""
    found = decode.resize(Image.new("RGB", (60_000, 1), "red"), 1024)
    assert found.size == (1024, 1024)
