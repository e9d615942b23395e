"""Networks that keep more, return more or give less back than a plain chain of layers."""

from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

import defenses
import dpbench
from attacks.engine.twice import twice_differentiable
from dpbench.protocol import InputError
from dpbench.sweep.own_model import copied
from dpbench.victim.fitting import fit

torch.set_num_threads(1)
IMAGES, LABELS = torch.rand(3, 3, 8, 8), torch.arange(3)


def chain(first=None):
    torch.manual_seed(0)
    return nn.Sequential(first or nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(144, 4)).eval()


class Around(nn.Module):
    """A chain with something done to what goes in and to what comes out."""

    def __init__(self, before=lambda x: x, after=lambda y: y):
        super().__init__()
        self.chain, self.before, self.after = chain(), before, after

    def forward(self, x):
        return self.after(self.chain(self.before(x)))


class Tokens(nn.Module):
    """A stem with batch or instance norm, whose places become tokens, as in XCiT and LeViT."""

    def __init__(self, norm):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 2, stride=2), norm)
        self.mix, self.norm, self.head = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x):
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(self.mix(self.norm(tokens)).tanh().mean(1))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8), nn.InstanceNorm2d(8, affine=True)])
@pytest.mark.parametrize("count", [1, 2])
def test_gradients_of_single_images_through_norms_before_tokens(norm, count):
    """PyTorch shuffles them on a CPU; of two images of one kind the gradient is that of one, and right."""
    model = copied(Tokens(norm).eval())
    loss = fit(model, cross_entropy, IMAGES[:1])
    weights, wanted = list(model.parameters()), 0
    for image, label in zip(IMAGES[:count].split(1), LABELS[:count].split(1), strict=True):
        twice = cross_entropy(model(image.expand(2, -1, -1, -1)), label.expand(2))
        each = torch.cat([g.flatten() for g in torch.autograd.grad(twice, weights)])
        wanted = wanted + each * min(1, 0.1 / (float(each.norm()) + 1e-6)) / count
    clip = defenses.create("clip", max_grad_norm=0.1)
    (release,) = clip.releases(model, loss, IMAGES[:count], LABELS[:count], seed=0, count=1)
    torch.testing.assert_close(torch.cat([g.flatten() for g in release.gradients]), wanted)
    if count == 1:  # what a search differentiates
        with twice_differentiable():
            value = loss(model(IMAGES[:1]), LABELS[:1])
            trial = torch.autograd.grad(value, weights, create_graph=True)
        found = torch.cat([g.flatten() for g in trial]).detach()
        torch.testing.assert_close(found * 0.1 / (found.norm() + 1e-6), wanted)


def test_a_captured_step_of_one_image_through_norms_before_tokens_is_said_to_differ():
    """It has PyTorch's gradient."""
    model = Tokens(nn.BatchNorm2d(8)).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with dpbench.capture(model, optimizer, batch_size=1) as captured:
        cross_entropy(model(IMAGES[:1]), LABELS[:1]).backward()
        optimizer.step()
    given = {"originals": (IMAGES[:1], LABELS[:1]), "attacks": "label-restoration", "progress": False}
    with pytest.warns(UserWarning, match=r"differs by \d+% from the gradient of these images"):
        dpbench.attack(captured.release, model=captured.model, **given)


def ran(model, defense="clip", attack="inverting-gradients", **more):
    table = dpbench.benchmark(
        model, IMAGES, LABELS, attacks=attack, defense=defense, iterations=1, progress=False, **more
    )
    return table[table["floor"].isna()]


def pruned():
    model = chain()
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("model", [pruned, lambda: chain(weight_norm(nn.Conv2d(3, 4, 3)))])
def test_weights_that_are_computed_in_every_pass(model):
    model = model()
    model(IMAGES)  # leaves a tensor that deepcopy refuses
    clip = defenses.create("clip", max_grad_norm=0.1)
    (release,) = clip.releases(model, cross_entropy, IMAGES, LABELS, seed=0, count=1)
    weights, wanted = list(model.parameters()), 0
    for image, label in zip(IMAGES.split(1), LABELS.split(1), strict=True):
        each = torch.autograd.grad(cross_entropy(model(image), label), weights)
        flat = torch.cat([g.flatten() for g in each])
        wanted = wanted + flat * min(1, 0.1 / (float(flat.norm()) + 1e-6)) / len(IMAGES)
    torch.testing.assert_close(torch.cat([g.flatten() for g in release.gradients]), wanted)
    assert (ran(model)["status"] == "ok").all()


