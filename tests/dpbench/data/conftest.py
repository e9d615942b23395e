import numpy as np
import pytest
from PIL import Image

from dpbench.data import load_data
from dpbench.protocol import InputError


@pytest.fixture
def picture():
    """Writes a small file of noise; the second class that every folder needs comes by itself."""

    def write(path, size=(32, 32), seed=0, mode="RGB", **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        image = Image.fromarray(pixels).convert(mode)
        image.save(path, **options)
        return np.array(image)

    return write


@pytest.fixture
def refused(tmp_path):
    """The folder `tmp_path` is refused in one sentence."""

    def check(match, size=None, folder=tmp_path):
        with pytest.raises(InputError, match=match) as raised:
            load_data(f"folder:{folder}", size=size)
        assert "\n" not in str(raised.value)
        assert str(raised.value).endswith(".")

    return check
