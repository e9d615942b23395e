"""Releases from training loops of many kinds: what is read is what was sent, or it is said why not."""

import types

import pytest
import torch
from opacus import PrivacyEngine
from opacus.optimizers import DPOptimizer
from opacus.optimizers.ddpoptimizer import DistributedDPOptimizer
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import dpbench
from dpbench.api.attack import _declared, _fitted
from dpbench.api.doubts import doubts
from dpbench.protocol import InputError, Release, Stage
from dpbench.victim.unwrapped import unwrapped

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:Expected:UserWarning")
SIGMA, CLIP, EXPECTED = 0.7, 1.3, 6


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh())


def data(size):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(size, 3, 4, 4, generator=generator), torch.arange(size) % 5


def last_first(model):
    """Two groups of parameters of one shape, in another order than the model's."""
    return torch.optim.SGD([{"params": model[3].parameters()}, {"params": model[1].parameters()}], lr=0.5)


def private(model, optimizer, **more):
    loader = DataLoader(TensorDataset(*data(36)), batch_size=EXPECTED)
    given = {"noise_multiplier": SIGMA, "max_grad_norm": CLIP} | more
    return PrivacyEngine().make_private(module=model, optimizer=optimizer, data_loader=loader, **given)


def step(model, optimizer, size=4, **more):
    images, labels = data(size)
    with dpbench.capture(model, optimizer, **more) as captured:
        cross_entropy(model(images), labels).backward()
        optimizer.step()
    return captured


def wanted(model, images, labels):
    return torch.autograd.grad(cross_entropy(model(images), labels), list(model.parameters()))


def test_groups_of_parameters_come_in_the_order_of_the_model():
    model = network()
    model, optimizer, _ = private(model, last_first(model))
    captured = step(model, optimizer)
    assert captured.release.names == ("1.weight", "1.bias", "3.weight", "3.bias")
    fitted = _fitted(captured.release, captured.model, 4)
    assert doubts(fitted, captured.model, cross_entropy, *data(4)) == []
    after = dict(unwrapped(model).named_parameters())
    for (name, before), sent in zip(
        captured.model.named_parameters(), captured.release.gradients, strict=True
    ):
        torch.testing.assert_close(before - 0.5 * sent, after[name])
    with pytest.raises(InputError, match="several groups of parameters"):
        Release.from_optimizer(optimizer)
    again = Release.from_optimizer(optimizer, model)
    assert all(torch.equal(a, b) for a, b in zip(again.gradients, captured.release.gradients, strict=True))


@pytest.fixture
def two_processes(monkeypatch):
    """What Opacus sees as the first of two, the other of which sends zeros."""
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, op: None)
    return monkeypatch


def distributed(model, optimizer, reduction):
    model, optimizer, _ = private(model, optimizer)
    return model, DistributedDPOptimizer(
        optimizer.original_optimizer,
        noise_multiplier=SIGMA,
        max_grad_norm=CLIP,
        expected_batch_size=EXPECTED / 2,  # as Opacus does: each process's share
        loss_reduction=reduction,
    )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_several_processes_share_one_batch(two_processes, reduction):
    model = network()
    model, optimizer = distributed(model, torch.optim.SGD(model.parameters(), lr=0.5), reduction)
    captured = step(model, optimizer)
    assert captured.release.batch_size == EXPECTED
    assert captured.release.noise_on_sum() == pytest.approx(SIGMA * CLIP)
    fitted = _fitted(captured.release, captured.model, 4)
    assert doubts(fitted, captured.model, cross_entropy, *data(4)) == []


def test_processes_without_noise_are_refused_before_the_step(two_processes):
    two_processes.setattr(torch.distributed, "get_rank", lambda: 1)
    model = network()
    model, optimizer = distributed(model, torch.optim.SGD(model.parameters(), lr=0.5), "mean")
    with pytest.raises(InputError, match="rank 0"), dpbench.capture(model, optimizer):
        pytest.fail("the block has begun")


def test_shards_of_gradients_are_refused_as_such():
    kind = type("FSDPOptimizerFastGradientClipping", (DPOptimizer,), {})
    sgd = torch.optim.SGD((model := network()).parameters(), lr=0.5)
    sharded = kind(sgd, noise_multiplier=SIGMA, max_grad_norm=CLIP, expected_batch_size=EXPECTED)
    with pytest.raises(InputError, match="holds a shard of each gradient"), dpbench.capture(model, sharded):
        pytest.fail("the block has begun")


