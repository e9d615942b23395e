"""Updates of FedAvg clients: read from the weights before and after, attacked as they were sent."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import dpbench
from dpbench.protocol import InputError, LocalTraining, Release, Stage

torch.set_num_threads(1)


def network(frozen=False):
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 12, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(12 * 16, 5))
    model = nn.Sequential(*layers)
    model[0].bias.requires_grad_(not frozen)
    return model


def client_data(count=4):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, 8, 8, generator=generator), torch.arange(count) % 5


def trained(model, images, labels, *, epochs=2, batch_size=2, lr=0.1, **more):
    """A client's model after its local training with PyTorch's SGD."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr, **more)
    for _ in range(epochs):
        for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
    return model


def update(before, after, **changes):
    given = {"lr": 0.1, "local_steps": 4, "batch_size": 2, "images": 4} | changes
    return Release.from_update(before, after, **given)


def attacked(release, model, batch, **more):
    given = {"iterations": 3, "device": "cpu", "progress": False} | more
    return dpbench.attack(release, model=model, originals=batch, **given)


def test_weights_as_arrays_are_read_like_state_dicts():
    images, labels = client_data()
    before = network()
    after = trained(before, images, labels)
    arrays = ({name: w.numpy() for name, w in model.state_dict().items()} for model in (before, after))
    wanted, found = update(before, after).gradients, update(*arrays).gradients
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    with pytest.raises(InputError, match="a tensor or an array for each name"):
        update([w.numpy() for w in before.state_dict().values()], after)


def test_an_update_is_the_mean_gradient_of_its_steps():
    images, labels = client_data()
    before = network()
    release = update(before, trained(before, images, labels))
    assert release.local == LocalTraining(epochs=2, batch_size=2, lr=0.1)
    assert (release.batch_size, release.guarantee, release.defense) == (4, None, ())
    model, total = copy.deepcopy(before), [torch.zeros_like(p) for p in before.parameters()]
    for rows in release.local.batches(4):
        loss = cross_entropy(model(images[rows]), labels[rows])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for p, t, g in zip(model.parameters(), total, gradients, strict=True):
                p -= 0.1 * g
                t += g / 4
    assert release.names == tuple(name for name, _ in before.named_parameters())
    for found, wanted in zip(release.gradients, total, strict=True):
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_modules_wrapped_modules_and_state_dicts_say_the_same():
    images, labels = client_data()
    before = network()
    after = trained(before, images, labels)
    expected = update(before, after)
    for pair in (
        (before.state_dict(), after.state_dict()),
        (nn.DataParallel(before), after),
        (before, after.state_dict()),
    ):
        found = update(*pair)
        assert found.names == expected.names
        assert all(torch.equal(f, e) for f, e in zip(found.gradients, expected.gradients, strict=True))


def test_one_pass_unless_the_images_are_counted():
    images, labels = client_data()
    before = network()
    after = trained(before, images, labels, epochs=1)
    release = Release.from_update(before, after, lr=0.1, local_steps=2, batch_size=2)
    assert (release.batch_size, release.local.epochs) == (4, 1)


def test_an_update_is_attacked_end_to_end():
    """Rows, floors, what was done locally, and no epsilon; simulated, it is rebuilt best."""
    images, labels = client_data(2)
    before = network()
    after = trained(before, images, labels, epochs=3, batch_size=1)
    release = Release.from_update(before, after, lr=0.1, local_steps=6, batch_size=1, images=2)
    ways = ["simulate", "surrogate", "single-gradient"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = attacked(release, before, (images, labels), iterations=120, update=ways)
    rows = table[table["floor"].isna()]
    assert set(rows["update"]) == set(ways)
    assert (rows["status"] == "ok").all()
    told = rows[["local_epochs", "local_batch_size", "local_lr"]].drop_duplicates()
    assert told.to_numpy().tolist() == [[3, 1, 0.1]]
    assert rows[["eps", "eps_release"]].isna().all(axis=None)
    assert rows["psnr_floor"].notna().all()
    assert {"mean-image", "start", "noise-gradient"} <= set(table["floor"].dropna())
    mean = rows.groupby("update")["psnr"].mean()
    assert mean["simulate"] > mean[["surrogate", "single-gradient"]].max() + 2


def test_a_defended_update_has_its_undefended_twin():
    images, labels = client_data()
    before = network()
    release = update(before, trained(before, images, labels), defense=[Stage("prune", {"prune_ratio": 0.5})])
    rows = attacked(release, before, (images, labels))
    rows = rows[rows["floor"].isna()]
    assert set(rows["defense"]) == {"none", "prune"}
    assert (rows["local_epochs"] == 2).all()


def test_state_dicts_with_frozen_and_tied_weights_are_attacked():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network(frozen=True)
            self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(torch.tanh(self.first(self.body(x))))

    images, labels = client_data()
    before = Tied()
    after = trained(before, images, labels)
    release = update(before.state_dict(), after.state_dict())
    assert {"second.weight", "body.0.bias"} <= set(release.names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = attacked(release, before, (images, labels))
    assert (rows["status"] == "ok").all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr": 0.0}, "`lr` must be a number above 0"),
        ({"lr": float("nan")}, "`lr` must be a number above 0"),
        ({"lr": "0.1"}, "`lr` must be a number above 0, not '0.1'"),
        ({"lr": None}, "`lr` must be a number above 0"),
        ({"local_steps": "4"}, "`local_steps` must be 1 or more, a whole number, not '4'"),
        ({"local_steps": 4.0}, "`local_steps` must be 1 or more, a whole number"),
        ({"batch_size": 2.5}, "`batch_size` must be 1 or more, a whole number"),
        ({"images": "4"}, "`images` must be 1 or more, a whole number"),
        ({"local_steps": 0}, "`local_steps` must be 1 or more"),
        ({"batch_size": 0}, "`batch_size` must be 1 or more"),
        ({"images": 0}, "`images` must be 1 or more"),
        ({"local_steps": 3}, "has 2 steps of 2, and `local_steps` is 3"),
    ],
)
def test_numbers_that_make_no_training_are_refused(changes, said):
    before = network()
    with pytest.raises(InputError, match=said):
        update(before, trained(before, *client_data()), **changes)


