"""The network whose gradient is attacked: architectures, weights, batch-norm statistics."""

from dpbench.victim.loading import Victim, accuracy, load, usual_norm, weights_digest

__all__ = ["Victim", "accuracy", "load", "usual_norm", "weights_digest"]
