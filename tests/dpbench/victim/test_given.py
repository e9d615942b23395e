"""Networks that users name on the command line."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import dpbench
from dpbench.protocol import InputError
from dpbench.run import main
from dpbench.victim import load, weights_digest
from dpbench.victim.given import Factory, factory
from dpbench.victim.networks import build

torch.set_num_threads(1)
SMALL = ["--image-size", "8", "--batch-size", "1", "--iterations", "1", "--device", "cpu", "--quiet"]
FILE = """
from torch import nn

def plain(num_classes, size):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size**2, num_classes))

class Tuple(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = plain(num_classes, 8)

    def forward(self, images):
        return self.body(images), images

class NeedsLabels(Tuple):
    def forward(self, images, labels):
        return self.body(images)

class Misspelt(Tuple):
    def forward(self, images):
        return self.boddy(images)

def grey(num_classes, size):
    return nn.Sequential(nn.Flatten(), nn.Linear(size**2, num_classes))

def sized(num_classes):
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 14**2, num_classes))

def few(size):
    return plain(3, size)

def forwards(**kwargs):
    return plain(size=8, **kwargs)

def fails():
    raise ValueError("no checkpoint")

def frozen(num_classes, size):
    return plain(num_classes, size).requires_grad_(False)

def configured(num_classes, size):
    slope = float(open(__file__.replace("given_network.py", "slope.txt")).read())
    return nn.Sequential(plain(num_classes, size), nn.LeakyReLU(slope))

number = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "given_network.py"
    path.write_text(FILE)
    yield path
    sys.modules.pop("given_network", None)
    factory.cache_clear()


def ran(tmp_path, *words):
    folder = tmp_path / "out"
    assert main(["--defense", "clip", *words, *SMALL, "--out", str(folder)]) == 0
    return dpbench.load(folder)


def refused(capsys, *words):
    assert main([*words, *SMALL]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("name", ["plain", "Tuple"])
def test_a_factory_in_a_file(name, file, tmp_path):
    table = ran(tmp_path, "--model", f"{file}:{name}")
    assert (table["status"] == "ok").all()
    assert set(table["model"]) == {f"{file}:{name}"}
    assert set(table["norm"]) == {"own"}
    assert set(table["victim"]) == {"trained"}


@pytest.mark.usefixtures("bare_exports")
def test_a_factory_in_a_module(file, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    assert (ran(tmp_path, "--model", "given_network:plain")["status"] == "ok").all()


def test_a_factory_that_hands_on_what_it_gets_is_told_the_number_of_classes(file):
    network = build(f"{file}:forwards", 7, None, 8)
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 7)


def test_a_grey_network_of_another_size_is_not_blamed_for_channels(tmp_path, file, capsys):
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "images" / name / "x.png")
    said = refused(capsys, "--model", f"{file}:sized", "--data", f"folder:{tmp_path / 'images'}")
    assert "does not take images of shape (2, 1, 8, 8)" in said


@pytest.mark.parametrize("name", ["NeedsLabels", "Misspelt"])
def test_a_forward_that_breaks_is_a_sentence(file, capsys, name):
    said = refused(capsys, "--model", f"{file}:{name}")
    assert "The model does not take images of shape" in said
    assert "Traceback" not in said


@pytest.mark.usefixtures("bare_exports")
def test_weights_of_its_own(file, tmp_path, monkeypatch):
    model = factory(f"{file}:plain").function(10, 8)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    table = ran(tmp_path, "--model", f"{file}:plain", "--weights", str(tmp_path / "weights.pt"))
    assert table["weights"].notna().all()
    images = dpbench.data.draw_disjoint(dpbench.data.load_data("samples", size=8), 1, 0, "distinct")
    loss = nn.functional.cross_entropy(model(images.images), images.labels)
    norm = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]).norm()
    rows = table[(table["defense"] == "none") & table["floor"].isna()]
    assert rows["release_norm"].item() == pytest.approx(float(norm), rel=1e-4)


@pytest.mark.usefixtures("bare_exports")
def test_other_code_is_another_cell(file, tmp_path, monkeypatch):
    words = ("--model", f"{file}:plain", "--attack", "label-restoration")
    before = set(ran(tmp_path, *words)["key"])
    file.write_text(FILE.replace("nn.Flatten(), ", "nn.Flatten(), nn.Tanh(), "))
    sys.modules.pop("given_network")
    for known in (factory, *_caches()):
        known.cache_clear()
    after = set(ran(tmp_path / "again", *words)["key"])
    assert before.isdisjoint(after)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.usefixtures("bare_exports")
def test_other_settings_are_another_cell_whatever_they_are_read_from(file, tmp_path, weights):
    words, slope = ["--model", f"{file}:configured"], tmp_path / "slope.txt"
    slope.write_text("0.1")
    if weights:
        torch.save(factory(f"{file}:configured").function(10, 8).state_dict(), tmp_path / "weights.pt")
        words += ["--weights", str(tmp_path / "weights.pt")]
    before = set(ran(tmp_path, *words)["key"])
    assert set(ran(tmp_path, *words)["key"]) == before
    slope.write_text("0.2")
    assert before.isdisjoint(ran(tmp_path / "again", *words)["key"])