def test_arrays_without_names_are_told_how_to_get_them():
    """Flower's clients send a list of arrays."""
    before = network()
    arrays = [values.numpy() for values in trained(before, *client_data()).state_dict().values()]
    with pytest.raises(InputError, match=r"name a list .* dict\(zip\(model\.state_dict\(\), arrays\)\)"):
        update(before, arrays)
    update(before, dict(zip(before.state_dict(), arrays, strict=True)))


def test_models_that_do_not_fit_are_refused():
    before = network()
    after = trained(before, *client_data())
    fewer = {name: value for name, value in after.state_dict().items() if name != "3.bias"}
    with pytest.raises(InputError, match=r"only one of them has 3\.bias"):
        update(before, fewer)
    with pytest.raises(InputError, match=r"3\.bias is \[5\] in `before` and \[6\] in `after`"):
        update(before, fewer | {"3.bias": torch.zeros(6)})
    with pytest.raises(InputError, match=r"3\.bias is not finite: the local training diverged"):
        update(before, fewer | {"3.bias": torch.full((5,), torch.nan)})
    with pytest.raises(InputError, match="nothing was trained"):
        update(before, copy.deepcopy(before))
    with pytest.raises(InputError, match=r"0\.bias is frozen and changed all the same"):
        update(network(frozen=True), after)


@pytest.mark.parametrize("as_given", [lambda model: model, lambda model: model.state_dict()])
def test_statistics_that_changed_are_refused(as_given):
    """Batch norm in training mode; in evaluation mode its statistics stay, and all is well."""
    images, labels = client_data()
    before = nn.Sequential(nn.BatchNorm2d(3), network())
    with pytest.raises(InputError, match=r"The buffer 0\.\w+ changed .* batch norm in evaluation mode"):
        update(as_given(before), as_given(trained(before, images, labels)))
    before.eval()
    release = update(as_given(before), as_given(trained(before, images, labels)))
    assert "0.weight" in release.names
    assert "0.running_mean" not in release.names


@pytest.mark.parametrize("wrong", ["momentum", "lr", "order", "model"])
def test_another_training_than_was_said_is_doubted(wrong):
    images, labels = client_data()
    before = network()
    more = {"momentum": 0.9} if wrong == "momentum" else {}
    release = update(before, trained(before, images, labels, **more), lr=0.02 if wrong == "lr" else 0.1)
    given = (images.flip(0), labels.flip(0)) if wrong == "order" else (images, labels)
    model = trained(before, images, labels) if wrong == "model" else before
    with pytest.warns(UserWarning, match="from the update that plain SGD makes of these images"):
        attacked(release, model, given, iterations=1)


def test_what_the_release_says_is_not_said_again():
    images, labels = client_data()
    before = network()
    release = update(before, trained(before, images, labels))
    with pytest.raises(InputError, match="attack\\(\\) takes no local_lr"):
        attacked(release, before, (images, labels), local_lr=0.1)
    with pytest.raises(InputError, match="update of 4 images and `originals` has 3: say how many `images`"):
        attacked(release, before, (images[:3], labels[:3]))
    clipped = update(before, trained(before, images, labels), defense=[Stage("clip", {"max_grad_norm": 1.0})])
    with pytest.raises(InputError, match="clip works on each sample's gradient, which no update has"):
        attacked(clipped, before, (images, labels))


def test_an_update_that_was_clipped_as_a_whole_is_attacked():
    images, labels = client_data()
    before = network()
    plain = update(before, trained(before, images, labels))
    norm = float(torch.cat([4 * g.flatten() for g in plain.gradients]).norm())
    stage = Stage("clip", {"max_grad_norm": norm / 2, "unit": "user"})
    clipped = replace(plain, gradients=tuple(g / 2 for g in plain.gradients), defense=(stage,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = attacked(clipped, before, (images, labels))
    assert set(table.loc[table["defense"] == "clip", "unit"]) == {"user"}
