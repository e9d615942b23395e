"""Files of weights that hold something else: each is refused in one sentence."""

import os

import pytest
import torch
from safetensors.torch import save_file

from dpbench.protocol import InputError
from dpbench.system import digest
from dpbench.victim.networks import build
from dpbench.victim.weights import load_weights, read
from tests.helpers.weights import IMAGES, other, refused

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ("null", "its facts are not a JSON object"),
        ("[1]", "its facts are not a JSON object"),
        ("{", "its facts are not JSON"),
        ("[" * 100_000, "its facts are not JSON"),
        ('{"mean": null}', "mean must be three numbers"),
        ('{"mean": 0.5}', "mean must be three numbers"),
        ('{"mean": [0.5, 0.5]}', "mean must be three numbers"),
        ('{"mean": [0.5, 0.5, NaN]}', "mean must be three numbers"),
        ('{"mean": [0.5, 0.5, "x"]}', "mean must be three numbers"),
        ('{"mean": [0.5, 0.5, true]}', "mean must be three numbers"),
        ('{"mean": [0.5, 0.5, %s]}' % ("9" * 400), "mean must be three numbers"),
        ('{"std": [1, 0, 1]}', "std must be three numbers"),
        ('{"std": [1, -1, 1]}', "std must be three numbers"),
        ('{"std": [1, Infinity, 1]}', "std must be three numbers"),
        ('{"bn_eps": NaN}', "bn_eps must be a number"),
        ('{"bn_eps": 0}', "bn_eps must be a number"),
        ('{"bn_eps": "1e-3"}', "bn_eps must be a number"),
        ('{"stride_in": ["conv1"]}', "stride_in must be conv1 or conv2"),
        ('{"stride_in": "conv9"}', "stride_in must be conv1 or conv2"),
    ],
)
def test_facts_are_checked_in_full(tmp_path, facts, match):
    save_file(other().state_dict(), tmp_path / "w.safetensors", metadata={"dpbench": facts})
    refused(tmp_path / "w.safetensors", f"w.safetensors cannot be read as weights .*{match}")


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"dpbench": "{}"}])
def test_facts_may_be_missing(tmp_path, metadata):
    save_file(other().state_dict(), tmp_path / "w.safetensors", metadata=metadata)
    assert torch.equal(load_weights(build("resnet20"), tmp_path / "w.safetensors")(IMAGES), other()(IMAGES))


def odd_tensors():
    fine = torch.ones(10)
    return {
        "sparse": (fine.to_sparse(), "is sparse or nested"),
        "csr": (torch.eye(10).to_sparse_csr(), "is sparse or nested|not a state dict"),
        "quantised": (torch.quantize_per_tensor(fine, 0.1, 0, torch.qint8), "holds torch.qint8"),
        "meta": (torch.empty(10, device="meta"), "is not stored in full"),
        "nested": (torch.nested.nested_tensor([fine, fine[:3]]), "nested|not a state dict of tensors"),
        "jagged": (
            torch.nested.nested_tensor([fine, fine[:3]], layout=torch.jagged),
            "nested|not a state dict of tensors",
        ),
        "fp8": (fine.to(torch.float8_e4m3fn), "holds torch.float8_e4m3fn"),
        "complex": (fine.to(torch.complex64), "holds torch.complex64"),
        "stride 0": (torch.ones(1).expand(10), "is not stored in full"),
        "huge": (torch.ones(1).expand(2**40, 10), "is not stored in full"),
        "integers": (fine.long(), "holds torch.int64, not floats"),
        "bool": (fine.bool(), "holds torch.bool, not floats"),
    }


@pytest.mark.parametrize(
    "kind",
    [
        *("sparse", "csr", "quantised", "meta", "nested", "jagged"),
        *("fp8", "complex", "stride 0", "huge", "integers", "bool"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_plain_floats(tmp_path, kind):
    tensor, match = odd_tensors()[kind]
    torch.save(other().state_dict() | {"fc.bias": tensor}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", match)


def test_variances_are_not_negative(tmp_path):
    state = other().state_dict()
    state["bn1.running_var"] = -torch.ones(16)
    torch.save(state, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "bn1.running_var holds negative variances")


def test_keys_that_are_no_names(tmp_path):
    torch.save({3: torch.ones(2), None: torch.ones(2)}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "does not fit this model")


def test_weights_that_require_gradients(tmp_path):
    model = other()
    torch.save(model.state_dict() | dict(model.named_parameters()), tmp_path / "w.pt")
    loaded = load_weights(build("resnet20"), tmp_path / "w.pt")
    assert torch.equal(loaded(IMAGES), model(IMAGES))
    assert all(p.is_leaf for p in loaded.parameters())


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "There is no weights file")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_files_that_changed_since_the_plan_are_refused(tmp_path, suffix):
    file = tmp_path / f"w.{suffix}"
    save = torch.save if suffix == "pt" else save_file
    save(other().state_dict(), file)
    planned = read(file).digest
    assert planned == digest.content(file.read_bytes())
    assert read(file, planned).digest == planned
    save(build("resnet20", seed=5).state_dict(), file)
    with pytest.raises(InputError, match=r"has changed since the run was planned: start it again\.$"):
        read(file, planned)