def test_a_pruned_model_is_captured_in_training():
    model = pruned().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with dpbench.capture(model, optimizer, batch_size=3) as captured:
        cross_entropy(model(IMAGES), LABELS).backward()
        optimizer.step()
    assert captured.release.names == ("0.bias", "0.weight_orig", "3.weight", "3.bias")


class Heads(nn.Module):
    """As GoogLeNet: an object with auxiliary logits in training, logits alone in evaluation."""

    def __init__(self):
        super().__init__()
        self.chain = chain()

    def forward(self, x):
        logits = self.chain(x)
        return namedtuple("Outputs", "logits aux")(logits, logits.flip(1)) if self.training else logits


def test_more_heads_in_training_than_in_evaluation():
    assert (ran(Heads().train())["status"] == "ok").all()


def on_meta():
    with torch.device("meta"):
        return chain()


def with_complex_weights():
    model = Around()
    model.phase = nn.Parameter(torch.ones(2, dtype=torch.cfloat))
    return model


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (on_meta, r"model's 0\.weight is on the meta device, without values: load its weights"),
        (with_complex_weights, "model's phase is complex: give real weights"),
        (lambda: Around(after=torch.Tensor.detach), r"output has no gradient: take out torch\.no_grad"),
    ],
)
def test_models_without_usable_weights_or_gradients_are_refused(model, said):
    with pytest.raises(InputError, match=said):
        ran(model())


def test_no_search_without_a_gradient_of_the_images():
    model = Around(before=torch.Tensor.detach)
    with pytest.raises(InputError, match=r"no gradient with respect to the images.*or choose label-restor"):
        ran(model, "none")
    assert (ran(model, "none", "label-restoration")["status"] == "ok").all()


class Attention(nn.Module):
    """One layer of attention among the rows of an image, computed again in the backward pass."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(24, 24), nn.Linear(24, 4)

    def mixed(self, x):
        x = self.inner(x)
        return scaled_dot_product_attention(x, x, x)

    def forward(self, x):
        x = x.transpose(1, 2).flatten(2)[:, None]
        return self.outer(checkpoint(self.mixed, x, use_reentrant=False)[:, 0].mean(1))


def test_gradient_checkpointing_that_cannot_be_differentiated_twice_is_said():
    with pytest.raises(InputError, match=r"gradient checkpointing.*set_grad_checkpointing\(False\)"):
        ran(Attention().eval(), "none")


@pytest.mark.parametrize("normalised", [spectral_norm, parametrizations.spectral_norm])
def test_spectral_norm_in_training_changes_buffers_and_is_said_to(normalised):
    model = chain(normalised(nn.Conv2d(3, 4, 3))).train()
    clip = defenses.create("clip")
    with pytest.raises(InputError, match=r"changes its buffer 0\.\S*_u as it runs"):
        clip.releases(model, cross_entropy, IMAGES, LABELS, seed=0, count=1)


def test_a_model_of_torch_export():
    size = torch.export.Dim("size", min=1, max=64)
    exported = torch.export.export(chain(), (IMAGES,), dynamic_shapes=({0: size},)).module()
    assert (ran(exported, "none", "label-restoration")["status"] == "ok").all()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:The .grad attribute")
@pytest.mark.parametrize("whole", [True, False])
def test_layers_in_torchscript_are_clipped_and_attacks_that_look_into_them_say_so(whole):
    model = chain()
    model = torch.jit.trace(model, IMAGES) if whole else nn.Sequential(torch.jit.trace(model, IMAGES))
    found = ran(model, ["clip", "none"], "dlg")
    assert (found["status"] == "ok").all()
    assert set(found["per_sample"].dropna()) == {"loop" if whole else "functorch"}
    if not whole:
        assert (ran(model, "none")["status"] == "ok").all()
    for name in ("peel", "inverting-gradients") if whole else ("peel",):
        with pytest.raises(InputError, match=rf"{name} looks into .* TorchScript hides: give .* `dlg`"):
            dpbench.benchmark(model, IMAGES[:1], LABELS[:1], attacks=name, iterations=1, progress=False)
