"""The rows are what the defence releases, each call with a seed of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from defenses import Chain, create
from dpbench.audit.canaries import SIZE, Probe, canaries, mean_output
from dpbench.audit.releases import CHUNK, Source, distinct_seeds
from dpbench.protocol import InputError
from tests.helpers.mechanisms import Correct, NormsPublished, chain, claim
from tests.helpers.noise_bugs import SixteenBitSeed


def source(defense, seed=0, count=2000):
    return Source(defense, seed=seed, count=count, portions=4, progress=None)


def test_seeds_differ_and_are_told_apart_by_the_generator():
    seeds = distinct_seeds(0, 100_000)  # 32 random bits each would give a pair more often than not
    assert len(set(seeds)) == 100_000
    assert 0 <= min(seeds) < max(seeds) < 2**32
    assert distinct_seeds(1, 10) != seeds[:10]


@pytest.mark.parametrize("name", ["noise", "noise+prune"])
def test_rows_are_the_sums_of_what_is_released_and_the_batch_size(name):
    defense = create(name, noise_std=1.0, **({"prune_ratio": 0.5} if "prune" in name else {}))
    images = canaries(1.0, 4, seed=0)[0].present
    (rows,) = source(defense).take(images, 3)
    seed = distinct_seeds(0, 2000 // CHUNK + 4)[0]
    made = defense.releases(
        Probe(), mean_output, images, torch.zeros(4, dtype=torch.int64), seed=seed, count=3
    )
    expected = torch.stack([torch.cat([g.flatten() for g in release.gradients]) for release in made]) * 4
    np.testing.assert_allclose(rows.released[:, :SIZE], expected.numpy(), rtol=1e-6)
    assert (rows.released[:, SIZE] == 4).all()
    assert (rows.noised == rows.released[:, :SIZE]).all()  # no guarantee: all stages together are looked at


def test_the_noise_is_looked_at_before_post_processing():
    prune, noise = create("prune", prune_ratio=0.5).stages, create("noise", noise_std=1.0).stages
    (rows,) = source(chain(Correct, claim(1.0), *noise, *prune)).take(canaries(1.0, 4, seed=0)[0].absent, 200)
    assert (rows.noised != 0).all()
    assert (rows.released[:, :SIZE] == 0).mean() == pytest.approx(0.5)
    assert rows.noised.std() == pytest.approx(claim(1.0).noise_multiplier, rel=0.05)


def test_the_noise_is_looked_at_after_every_stage_that_the_guarantee_needs():
    """A chain whose guarantee rests on two stages together."""

    class Together(Chain):
        @property
        def guarantee(self):
            return claim(1.0) if len(self.stages) >= 2 else None

    stages = create("clip+noise+prune", max_grad_norm=1.0, noise_std=1.0, prune_ratio=0.5).stages
    (rows,) = source(Together(stages)).take(canaries(1.0, 4, seed=0)[0].absent, 200)
    assert (rows.noised != 0).all()
    assert rows.noised.std() > 3


class OneTensor(Correct):
    def aggregates(self, *given):
        return [gradients[:1] for gradients in super().aggregates(*given)]


class Flat(Correct):
    def aggregates(self, *given):
        return [tuple(g.flatten() for g in gradients) for gradients in super().aggregates(*given)]


class OneRelease(Correct):
    def aggregates(self, *given):
        return super().aggregates(*given)[:1]


@pytest.mark.parametrize(
    ("defence", "said"),
    [
        (OneTensor, r"shapes \[1, 24\], and those of the model are \[1, 24\], \[1, 24\]: give one for each"),
        (Flat, r"hands back gradients of shapes \[24\], \[24\]"),
        (OneRelease, r"made 1 release, and 3 were asked for"),
    ],
)
@pytest.mark.parametrize("after", [(), create("prune", prune_ratio=0.5).stages])
def test_too_few_or_other_gradients_are_said(defence, said, after):
    with pytest.raises(InputError, match=said):
        next(source(chain(defence, claim(1.0), *after)).take(canaries(1.0, 4, seed=0)[0].present, 3))


def test_portions_never_share_noise():
    made = source(chain(Correct, claim(1.0)))
    images = canaries(1.0, 4, seed=0)[0].absent
    sizes = [len(rows.noised) for count in (30, CHUNK + 1) for rows in made.take(images, count)]
    assert sizes == [30, CHUNK, 1]
    again = source(chain(Correct, claim(1.0)))
    rows = np.concatenate([rows.noised for _ in range(3) for rows in again.take(images, 600)])
    assert len(np.unique(rows, axis=0)) == 1800


def test_releases_are_made_one_by_one_where_their_description_varies():
    """A call has one description: its releases are no independent evidence."""
    canary = canaries(1.0, 4, seed=0)[2]
    for defence, sizes in ((NormsPublished, [1, 1, 1]), (SixteenBitSeed, [3])):
        made = source(chain(defence, claim(1.0)))
        made.check_description([canary.absent, canary.present], seed=0)
        assert [len(rows.released) for rows in made.take(canary.present, 3)] == sizes
