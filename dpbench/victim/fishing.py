"""What a server that fishes sends out: the victim with another last layer, so that one class alone is heard.

Class fishing (Wen et al. 2022, "Fishing for User Data in Large-Batch Federated Learning via Gradient
Magnification"). Nothing is added to the model; weights of its last layer are changed.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from dpbench.protocol import InputError
from dpbench.victim.head import head


def fished(model: nn.Module, num_classes: int, target: int, public: Tensor, margin: float) -> nn.Module:
    """A copy of `model` that passes gradients on from the images of one class alone.

    The target's logit stays as it is. All others are one constant, so high that the target's probability p is
    next to 0. The loss gradient of an image's features is then (p - 1) times the target's row of weights if
    it is of that class, and p times the row if it is not.

    Args:
        model: the victim.
        num_classes: K, at least 2.
        target: the class to fish for, 0 to K - 1.
        public: other images [G, C, H, W] in [0, 1]; the constant is set by their largest logit.
        margin: by how many nats it exceeds that logit.

    Raises:
        InputError: for a model whose logits are not the outputs of a fully connected layer with a bias.
    """
    changed = copy.deepcopy(model)
    name = head(changed, num_classes)
    if name is None:
        raise InputError(
            f"`threat_model` fishing changes a last, fully connected layer with {num_classes} outputs and a "
            "bias, which this model lacks: choose another `model`."
        )
    layer, seen = changed.get_submodule(name), []
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        logits = changed(public)
        handle.remove()
        if len(seen) != 1 or not torch.equal(seen[0], logits):
            raise InputError(
                f"`threat_model` fishing needs logits that are the outputs of a fully connected layer, and "
                f"this model does not end with {name}: choose another `model`."
            )
        others = torch.arange(num_classes) != target
        layer.weight[others] = 0
        layer.bias[others] = logits[:, target].max() + margin
    return changed
