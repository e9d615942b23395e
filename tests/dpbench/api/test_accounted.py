"""The epsilon of a training, where Opacus' accountant tells more of it than the user says."""

import warnings
from dataclasses import replace

import pytest
import torch
from opacus import GradSampleModule, PrivacyEngine
from opacus.optimizers import DPOptimizer
from opacus.schedulers import ExponentialNoise
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import dpbench
from dpbench.api.training import crowded, epochs_of, expected_batch, unread
from dpbench.protocol import InputError, Stage

torch.set_num_threads(1)
pytestmark = [
    pytest.mark.filterwarnings("ignore:Secure RNG:UserWarning"),
    pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning"),
]
SIZE, BATCH = 64, 7  # 10 batches: Opacus samples with q = 0.1 and expects 6 images
IMAGES, LABELS = torch.rand(SIZE, 3, 4, 4), torch.arange(SIZE) % 5
TRAINING = {"train_size": SIZE, "epochs": 3, "delta": 1e-3}


class Scale(nn.Module):
    """A layer that Opacus has no hooks of its own for."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(48))

    def forward(self, x):
        return x * self.factor


def private(engine=None, model=None, method="make_private", **more):
    model = model or nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    given = {"noise_multiplier": 1.0} if method == "make_private" else {}
    return getattr(engine or PrivacyEngine(), method)(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=DataLoader(TensorDataset(IMAGES, LABELS), batch_size=BATCH),
        max_grad_norm=1.0,
        **given | more,
    )


def captured(model, optimizer, forward=None):
    with dpbench.capture(model, optimizer) as found:
        cross_entropy((forward or model)(IMAGES[:5]), LABELS[:5]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return found


def attacked(found, **more):
    return dpbench.attack(
        found.release,
        model=found.model,
        originals=(IMAGES[:5], LABELS[:5]),
        attacks="label-restoration",
        progress=False,
        **more,
    )


def test_the_epsilon_is_not_below_that_of_opacus_although_the_expected_batch_is_rounded_down():
    target = {"target_epsilon": 3.0, "target_delta": 1e-3, "epochs": 3}
    model, optimizer, _ = private(method="make_private_with_epsilon", **target)
    found = captured(model, optimizer)
    assert found.release.batch_size == 6
    (eps,) = attacked(found, **TRAINING)["eps"].dropna().unique()
    assert 2.95 < eps < 3.3  # of q = 7 / 64; it is 2.88 of q = 6 / 64


def test_batches_that_are_no_poisson_samples_have_no_epsilon_of_the_training():
    model, optimizer, _ = private(poisson_sampling=False)
    found = captured(model, optimizer)
    with pytest.raises(InputError, match=r"rests on Poisson sampling.*leave out `train_size`"):
        attacked(found, **TRAINING)
    table = attacked(found)
    assert table["eps"].isna().all()
    assert table["eps_release"].notna().any()


@pytest.mark.parametrize("poisson", [True, False])
@pytest.mark.parametrize("kind", ["wrapped", "bare", "hooks"])
def test_how_the_batches_were_drawn_is_seen_through_every_wrapping(kind, poisson):
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    model, optimizer, _ = private(model=network, poisson_sampling=poisson, wrap_model=kind != "hooks")
    given = network if kind == "bare" else model
    found = captured(given, optimizer, forward=network if kind == "hooks" else model)
    assert found.release.accounted.poisson is poisson
    assert found.release.accounted.steps == ((1.0, 0.1, 1),)


def test_of_a_training_without_an_engine_nothing_is_known():
    model = GradSampleModule(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = DPOptimizer(sgd, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=6)
    found = captured(model, optimizer)
    assert found.release.accounted is None
    assert expected_batch(found.release, {"train_size": 1_000}) == 6
    with pytest.warns(UserWarning, match=r"could not be read: its epsilon holds only if"):
        table = attacked(found, **TRAINING)
    assert table["eps"].notna().any()


@pytest.mark.parametrize("with_model", [True, False])
def test_a_sampling_that_was_read_is_not_warned_of(with_model):
    model, optimizer, _ = private()
    release = captured(model, optimizer).release
    if not with_model:
        release = replace(release, accounted=replace(release.accounted, poisson=None))
    said = unread(release, TRAINING)
    assert len(said) == (0 if with_model else 1)
    assert all("not given to `from_optimizer`" in line for line in said)
    assert unread(release, {"delta": 1e-5}) == []


@pytest.mark.parametrize("poisson", [True, False])
def test_expanded_weights_do_not_tell_how_the_batches_were_drawn(poisson):
    model, optimizer, _ = private(grad_sample_mode="ew", poisson_sampling=poisson)
    release = captured(model, optimizer).release
    assert release.accounted.poisson is None
    assert "or its `grad_sample_mode` does not tell" in unread(release, TRAINING)[0]


@pytest.mark.parametrize(("batches", "said"), [(1, 0), (4, 1)])
def test_several_batches_in_one_step_are_told(batches, said, recwarn):
    """Opacus counted one of them, and an image may be in all four."""
    model, optimizer, _ = private()
    images, labels = IMAGES[: 10 * batches], LABELS[: 10 * batches]
    with dpbench.capture(model, optimizer) as found:
        for i in range(batches):
            optimizer.signal_skip_step(i < batches - 1)
            cross_entropy(model(images[10 * i : 10 * i + 10]), labels[10 * i : 10 * i + 10]).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert found.release.accounted.steps == ((1.0, 0.1, 1),)
    recwarn.clear()
    given = {"originals": (images, labels), "attacks": "label-restoration", "progress": False}
    dpbench.attack(found.release, model=found.model, **given, **TRAINING)
    told = [str(each.message) for each in recwarn if "Poisson sampling draws" in str(each.message)]
    assert len(told) == said
    assert all("has 40 images where 6 are expected" in each for each in told)


def test_more_images_than_expected_are_rarely_too_many():
    release = captured(*private()[:2]).release
    for expected, most in ((1, 12), (6, 27), (256, 365)):
        drawn = replace(release, batch_size=expected)
        assert crowded(drawn, TRAINING, most) == []
        assert crowded(drawn, TRAINING | {"train_batch_size": 2 * expected}, most + 1) == []
        assert len(crowded(drawn, TRAINING, most + 1)) == 1
        assert crowded(drawn, {}, most + 1) == []


def test_noise_that_changed_has_no_single_epsilon():
    model, optimizer, _ = private()
    scheduler = ExponentialNoise(optimizer, gamma=2.0)
    captured(model, optimizer)
    scheduler.step()
    with pytest.raises(InputError, match=r"noise multiplier of this training was not the same .*\(1, 2\)"):
        attacked(captured(model, optimizer), **TRAINING)


def test_another_size_than_the_training_has_is_refused():
    model, optimizer, _ = private()
    found = captured(model, optimizer)
    with pytest.raises(InputError, match=r"q = 0\.1 and expected 6 .* for 60 to 69 images.* is 50,000"):
        attacked(found, **TRAINING | {"train_size": 50_000})
    with pytest.raises(InputError, match=r"would make the epsilon too small: leave out `train_batch_size`"):
        attacked(found, **TRAINING, train_batch_size=6)
    assert expected_batch(found.release, {"train_size": 60}) == 6
    assert expected_batch(found.release, {"train_size": 69}) == 7
    assert expected_batch(found.release, {"train_size": SIZE, "train_batch_size": 12}) == 12


@pytest.mark.parametrize("stated", [{}, {"train_batch_size": 64}, {"train_batch_size": "batch"}])
def test_no_fewer_steps_are_counted_than_opacus_makes(stated):
    """With little noise, one step of twice the batch has a smaller epsilon than two steps."""
    model, optimizer, _ = private(noise_multiplier=0.4)
    found = captured(model, optimizer)
    rows = attacked(found, **TRAINING, **stated).dropna(subset="eps")
    assert set(rows["steps"]) == {30}  # ten an epoch; 64 / 7 in batches of 7 are fewer
    assert rows["sample_rate"].min() >= 0.1
    assert rows["eps"].min() > dpbench.privacy.epsilon(0.4, 1e-3, 0.1, 30)


@pytest.mark.parametrize("expected", [0.4, 6.4])
def test_a_batch_that_is_no_whole_number_is_not_rounded_down(expected):
    """6.4 images were read as 6, so that q and the epsilon were too small."""
    model = GradSampleModule(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = DPOptimizer(sgd, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=expected)
    with pytest.raises(InputError, match=rf"expects {expected} images .* whole number"):
        captured(model, optimizer)
    optimizer.zero_grad()
    optimizer.expected_batch_size, optimizer.world_size = 7 / 3, 3
    assert captured(model, optimizer).release.batch_size == 7


def test_as_many_epochs_stay_as_they_are():
    release = captured(*private()[:2]).release
    assert epochs_of(release, TRAINING, 6) == 3
    assert epochs_of(replace(release, accounted=None), TRAINING, 64) == 3
    assert epochs_of(release, TRAINING | {"epochs": 30}, 64) == pytest.approx(300)


@pytest.mark.filterwarnings("ignore:How the batches of this training:UserWarning")
def test_the_batch_of_a_training_is_the_one_that_is_expected_and_not_the_images_that_came():
    model = GradSampleModule(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = DPOptimizer(sgd, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=16)
    rows = attacked(captured(model, optimizer), **TRAINING, train_batch_size="batch")
    assert set(rows["sample_rate"].dropna()) == {16 / 64}


@pytest.mark.filterwarnings("ignore:How the batches of this training:UserWarning")
def test_a_training_of_users_is_one_of_rounds_of_clients():
    """The client's own images were taken for the clients of a round."""
    stage = Stage("dp", {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "unit": "user"})
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    cross_entropy(model(IMAGES[:5]), LABELS[:5]).backward()
    release = dpbench.Release.from_gradients(model, batch_size=5, defense=[stage])
    assert expected_batch(release, TRAINING | {"train_batch_size": 8}) == 8
    assert expected_batch(release, TRAINING | {"train_batch_size": "batch"}) == 1
    with pytest.raises(InputError, match=r"clients that a round is expected to have as `train_batch_size`"):
        expected_batch(release, TRAINING)
    (said,) = unread(release, TRAINING | {"train_batch_size": 8})
    assert "every client was drawn with q = `train_batch_size` / `train_size`" in said


