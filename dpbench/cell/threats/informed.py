"""The informed attacker: it knows the batch but for one sample, and candidates for that one.

The truth is each candidate in turn, so that a guess without the release is right once in n. Where nothing is
drawn, each is the truth once: further trials would be copies. The attacker's success is set beside the bound
that no attacker passes, and so is its answer to whether the sample was in the batch.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from attacks.prior_aware import scores
from defenses import Chain
from dpbench import privacy
from dpbench.cell import parts, rows
from dpbench.cell import release as releasing
from dpbench.cell.candidates import draw_candidates, shuffled
from dpbench.cell.result import CellResult, no_images
from dpbench.cell.scene import Scene
from dpbench.cell.spec import Cell
from dpbench.cell.threat_model import Progress, ThreatModel, threat_model
from dpbench.protocol import Candidates, Guarantee, InputError, Release, combined, full_precision, parameter


@dataclass(frozen=True)
class Tally:
    """What came of the trials.

    Attributes:
        trials: releases (or groups of releases) that were attacked.
        right: how often the attack picked the true candidate; never where another one has its gradient.
        member_right: right answers to "is it in the batch?", asked of a group of releases with the sample and
            of one without it in each trial, by the sign of the log-likelihood ratio; out of 2 * trials.
    """

    trials: int
    right: int
    member_right: int


@threat_model("informed")
class Informed(ThreatModel):
    """Somebody who knows all samples of the batch but one, and n candidates for that one."""

    title = "informed attacker, sample picked"
    rebuilds_images = False
    is_server = False

    candidates: int = parameter(
        10, "candidates for the one sample, one of them true", at_least=2, below=10**6
    )
    trials: int = parameter(
        100,
        "how often the informed attacker is tried, each candidate being true equally often",
        repeats=True,
        at_least=1,
        below=10**9,
    )
    inclusion: float = parameter(
        1.0,
        "chance of the attacked sample to be in each release (Poisson sampling)",
        symbol="q",
        above=0,
        at_most=1,
        only_if={"repeatable": True},
    )

    def run(self, cell: Cell, scene: Scene, progress: Progress | None = None) -> CellResult:
        """See `ThreatModel.run`; one row, the success over all trials, and no images.

        Raises:
            InputError: where there are no other images, or too few of them; for Poisson sampling of a defence
                whose releases depend on earlier ones; for users of several records.
        """
        if scene.others is None:
            raise InputError(
                "The informed attacker needs candidates, other images of the same data: give `others`."
            )
        if self.inclusion < 1 and any(stage.remembers for stage in parts.defence_of(cell).stages):
            # those with the sample and those without are made apart: each kind would know of its own only
            raise InputError(
                f"The releases of {cell.defence.name} depend on earlier ones: use `inclusion` 1 with it."
            )
        if parts.unit_of(cell) == "user" and scene.of_each_client > 1:
            raise InputError(
                "The informed attacker guesses one record, and with `unit` user the bound is about all of a "
                "client's: use `batch_size` 1 with it."
            )
        network, begun = scene.victim, time.perf_counter()
        with full_precision(scene.images.device):
            given = draw_candidates(
                network.model,
                network.loss,
                scene.images,
                scene.labels,
                scene.others,
                self.candidates,
                _clip_norm(cell),
                cell.seed("candidates"),
            )
        tally = self._trials(cell, scene, given, progress)
        chain = parts.defence_of(cell)
        guarantee = parts.guarantee_of(cell, chain)
        image = rows.of_images(scene)[0]
        row = rows.conditions(cell) | rows.of_victim(scene)
        row |= rows.of_noise(chain) | rows.guaranteed(cell, guarantee) | rows.of_clients(cell, guarantee)
        row |= {name: image[name] for name in ("image", "original_index", "label")}
        row |= self._measured(tally, guarantee, chain) | {"trials": tally.trials}
        row |= {"seconds": time.perf_counter() - begun, "status": "ok"}
        return CellResult([row], no_images(), no_images())

    def _trials(self, cell: Cell, scene: Scene, given: Candidates, progress: Progress | None) -> Tally:
        done = right = member_right = 0
        drawn = self.inclusion < 1 or parts.defence_of(cell).repeatable
        # else a second trial of one truth is a copy of the first, and no more evidence
        trials = self.trials if drawn else min(self.trials, self.candidates)
        for truth, gradient in enumerate(given.gradients[:trials]):
            # candidates of one gradient cannot be told apart: the first of them would always be picked
            alone = int((given.gradients == gradient).all(1).sum()) == 1
            for trial in range(truth, trials, self.candidates):
                with_it = self._release(cell, scene, given, truth, trial)
                without = self._release(cell, scene, given, None, trial)
                shown = shuffled(given, cell.seed("order", trial))
                answer = releasing.attacked(cell, scene, with_it, candidates=shown).images[0]
                right += alone and torch.equal(answer, given.images[truth])
                for release, is_in in ((with_it, True), (without, False)):
                    ratio = scores(release, given.known, gradient[None], self.inclusion)
                    member_right += bool(ratio > 0) == is_in
                done += 1
                if progress is not None:
                    progress(done, trials, math.nan)
        return Tally(done, right, member_right)

    def _release(self, cell: Cell, scene: Scene, given: Candidates, truth: int | None, trial: int) -> Release:
        """The release(s) of one trial: the true candidate is in each with chance `inclusion`, or in none.

        Where it is absent, the batch is made without it; the divisor, which is public, stays the same.
        """
        present = torch.zeros(self.releases, dtype=torch.bool)
        if truth is not None:
            coins = torch.Generator().manual_seed(cell.seed("inclusion", trial))
            present = torch.rand(self.releases, generator=coins) < self.inclusion
        made: dict[bool, list[Release]] = {}
        for is_in in present.unique().tolist():
            own = [given.images[truth : truth + 1]] if is_in else []
            classes = [given.labels[truth : truth + 1]] if is_in else []
            made[is_in] = releasing.each_release(
                cell,
                scene,
                torch.cat([*own, scene.images[1:]]),
                torch.cat([*classes, scene.labels[1:]]),
                count=int((present == is_in).sum()),
                # two worlds and two states have noise of their own in each trial
                trial=4 * trial + 2 * (truth is None) + is_in + 1,
            )
        first_to_last = {is_in: iter(releases) for is_in, releases in made.items()}
        return combined([next(first_to_last[is_in]) for is_in in present.tolist()])

    def _measured(self, tally: Tally, guarantee: Guarantee | None, chain: Chain) -> rows.Row:
        low, high = privacy.intervals.clopper_pearson(tally.right, tally.trials)
        asked = 2 * tally.trials
        member_low, member_high = privacy.intervals.clopper_pearson(tally.member_right, asked)
        found = {
            "success": tally.right / tally.trials,
            "success_low": low,
            "success_high": high,
            "membership": tally.member_right / asked,
            "membership_low": member_low,
            "membership_high": member_high,
        }
        if guarantee is not None:
            release = (guarantee.noise_multiplier, self.inclusion, self.releases)
            if self.inclusion == 1:  # all releases are one, whose noise may be correlated
                release = (guarantee.noise_multiplier / chain.stages[0].sensitivity(self.releases),)
            found["success_bound"] = privacy.reconstruction_bound(*release, kappa=1 / self.candidates)
            found["membership_bound"] = privacy.membership_bound(*release)
        return found


def _clip_norm(cell: Cell) -> float | None:
    """C of the cell's defence; None where it does not clip."""
    found = [getattr(stage, "max_grad_norm", None) for stage in parts.defence_of(cell).stages]
    return next((norm for norm in found if norm is not None), None)
