"""A toy asset: what its sources deliver, and what that converts to."""

import hashlib

import torch

CONTENT = b"what the source delivers"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


FACTS = {"bn_eps": 1e-3}


def toy_tensors(_file=None):
    return {"layer.weight": torch.full((4,), 0.1), "layer.running_var": torch.full((4,), 1e6)}


def convert(file):
    assert file.read_bytes() == CONTENT
    return toy_tensors()


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def damage_bit(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
