"""The real assets, where they are on this machine."""

import pytest
import torch
from safetensors.torch import load_file

from dpbench import assets

torch.set_num_threads(1)


def real(name):
    try:
        return assets.path(name, fetch=False)
    except assets.AssetUnavailable:
        pytest.skip(f"{name} is not on this machine")


def test_real_trunks_start_as_published():
    trunk = load_file(real("lpips-alex"))
    # the first numbers of torchvision's AlexNet, as two public files print them
    expected = torch.tensor([1.1864e-01, 9.4069e-02, 9.5435e-02])
    assert torch.allclose(trunk["features.0.weight"].float().flatten()[:3], expected, rtol=1e-3)
    assert {k for k in trunk if k.endswith("weight")} == {f"features.{i}.weight" for i in (0, 3, 6, 8, 10)}


def test_real_resnet50_recognises_the_imagenet_samples():
    from dpbench.data import load_data
    from dpbench.victim.networks import build
    from dpbench.victim.weights import load_weights

    model = load_weights(build("resnet50", 1000, "frozen-bn", 224), real("resnet50-imagenet"))
    samples = load_data("imagenet-samples")
    with torch.no_grad():
        found = torch.cat([model(chunk.float() / 255).argmax(1) for chunk in samples.images.split(5)])
    assert (found == samples.labels).sum() >= 18
