"""What attackers reached, undefended and under each defence: the tables on the card."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from dpbench.report.informed import told_apart
from dpbench.report.naming import Naming
from dpbench.report.page.figures import at_most_share, figure, share
from dpbench.report.rows import is_floor, of_pictures
from dpbench.report.sentence import counted
from dpbench.report.settings import Results, Setting
from dpbench.report.verdict import Judged

WORDS = {
    "works": "rebuilt",
    "better": "more than a guess",
    "unsure": "too few {wanting} to say",
    "guess": "not seen to beat a guess",
    "unknown": "no floor to judge by",
}
"""With `Setting.wanting`, what the verdicts of `dpbench.report.verdict` are called on the card."""
PICKED = ("Trials", "Picked", "95 % interval", "Bound", "Member", "95 % interval", "Bound")
"""The columns of `picked`, beside the defence."""


@dataclass(frozen=True)
class Line:
    """One defence.

    Attributes:
        defence: its name.
        verdict: one of `dpbench.report.verdict.VERDICTS`, or `lost` where no attack ended well.
        words: the same in words.
        cells: attack, images, PSNR, dB above the best floor, the same for the most exposed image, and the
            measure that speaks loudest.
    """

    defence: str
    verdict: str
    words: str
    cells: tuple[Markup | str, ...]


@dataclass(frozen=True)
class Block:
    """One batch size against one victim.

    Attributes:
        title: both.
        lines: undefended first.
        credited: whether the undefended attack works well enough for a defence to have an effect.
    """

    title: str
    lines: tuple[Line, ...]
    credited: bool


def verdicts(table: pd.DataFrame) -> list[Block]:
    """One block for each setting; none where no attack rebuilds images from a gradient.

    Args:
        table: per-image results with all columns and a fresh index.
    """
    table = of_pictures(table)
    if is_floor(table).all():
        return []
    return [
        _block(victim, setting)
        for victim, settings in Results.of(table).victims()
        for setting in settings
        if not setting.measured.empty
    ]


def _block(victim: str, setting: Setting) -> Block:
    reached, credited = setting.reached(), False
    lines = [_line(label, best, setting) for label, best in reached.items()]
    if not setting.bare.empty:
        best = setting.worst(setting.bare)
        credited = best.verdict in ("works", "better")
        lines.insert(0, _line("no defence", best, setting))
    lost = dict.fromkeys(setting.labels(setting.lost))
    gone = [label for label in lost if label not in {line.defence for line in lines}]
    lines += [Line(label, "lost", "no result", ("", "", "", "", "", "")) for label in gone]
    return Block(f"{victim}, batch of {setting.batch_size}", tuple(lines), credited)


def _line(label: str, best: Judged, setting: Setting) -> Line:
    row = best.line
    cells = (
        setting.naming.attack(row),
        figure(best.evidence.images, "d"),
        figure(row["psnr_median"], ".1f"),
        figure(row["psnr_over_floor_median"], "+.1f"),
        figure(row["psnr_over_floor_max"], "+.1f"),
        counted(best.evidence.strongest),
    )
    lacking = best.verdict == "unsure" and not best.evidence.complete
    words = "floors are missing" if lacking else WORDS[best.verdict].format(wanting=setting.wanting)
    return Line(label, best.verdict, words, cells)


def picked(attacked: pd.DataFrame, naming: Naming) -> list[tuple[str, tuple[Markup, ...]]]:
    """What the informed attacker got: each defence and its cells, the columns of `PICKED`.

    Args:
        attacked: summary of the results, floors left out.
        naming: of the results.
    """
    several = attacked["batch_size"].nunique() > 1
    found = []
    for row in attacked[attacked["success"].notna()].to_dict("records"):
        words = [naming.defence(row), *told_apart(row, naming)]
        if several:
            words.append(f"batch of {row['batch_size']}")
        cells = [figure(row["trials"], ",.0f")]
        for name in ("success", "membership"):
            low, high = (share(row[f"{name}_{end}"], 1) for end in ("low", "high"))
            cells += [share(row[name], 1), Markup("{} to {}").format(low, high)]
            cells.append(at_most_share(row[f"{name}_bound"]))
        found.append((", ".join(words), tuple(cells)))
    return found
