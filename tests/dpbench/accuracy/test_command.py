"""`--utility`: both models of dpbench under the defences of a sweep, on CIFAR-10."""

import re

import pandas as pd
import pytest
import torch

import dpbench
from dpbench.accuracy import command, networks, session
from dpbench.accuracy.train import Outcome
from dpbench.run import main, running
from dpbench.sweep.options import parse

CLASSES = 10
FILE = "run/utility.csv"


@pytest.fixture
def cifar10(monkeypatch):
    """200 images of 8 x 8 pixels in place of CIFAR-10's."""

    def few(split):
        generator = torch.Generator().manual_seed(int(split == "test"))
        labels = torch.arange(200) % CLASSES
        images = torch.randint(0, 200, (200, 3, 8, 8), dtype=torch.uint8, generator=generator)
        images[:, :, :4] += (labels * 5).byte()[:, None, None, None]
        return images, labels

    monkeypatch.setattr(command, "cifar10", few)


def options(*words):
    return parse(["--defense", "dp", "prune", "--eps", "1", "8", *words])


def test_trainings_are_those_of_the_table(cifar10):
    found = command.trials(options("--train-size", "200", "100", "--train-batch-size", "20"), "cpu")
    assert len(found) == 2 * 2 * (1 + 2 + 1) * 3  # models, sizes, defences, seeds
    assert len({trial.key for trial in found}) == len(found)
    sigmas = {t.setting.chain.stages[0].noise_multiplier for t in found if t.setting.defence.name == "dp"}
    wanted = [
        dpbench.privacy.noise_multiplier(e, 1e-5, 20 / n, 10 * n // 20) for n in (200, 100) for e in (1, 8)
    ]
    assert sigmas == set(wanted)
    assert command.note(found) == (
        "Accuracy: 48 trainings on random subsets of CIFAR-10's 50,000 training images: 100, 200, 48 of them "
        "to be done."
    )


def test_a_run_writes_utility_csv_and_prints_a_short_table(cifar10, monkeypatch, tmp_path, capsys):
    """The trainings come after the cells, and what cannot be trained is a row that says so."""
    monkeypatch.setattr(
        session, "train", lambda *_, seed, **__: Outcome(accuracy=0.5 + seed / 100, seconds=1.0)
    )
    exported = []
    monkeypatch.setattr(running, "export", lambda *_: exported.append((tmp_path / FILE).exists()) or [])
    words = "--defense dp prune --iterations 1 --batch-size 1 --device cpu --train-size 200"
    words += " --train-batch-size 20 --eps-scope release training --utility --out"
    assert main([*words.split(), str(tmp_path / "run")]) == 0
    written = pd.read_csv(tmp_path / "run" / "utility.csv")
    counts = written.groupby(["defense", "status"]).size().to_dict()
    assert counts[("none", "ok")] == counts[("prune", "ok")] == counts[("dp", "ok")] == 6
    assert counts[("dp", "skipped")] == 6
    assert set(written["utility_model"]) == {"convnet-tanh", "scattering-linear"}
    said = capsys.readouterr()
    assert re.search(r"dp .*51\.0% +50\.0% +52\.0% +3", said.out)
    assert "nothing can be trained" in " ".join(said.out.split())
    assert exported == [False, True]  # tables and plots before hours of training, and again with accuracies


def test_more_images_than_cifar10_has_are_refused_before_anything_is_run(cifar10, tmp_path, capsys):
    words = ["--train-size", "201", "--train-batch-size", "20", "--utility", "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "--train-size 201 is more than the 200 training images" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", list(networks.MODELS))
def test_both_models_learn_under_dp_and_without(name):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 2
    bright = torch.linspace(0, 1, 8)[:, None].expand(8, 8)
    images = torch.where(labels[:, None, None] == 1, bright, bright.T)[:, None].expand(-1, 3, -1, -1)
    images = (0.7 * images + 0.3 * torch.rand(240, 3, 8, 8, generator=generator)).contiguous()
    found = dpbench.utility(
        name,
        (images[:160], labels[:160]),
        (images[160:], labels[160:]),
        noise_multiplier=0.3,
        epochs=10,
        train_batch_size=32,
        delta=1e-3,
        accountant="rdp",
        seeds=0,
        device="cpu",
        progress=False,
    )
    assert found["utility_model"].tolist() == [name, name]
    assert found["accuracy"].min() > 0.9
