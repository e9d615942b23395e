"""What people call from their own code: `benchmark`, `attack`, `capture`, `load`."""

from dpbench.api.attack import attack
from dpbench.api.benchmark import benchmark
from dpbench.api.capture import Captured, capture
from dpbench.api.load import load

__all__ = ["Captured", "attack", "benchmark", "capture", "load"]
