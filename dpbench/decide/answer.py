"""The answer for each epsilon: what is certified, what attacks were seen to get, and the accuracy.

It is made as plain values, which `decide.json` keeps, and the text is made of nothing else.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dpbench.accuracy.table import summary
from dpbench.decide.choices import Choice
from dpbench.decide.measured import Measured
from dpbench.decide.table import WIDTH
from dpbench.frontier.certified import certified_sigma
from dpbench.frontier.evidence import MEANING, Verdict
from dpbench.frontier.result import Frontier
from dpbench.privacy import PRIOR_SUCCESS
from dpbench.privacy.rounding import up, up_percent, up_places
from dpbench.system.words import counted

Plain = dict[str, Any]


def answers(chosen: Sequence[Choice], measured: Measured) -> Plain:
    """Plain values: the setting, `undefended` and, for each choice, `seen` and `accuracy`.

    Args:
        chosen: the noise of each was a level of the frontiers.
        measured: what was measured.
    """
    reached = {} if measured.accuracy is None else _accuracies(measured)
    return {
        "setting": measured.frontiers[0].setting,
        "certified_sigma": certified_sigma(),
        "undefended": {
            "seen": [_seen(each, 0.0) for each in measured.frontiers],
            "accuracy": reached.get(0.0, []),
        },
        "choices": [
            {
                "eps": choice.eps,
                "noise_multiplier": choice.noise_multiplier,
                "rero_release": choice.rero_release,
                "seen": [_seen(each, choice.noise_multiplier) for each in measured.frontiers],
                "accuracy": next((v for k, v in reached.items() if _same(k, choice.noise_multiplier)), []),
            }
            for choice in chosen
        ],
        "without_accuracy": measured.without_accuracy,
        "frontiers": [each.sentence() for each in measured.frontiers],
        "meaning": MEANING if any(each.tested for each in measured.frontiers) else "",
    }


def _seen(found: Frontier, sigma: float) -> Plain:
    level = next(each for each in found.levels if each.noise.sigma == sigma)
    return {
        "threat_model": found.threat_model,
        "verdict": (level.verdict or Verdict.UNDECIDED) if found.tested else None,
        "rates": [
            {name: asdict(rate)[name] for name in ("attack", "successes", "trials", "low", "high")}
            for rate in level.rates
        ],
    }


def _accuracies(measured: Measured) -> dict[float, list[Plain]]:
    """Noise multiplier, 0 without a defence, to what each model reached."""
    found: dict[float, list[Plain]] = {}
    for row in summary(measured.accuracy).to_dict("records"):
        sigma = 0.0 if row["defense"] == "none" else float(row["noise_multiplier"])
        spread = {name: float(row[name]) for name in ("mean", "min", "max")}
        found.setdefault(sigma, []).append({"model": row["utility_model"], "seeds": row["seeds"], **spread})
    return found


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-6 * other


def text(answer: Plain) -> str:
    """Everything that is printed; it fits 80 columns."""
    setting = answer["setting"]
    head = (
        f"Measured on {setting['data']}, {setting['model']} ({setting['victim']}), "
        f"{counted(setting['batch_size'], 'image')} of the batch unknown to the attacker, which succeeds if "
        "the image ranks first of 200 (chance 0.5 %). From one such gradient, no attacker at all gains more "
        f"than 5 points over a prior of {PRIOR_SUCCESS:g} from σ = {up_places(answer['certified_sigma'])} on."
    )
    blocks = [_wrapped(f"{head} {answer['meaning']}".strip()), _block("No defence", [], answer["undefended"])]
    for each in answer["choices"]:
        bound = up_percent(each["rero_release"])
        most = f"rebuilt from one gradient in at most {bound}, {100 * PRIOR_SUCCESS:g} % without it"
        name = f"ε = {up(each['eps'])}, σ = {up_places(each['noise_multiplier'])}"
        blocks.append(_block(name, [("certified", most)], each))
    if answer["without_accuracy"]:
        blocks.append(_wrapped(f"No accuracy: {answer['without_accuracy']}."))
    blocks.append("\n".join(map(_wrapped, answer["frontiers"])))
    blocks.append(
        _wrapped(
            '"Not seen" is about these attacks and this victim: better attacks, or a victim that leaks more, '
            "can change it. Only what is certified holds for every attacker."
        )
    )
    return "\n\n".join(blocks)


def _block(title: str, lines: list[tuple[str, str]], found: Plain) -> str:
    for each in found["seen"]:
        rates = ", ".join(f"{r['attack']} {r['successes']} of {r['trials']}" for r in each["rates"])
        verdict = f"{each['verdict']}: " if each["verdict"] else ""
        lines = [*lines, (each["threat_model"], f"{verdict}{rates}")]
    if found["accuracy"]:
        reached = (f"{e['model']} {_spread(e)}" for e in found["accuracy"])
        lines = [*lines, ("accuracy", ", ".join(reached))]
    return "\n".join([title, *(_line(name, said) for name, said in lines)])


def _line(name: str, said: str) -> str:
    indent = " " * 20
    return textwrap.fill(f"  {name:<18}{said}", WIDTH, subsequent_indent=indent)


def _spread(reached: Plain) -> str:
    ends = f"{100 * reached['min']:.1f} to {100 * reached['max']:.1f}"
    return f"{100 * reached['mean']:.1f} %" + (f" ({ends})" if reached["seeds"] > 1 else "")


def _wrapped(line: str) -> str:
    return textwrap.fill(line, WIDTH)
