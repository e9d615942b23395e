"""No two streams of a run are the same or correlate."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy import stats

from dpbench.system.seeds import PURPOSES, seed

DRAWS = 4096


def draws(number: int, count: int = DRAWS) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(number), dtype=torch.float64)


def neighbours() -> list[tuple[str | int, ...]]:
    """Parts that differ as little as the parts of one run do."""
    keys = ("0123456789abcdef", "0123456789abcdee")
    return [
        (),
        *((key,) for key in keys),
        *itertools.product(keys, range(20)),
        ("a", "b"),
        ("ab",),
        (1,),
        ("1",),
    ]


def test_pytorch_keeps_32_bits_of_a_seed():
    """Why seeds are hashed and not derived by arithmetic: a high bit makes no other stream."""
    for start in (0, 1, 12345):
        assert torch.equal(draws(start), draws(start ^ (1 << 62)))
        assert not torch.equal(draws(start), draws(start ^ 1))


def test_all_seeds_differ_and_fit_into_32_bits():
    found = [seed(purpose, *parts) for purpose in PURPOSES for parts in neighbours()]
    assert len(set(found)) == len(found)
    assert all(0 <= each < 2**32 for each in found)


def correlation_of_worst_pair(streams: torch.Tensor) -> float:
    """Largest absolute correlation of two rows, in standard deviations of independent ones."""
    centred = streams - streams.mean(1, keepdim=True)
    unit = centred / centred.norm(dim=1, keepdim=True)
    correlations = (unit @ unit.T).fill_diagonal_(0)
    return float(correlations.abs().max()) * streams.shape[1] ** 0.5


def level(pairs: int) -> float:
    """What the worst of `pairs` independent pairs passes with probability 1e-3 (Bonferroni)."""
    return stats.norm.isf(1e-3 / 2 / pairs)


@pytest.mark.parametrize("shift", [0, 1, 624])
def test_no_two_streams_correlate(shift):
    """Also against themselves moved on by one draw and by one state of the generator."""
    found = [draws(seed(purpose, *parts), DRAWS + shift) for purpose in PURPOSES for parts in neighbours()]
    streams = torch.stack(found)
    both = torch.cat([streams[:, :DRAWS], streams[:, shift:]]) if shift else streams
    count = len(both)
    assert correlation_of_worst_pair(both) < level(count * (count - 1) // 2)


def test_the_correlation_test_notices_a_repeated_stream():
    number = seed("release", "cell")
    pair = torch.stack([draws(number), draws(number ^ (1 << 62)), draws(seed("inclusion", "cell"))])
    assert correlation_of_worst_pair(pair) > level(3)
    assert correlation_of_worst_pair(pair[1:]) < level(1)


def test_inclusion_coins_say_nothing_about_the_noise():
    """The coins were the noise: with 1 in 10 included, the first draws gave away who was."""
    noise, coins = [], []
    for trial in range(2000):
        noise.append(draws(seed("release", "cell", trial), 1))
        generator = torch.Generator().manual_seed(seed("inclusion", "cell", trial))
        coins.append(torch.rand(1, generator=generator, dtype=torch.float64) < 0.1)
    included, noise = torch.cat(coins), torch.cat(noise)
    assert stats.ks_2samp(noise[included], noise[~included]).pvalue > 1e-3


def test_what_is_no_purpose_or_part_is_refused():
    with pytest.raises(ValueError, match="Unknown purpose 'coins' of a seed; known: release, "):
        seed("coins", 1)
    for part in (1.0, True, None, b"x"):
        with pytest.raises(TypeError, match="words and whole numbers"):
            seed("release", part)
