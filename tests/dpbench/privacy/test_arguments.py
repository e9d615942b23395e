"""What the small functions about privacy give, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dpbench import privacy
from dpbench.protocol import InputError


def test_the_noise_of_missing_clients_is_missing():
    shares = np.random.default_rng(0).normal(0, 1.5 / math.sqrt(10), (200_000, 10))
    assert privacy.noise_left(1.5, 10, 4) == pytest.approx(shares[:, 4:].sum(1).std(), rel=0.01)


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        (lambda: privacy.noise_left(-1.0, 4, 1), "noise_multiplier"),
        (lambda: privacy.noise_left(math.nan, 4, 1), "noise_multiplier"),
        (lambda: privacy.noise_left(1.0, 4, 1.5), "can be missing, not 1.5"),
        (lambda: privacy.delta_note(1e-5, 0), "train_size"),
        (lambda: privacy.trade_off(1.0).power(math.nan), "alpha"),
        (lambda: privacy.trade_off(1.0).power(1.5), "alpha"),
        (lambda: privacy.trade_off(1.0).delta(math.nan), "eps"),
    ],
)
def test_what_is_no_number_of_its_kind_is_refused(asked, match):
    with pytest.raises(InputError, match=match):
        asked()