@pytest.mark.parametrize("mode", ["hooks", "functorch"])
def test_layers_that_opacus_hands_to_functorch(mode):
    network = nn.Sequential(nn.Flatten(), Scale(), nn.Linear(48, 5))
    model, optimizer, _ = private(model=network, grad_sample_mode=mode)
    found = captured(model, optimizer)
    assert not any("ft_compute_sample_grad" in vars(module) for module in found.model.modules())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (attacked(found, **TRAINING)["status"] == "ok").all()
    assert (attacked(captured(model, optimizer), **TRAINING)["status"] == "ok").all()  # it trains on


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"train_size": SIZE}, "Give the `epochs` of the whole training"),
        ({"epochs": 3}, "give its `train_size`, too"),
        ({"train_batch_size": 6, "delta": 1e-3}, "give its `train_size`, too"),
        ({"eps_scope": "training"}, "takes its `train_size` and `epochs`"),
    ],
)
def test_half_of_a_training_has_no_epsilon(budget, said):
    """Ten epochs were taken where none were given, though the training may make hundreds."""
    model, optimizer, _ = private()
    with pytest.raises(InputError, match=said):
        attacked(captured(model, optimizer), **budget)


def test_clipping_and_noise_that_were_declared_have_the_epsilon_of_a_training_only_where_it_is_stated():
    """They had one of 50,000 images, 10 epochs and batches of 256, which nobody had said."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    cross_entropy(model(IMAGES[:5]), LABELS[:5]).backward()
    for p in model.parameters():
        p.grad = p.grad / 10 + torch.randn_like(p) / 2
    stages = [Stage("clip", {"max_grad_norm": 1.0}), Stage("noise", {"noise_std": 0.5})]
    release = dpbench.Release.from_gradients(model, batch_size=5, defense=stages)
    given = {"model": model, "originals": (IMAGES[:5], LABELS[:5]), "attacks": "label-restoration"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The release lies")
        alone = dpbench.attack(release, progress=False, **given)
        assert alone["eps"].isna().all()
        assert alone["train_size"].isna().all()
        (eps,) = alone["eps_release"].dropna().unique()
        assert eps == pytest.approx(dpbench.privacy.epsilon(2.5, 1e-5))
        with pytest.warns(UserWarning, match="could not be read: its epsilon holds only if"):
            table = dpbench.attack(release, progress=False, **given, **TRAINING)
    (eps,) = table["eps"].dropna().unique()
    assert eps == pytest.approx(dpbench.privacy.epsilon(2.5, 1e-3, 5 / 64, 39), rel=1e-3)