def test_settings_that_change_after_planning_are_refused(file, tmp_path):
    (tmp_path / "slope.txt").write_text("0.1")
    chosen = (f"{file}:configured", "own", "trained", None, dpbench.data.load_data("samples", size=8), 8)
    planned = weights_digest(*chosen)
    assert load(*chosen, planned=planned).model
    (tmp_path / "slope.txt").write_text("0.2")
    with pytest.raises(
        InputError, match=r"configured has changed since the run was planned: start it again\."
    ):
        load(*chosen, planned=planned)


def _caches():
    from dpbench.sweep import inputs
    from dpbench.system import source

    return inputs._makers, inputs._code, source._closure, source._file


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("few", "has 3 outputs, and labels of samples reach 9"),
        ("fails", "cannot be made (ValueError: no checkpoint)"),
        ("frozen", "has no trainable parameter"),
        ("number", "has no function or class 'number'"),
        ("absent", "has no function or class 'absent'"),
    ],
)
def test_what_cannot_be_used_is_said(name, said, file, capsys):
    assert said in " ".join(refused(capsys, "--model", f"{file}:{name}").split())


def test_a_file_without_a_function_is_asked_for_one(file, capsys):
    said = " ".join(refused(capsys, "--model", str(file)).split())
    assert said == f"The model {file} is a file: add what makes the model in it, {file}:FUNCTION."


def test_dpbenchs_own_settings_are_refused(file, capsys):
    said = refused(capsys, "--model", f"{file}:plain", "--norm", "gn")
    assert "has its own: leave it out" in " ".join(said.split())


def test_torchvision_by_name_keeps_the_names_of_its_parameters():
    model = build("torchvision:squeezenet1_1", num_classes=3, size=32)
    names = {name for name, _ in model.named_parameters()}
    assert "features.0.weight" in names
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 3)


def test_a_library_that_is_not_installed_is_asked_for(monkeypatch):
    monkeypatch.setattr("dpbench.victim.given.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs timm: pip install timm"):
        factory("timm:vit_tiny_patch16_224_missing")


def greys(folder, colour=False):
    for i, name in enumerate("ab"):
        (folder / name).mkdir(parents=True)
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3) if colour else (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / "x.png")
    return f"folder:{folder}"


def test_grey_images_are_kept_for_a_network_of_one_channel_and_repeated_for_others(file, tmp_path):
    data = ("--data", greys(tmp_path / "images"), "--attack", "idlg")
    table = ran(tmp_path, "--model", f"{file}:grey", f"{file}:plain", *data)
    rows = table[table["floor"].isna()]
    assert (rows["status"] == "ok").all()
    assert set(rows["model"]) == {f"{file}:grey", f"{file}:plain"}
    stored = {model: part["key"].iloc[0] for model, part in rows.groupby("model")}
    assert len(set(stored.values())) == 2


def test_colours_are_not_made_grey_in_silence(file, tmp_path, capsys):
    said = refused(capsys, "--model", f"{file}:grey", "--data", greys(tmp_path / "images", colour=True))
    assert "are in colour: convert them to greyscale" in " ".join(said.split())


class Config(SimpleNamespace):
    """As transformers' configurations take and keep settings."""


class TinyForImageClassification(nn.Module):
    """As transformers' classifiers: made of a configuration, returns an object with `.logits`."""

    config_class = Config

    def __init__(self, config):
        super().__init__()
        self.body = nn.Linear(config.num_channels * config.image_size**2, config.num_labels)

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self.body(pixel_values.flatten(1)))


@pytest.fixture
def transformers(monkeypatch):
    """A library of that name."""
    library = SimpleNamespace(TinyForImageClassification=TinyForImageClassification)
    monkeypatch.setitem(sys.modules, "transformers", library)
    monkeypatch.setattr("dpbench.victim.given.find_spec", lambda name: True)
    factory.cache_clear()
    yield
    factory.cache_clear()


@pytest.mark.usefixtures("bare_exports")
def test_transformers_by_name(transformers, tmp_path):
    table = ran(tmp_path, "--model", "transformers:TinyForImageClassification")
    assert (table["status"] == "ok").all()
    assert set(table["victim"]) == {"untrained"}
    with pytest.raises(InputError, match=r"no classifier 'Tiny\w+' \(did you mean 'TinyForImageC"):
        factory("transformers:TinyForImageClassificatio")


def test_the_real_transformers_by_name():
    pytest.importorskip("transformers")
    model = build("transformers:ResNetForImageClassification", num_classes=3, size=32)
    assert model(torch.rand(1, 3, 32, 32)).logits.shape == (1, 3)


def test_a_library_that_is_broken_is_one_sentence(monkeypatch):
    monkeypatch.setattr("dpbench.victim.given.find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"transformers cannot be imported \(.*\): install it again"):
        factory("transformers:SomethingBroken")


def test_timm_by_name(file):
    pytest.importorskip("timm")
    assert isinstance(factory("timm:vit_tiny_patch16_224"), Factory)
    model = build("timm:vit_tiny_patch16_224", num_classes=3, size=32)
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 3)