def test_adaptive_clipping_from_outside_is_refused():
    model = network()
    model, optimizer, _ = private(model, torch.optim.SGD(model.parameters(), lr=0.5))
    optimizer._adjusted_noise_multiplier = 1.1  # as opacus.utils.adaptive_clipping does
    with pytest.raises(InputError, match="fixed norm"), dpbench.capture(model, optimizer):
        pytest.fail("the block has begun")


def test_opacus_without_noise_is_clipping():
    model = network()
    model, optimizer, _ = private(model, torch.optim.SGD(model.parameters(), lr=0.5), noise_multiplier=0.0)
    captured = step(model, optimizer)
    assert captured.release.defense == (Stage("clip", {"max_grad_norm": CLIP}),)
    fitted = _fitted(captured.release, captured.model, 4)
    assert doubts(fitted, captured.model, cross_entropy, *data(4)) == []


@pytest.mark.parametrize("step", [lambda sgd, f: sgd.step(f), lambda sgd, f: sgd.step(closure=f)])
def test_the_gradient_of_a_closure_is_read_and_no_older_one(step):
    """Lightning makes every step so."""
    model, (images, labels) = network(), data(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (9 * cross_entropy(model(images), labels)).backward()  # of an earlier step

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        return loss

    with dpbench.capture(model, optimizer, batch_size=2) as captured:
        loss = step(optimizer, closure)
    before = wanted(network(), images, labels)
    assert loss.item() == cross_entropy(network()(images), labels).item()
    for found, gradient in zip(captured.release.gradients, before, strict=True):
        torch.testing.assert_close(found, gradient)
    for kept, was in zip(captured.model.parameters(), network().parameters(), strict=True):
        assert torch.equal(kept, was)
    for now, was, gradient in zip(model.parameters(), network().parameters(), before, strict=True):
        torch.testing.assert_close(now, was - 0.1 * gradient)


def test_a_step_of_several_gradients_is_refused():
    model, (images, labels) = network(), data(2)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        return loss

    with (
        pytest.raises(InputError, match="closure more than once"),
        dpbench.capture(model, optimizer, batch_size=2),
    ):
        optimizer.step(closure)


def inside(package, optimizer):
    """The optimiser as these packages wrap it: the step is handed on, and little else."""
    kind = type("Wrapper", (), {"__module__": f"{package}.optimizer"})
    wrapper = kind()
    wrapper.optimizer, wrapper.param_groups, wrapper.step = optimizer, optimizer.param_groups, optimizer.step
    return wrapper


@pytest.mark.parametrize("package", ["accelerate", "lightning.pytorch.core", "pytorch_lightning.core"])
def test_optimisers_are_found_inside_those_of_training_loops(package):
    model = network()
    plain = step(model, inside(package, torch.optim.SGD(model.parameters(), lr=0.5)), size=2, batch_size=2)
    for found, gradient in zip(plain.release.gradients, wanted(network(), *data(2)), strict=True):
        torch.testing.assert_close(found, gradient)
    model = network()
    model, optimizer, _ = private(model, torch.optim.SGD(model.parameters(), lr=0.5))
    wrapper = inside(package, optimizer)
    captured = step(model, wrapper)  # without a `batch_size`, which Opacus' knows
    stage = Stage("dp", {"noise_multiplier": SIGMA, "max_grad_norm": CLIP})
    assert captured.release.defense == (stage,)
    assert Release.from_optimizer(wrapper, model).defense == (stage,)


def test_half_precision_of_accelerate_is_taken_off_the_copy():
    """It is another `forward`, bound to the model by the instance."""
    model, (images, _) = network(), data(2)

    def forward(self, x):
        return type(self).forward(self, x).bfloat16().float()

    forward.__module__ = "accelerate.utils.operations"
    model._original_forward, model.forward = model.forward, types.MethodType(forward, model)
    assert not torch.equal(model(images), network()(images))
    assert torch.equal(unwrapped(model)(images), network()(images))
    assert not torch.equal(model(images), network()(images))


def test_benchmark_takes_a_model_out_of_opacus_training():
    model, (images, labels) = network(), data(2)
    model, _, _ = private(model, torch.optim.SGD(model.parameters(), lr=0.5))
    cross_entropy(model(images), labels).backward()
    table = dpbench.benchmark(model, images, labels, defense="clip", iterations=1, progress=False)
    assert (table["status"] == "ok").all()


def test_opacus_evaluates_a_closure_before_it_clips():
    model, (images, labels) = network(), data(4)
    model, optimizer, _ = private(model, torch.optim.SGD(model.parameters(), lr=0.5))

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        return loss

    with dpbench.capture(model, optimizer) as captured:
        optimizer.step(closure)
    fitted = _fitted(captured.release, captured.model, 4)
    assert doubts(fitted, captured.model, cross_entropy, images, labels) == []


@pytest.mark.parametrize("fused", [True, False])
def test_scaling_of_mixed_precision_is_undone(fused):
    model, (images, labels) = network(), data(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with dpbench.capture(model, optimizer, batch_size=2) as captured:
        scaler.scale(cross_entropy(model(images), labels)).backward()
        scaler.step(optimizer)
    for found, gradient in zip(captured.release.gradients, wanted(network(), images, labels), strict=True):
        torch.testing.assert_close(found, gradient)


def test_what_the_optimiser_does_not_step_is_not_sent():
    """A head that is trained on a body which nobody froze."""
    model, (images, labels) = network(), data(2)
    captured = step(model, torch.optim.SGD(model[3].parameters(), lr=0.5), size=2, batch_size=2)
    assert captured.release.names == ("3.weight", "3.bias")
    frozen = [name for name, p in captured.model.named_parameters() if not p.requires_grad]
    assert frozen == ["1.weight", "1.bias"]
    assert all(p.requires_grad for p in model.parameters())
    fitted = _fitted(captured.release, captured.model, 2)
    assert doubts(fitted, captured.model, cross_entropy, images, labels) == []


def test_an_optimiser_of_another_model_is_refused():
    with (
        pytest.raises(InputError, match="not the model's"),
        dpbench.capture(network(), torch.optim.SGD(network().parameters(), lr=1), batch_size=1),
    ):
        pytest.fail("the block has begun")


class Scaled(nn.Module):
    """Somebody's model, whose only child happens to be called as in a wrapper."""

    def __init__(self):
        super().__init__()
        self.module = network()

    def forward(self, x):
        return self.module((x - 0.5) / 0.25)


def test_only_real_wrappers_are_taken_off():
    images, _ = data(2)
    for wrapped in (Scaled(), nn.DataParallel(Scaled())):
        assert torch.equal(unwrapped(wrapped)(images), Scaled()(images))


def clipped_as_a_whole(model):
    nn.utils.clip_grad_norm_(model.parameters(), 0.01)


def doubled(model):
    for p in model.parameters():
        p.grad *= 2


@pytest.mark.parametrize("change", [clipped_as_a_whole, doubled])
def test_a_multiple_of_the_gradient_is_named(change):
    model, (images, labels) = network(), data(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with dpbench.capture(model, optimizer, batch_size=2) as captured:
        cross_entropy(model(images), labels).backward()
        change(model)
        optimizer.step()
    (line,) = doubts(captured.release, captured.model, cross_entropy, images, labels)
    assert " times the gradient" in line


@pytest.mark.parametrize("names", [("noise",), ("clip", "noise")])
def test_declared_noise_is_compared_too(names):
    model, (images, labels) = network(), data(2)
    claimed = {"clip": {"max_grad_norm": CLIP}, "noise": {"noise_std": 0.3}}
    bare = Release.from_gradients(stepped(model, images, labels), batch_size=2)
    noise = torch.Generator().manual_seed(3)
    for share, doubtful in ((1.0, False), (0.5, True)):
        sent = [g + 0.3 * share * torch.randn(g.shape, generator=noise) for g in bare.gradients]
        release = Release(bare.names, tuple(sent), 2, tuple(Stage(name, claimed[name]) for name in names))
        lines = doubts(release, model, cross_entropy, images, labels)
        assert bool(lines) == doubtful


def stepped(model, images, labels):
    (cross_entropy(model(images), labels) / 100).backward()  # so small that nothing is clipped
    return model


def test_another_number_of_images_than_the_mean_is_over_is_refused():
    model = network()
    captured = step(model, torch.optim.SGD(model.parameters(), lr=1), size=2, batch_size=2)
    with pytest.raises(InputError, match="mean over 2 images"):
        dpbench.attack(captured.release, model=captured.model, originals=data(1))


def test_a_gradient_that_overflowed_is_refused():
    model = network()
    release = Release.from_gradients(stepped(model, *data(1)), batch_size=1)
    release.gradients[0][0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        dpbench.attack(release, model=model, originals=data(1))


def test_a_stage_may_leave_its_parameters_at_their_defaults():
    release = Release.from_gradients(stepped(network(), *data(1)), batch_size=1, defense=[Stage("clip")])
    (clip,) = _declared(release).defense
    assert clip.parameters["max_grad_norm"] > 0
    with pytest.raises(InputError, match="strength"):
        _declared(Release(release.names, release.gradients, 1, (Stage("clip", {"strength": 1}),)))
