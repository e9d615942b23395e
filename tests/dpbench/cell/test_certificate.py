"""What an attack says of an image stands in the row of the original that the image was assigned to."""

from __future__ import annotations

import torch

from dpbench.cell import rows
from dpbench.protocol import Reconstruction


def test_it_follows_the_assignment():
    images = torch.zeros(2, 3, 8, 8)
    own = {"certified": torch.tensor([True, False]), "residual": torch.tensor([1e-7, 0.5])}
    found = Reconstruction(images, torch.tensor([0, 1]), "known", 0.0, images, 1, 0.0, **own, note="Pooling.")
    first, second = rows.of_output(found, torch.tensor([1, 0]))
    assert (first["certified"], second["certified"]) == (False, True)
    assert first["residual"] == 0.5
    assert rows.of_search(found)["note"] == "Pooling."


def test_a_search_certifies_nothing():
    images = torch.zeros(1, 3, 8, 8)
    found = Reconstruction(images, torch.tensor([0]), "known", 0.0, images, 1, 0.0)
    assert rows.of_output(found, torch.tensor([0])) == [{}]
    assert rows.of_search(found)["note"] is None
