"""Images to attack, and the rules that draw batches of them."""

# isort: off
from dpbench.data.datasets import Dataset, dataset, datasets, load_data
from dpbench.data.draws import DRAWS, Batch, disjoint_batches, disjoint_places, draw_batch, draw_disjoint
from dpbench.data.clients import with_clients

# each registers its data set, in the order in which messages list them
from dpbench.data import samples, imagenet_samples
from dpbench.data.cifar10 import cifar10
from dpbench.data import folder
# isort: on

__all__ = [
    "DRAWS",
    "Batch",
    "Dataset",
    "cifar10",
    "dataset",
    "datasets",
    "disjoint_batches",
    "disjoint_places",
    "draw_batch",
    "draw_disjoint",
    "folder",
    "imagenet_samples",
    "load_data",
    "samples",
    "with_clients",
]
