"""Which executor `auto` is, from cells, cores and device alone."""

from __future__ import annotations

import pytest
import torch

from dpbench.sweep import executors
from dpbench.sweep.executors import choice
from tests.helpers.cells import cell, part

torch.set_num_threads(1)


def searches(*lengths):
    return [cell(part("inverting-gradients", iterations=n), batch_seed=i) for i, n in enumerate(lengths)]


@pytest.mark.parametrize(
    ("cells", "device", "cores", "threads", "expected"),
    [
        (searches(2000, 2000), "cpu", 2, 1, "workers"),
        (searches(2000, 1999), "cpu", 2, 1, "local"),
        (searches(8000), "cpu", 2, 1, "local"),
        (searches(2000, 2000), "cpu", 1, 1, "local"),
        (searches(2000, 2000), "cpu", 2, 2, "local"),
        (searches(2000, 2000), "cuda", 2, 1, "local"),
        ([], "cpu", 2, 1, "local"),
    ],
)
def test_workers_where_they_pay(cells, device, cores, threads, expected, monkeypatch):
    monkeypatch.setattr(choice, "cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert choice.auto(cells, device) == expected


def test_a_given_number_of_workers_is_taken():
    assert executors.create("auto", "cpu", workers=3).slots == 3
    assert executors.create("auto", "cpu").slots == 1
    assert executors.create("local", "cpu", workers=3).slots == 1
