"""The network whose gradient is attacked: architectures, weights, batch-norm statistics."""

from dpbench.victim.loading import Victim, accuracy, load, takes_grey, weights_digest
from dpbench.victim.networks import network, usual_norm

# isort: off
# each registers its networks, in the order in which messages list them
from dpbench.victim import lenet
from dpbench.victim import convnet
from dpbench.victim import resnet
from dpbench.victim import mlp
from dpbench.victim import vit
# isort: on

__all__ = [
    "Victim",
    "accuracy",
    "convnet",
    "lenet",
    "load",
    "mlp",
    "network",
    "resnet",
    "takes_grey",
    "usual_norm",
    "vit",
    "weights_digest",
]
