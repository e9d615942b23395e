"""Labels are counted as a set with repeats."""

import torch

from dpbench.metrics import labels_restored


def test_labels_count_as_a_set_with_repeats():
    found, labels = torch.tensor([3, 1, 1, 2]), torch.tensor([1, 3, 3, 1])
    assert labels_restored(found, labels).tolist() == [True, True, False, True]
