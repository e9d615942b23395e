"""The network whose gradient is attacked: architectures, weights, batch-norm statistics."""

from dpbench.victim.loading import Victim, accuracy, data_for, load, weights_digest
from dpbench.victim.networks import network, usual_norm

# isort: off
# each registers its networks, in the order in which messages list them
from dpbench.victim import lenet
from dpbench.victim import convnet
from dpbench.victim import resnet
from dpbench.victim import mlp
# isort: on

__all__ = [
    "Victim",
    "accuracy",
    "convnet",
    "data_for",
    "lenet",
    "load",
    "mlp",
    "network",
    "resnet",
    "usual_norm",
    "weights_digest",
]
