"""Images to attack, and the rule that draws batches of them."""

from dpbench.data.datasets import Batch, Dataset, cifar10, draw_batch, load_data

__all__ = ["Batch", "Dataset", "cifar10", "draw_batch", "load_data"]
