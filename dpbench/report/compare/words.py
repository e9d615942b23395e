"""A comparison in words and finished cells, before it is known where they are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from dpbench.report.compare.comparison import Compared, Comparison, Line
from dpbench.report.compare.differences import CEILING, Difference
from dpbench.report.compare.intervals import LEAST
from dpbench.report.compare.settings import SITUATION, budgets, named, of_attacks, really_run
from dpbench.report.evidence import originals
from dpbench.report.naming import EMPTY, number
from dpbench.store.columns import columns, conditions
from dpbench.system.words import counted

HEADER = ("run", "images", "PSNR (dB)", "LPIPS", "identified")
_SPECS = {"psnr": "+.1f", "lpips": "+.2f", "identified": "+.2f", "success": "+.2f"}
_MOST = 6
"""Settings of attacks that are named in the line of what differs."""


@dataclass(frozen=True)
class Block:
    """One setting.

    Attributes:
        title: the setting in words.
        rows: cells as in `HEADER`: a row for each run, and under it what it differs by from the first.
    """

    title: str
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Said:
    """A whole comparison.

    Attributes:
        runs: one line for each run.
        same: what all settings have in common, and those of one defence.
        differs: what the runs differ in; empty where they do not.
        blocks: the settings that are compared.
        alone: (run, setting, what the most similar one has otherwise) of those that are not.
        notes: how to read it.
    """

    runs: tuple[str, ...]
    same: tuple[str, ...]
    differs: tuple[str, ...]
    blocks: tuple[Block, ...]
    alone: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]


def words(comparison: Comparison) -> Said:
    """Put a comparison into words."""
    naming = _Naming(comparison)
    blocks = [Block(naming.title(each), tuple(_rows(each))) for each in comparison.settings]
    alone = [(each.run, naming.of(line.rows), each.nearest) for each, line in comparison.alone]
    return Said(
        tuple(_run(comparison, letter) for letter in (run.letter for run in comparison.runs)),
        tuple(naming.same),
        tuple(_differs(comparison)),
        tuple(blocks),
        tuple(alone),
        tuple(_notes(comparison)),
    )


class _Naming:
    """Names of settings, in which nothing is said that holds for all of them."""

    def __init__(self, comparison: Comparison) -> None:
        lines = [setting.lines[0] for setting in comparison.settings] + [line for _, line in comparison.alone]
        heads = pd.DataFrame([line.rows.iloc[0] for line in lines]).reset_index(drop=True)
        really, known = really_run(), columns()
        protection = [name for name in conditions("defence") if name in really and name != "defense"]
        scene = [name for name in really if name not in (*protection, "defense") and known[name].symbol]
        # releases and candidates are empty where they play no role, which is no other setting
        constant = [n for n in scene if heads[n].nunique(dropna=n in SITUATION) == 1]
        self.same = [", ".join(_first(heads, constant))]
        self._scene = [name for name in scene if name not in constant]
        self._defence: dict[str, list[str]] = {}
        for defence, rows in heads[heads["defense"] != "none"].groupby("defense"):
            varying = [name for name in protection if rows[name].nunique(dropna=False) > 1]
            self._defence[defence] = sorted(varying, key=lambda name: name != "noise_multiplier")
            if found := _first(rows, [name for name in protection if name not in varying]):
                self.same.append(f"{defence}: {', '.join(found)}")
        own = [name for name in of_attacks() if name != "attack"]
        within = heads[own].groupby([heads["attack"], heads["defense"]]).nunique(dropna=False) > 1
        varying = within.groupby(level=0).any()
        self._attack = {
            attack: [name for name in own if varying.at[attack, name]] for attack in varying.index
        }

    def title(self, setting: Compared) -> str:
        """A setting that several runs have; what the attacks differ in is said elsewhere."""
        labels = {line.run: budgets(line.rows) for line in setting.lines}
        said = set(labels.values())
        label = said.pop() if len(said) == 1 else ", ".join(f"{r} {b or EMPTY}" for r, b in labels.items())
        return self._name(setting.head, label, leave_out=dict(setting.differs))

    def of(self, rows: pd.DataFrame) -> str:
        """A setting of one run."""
        return self._name(rows.iloc[0], budgets(rows), leave_out={})

    def _name(self, row: pd.Series, label: str, leave_out: dict[str, str]) -> str:
        defence = str(row["defense"]) if row["defense"] != "none" else "no defence"
        words = [
            defence,
            *named(row, self._defence.get(row["defense"], ())),
            *([f"({label})"] if label else []),
        ]
        variant = [name for name in self._attack[row["attack"]] if name not in leave_out]
        attack = leave_out.get("attack", str(row["attack"]))
        return ", ".join([" ".join(words), attack, *named(row, variant), *named(row, self._scene)])


def _first(rows: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The settings `names` that have one value in all rows that have any."""
    return named({name: next(iter(rows[name].dropna()), None) for name in names}, names)


def _run(comparison: Comparison, letter: str) -> str:
    run = next(run for run in comparison.runs if run.letter == letter)
    images = counted(int(originals(run.table).nunique()), "image")
    found = [
        f"dpbench {' and '.join(run.versions) or 'of unknown version'}",
        f"{counted(len(run.table), 'result')} for {images}",
    ]
    if run.failed:
        found.append(f"{counted(run.failed, 'cell')} without a result")
    return f"{letter}: {run.path} ({', '.join(found)})"


def _differs(comparison: Comparison) -> list[str]:
    """What the runs differ in beside the settings that are lined up: attacks, versions, seeds, machines."""
    found: dict[str, dict[str, None]] = {}
    for setting in comparison.settings:
        for name, values in setting.differs:
            attack = "" if name == "attack" else f"{setting.head['attack']}: "
            text = values if name == "attack" else f"{name.replace('_', ' ')} {values}"
            found.setdefault(attack, {})[text] = None
    lines = []
    for attack, values in found.items():
        more = [f"{len(values) - _MOST} more (compare.csv)"] if len(values) > _MOST else []
        lines.append(f"Differs: {attack}{', '.join([*list(values)[:_MOST], *more])}")
    for name, title in (
        ("version", "Versions"),
        ("data", "Data"),
        ("device", "Devices"),
        ("lpips_net", "LPIPS trunks"),
        ("batch_seed", "Batch seeds"),
        ("attack_seed", "Attack seeds"),
    ):
        values = [_values(run.table[name]) for run in comparison.runs]
        if len(set(values)) > 1:
            lines.append(f"{title}: {' | '.join(values)}")
    return lines


def _values(column: pd.Series) -> str:
    """The values of a column; runs of whole numbers as a range."""
    found = sorted(column.dropna().unique())
    if not found:
        return EMPTY
    if pd.api.types.is_integer_dtype(column) and len(found) > 2:
        whole = found[-1] - found[0] + 1 == len(found)
        return f"{found[0]} to {found[-1]}" + ("" if whole else f" ({len(found)} of them)")
    return ", ".join(map(str, found[:4])) + (f" and {len(found) - 4} more" if len(found) > 4 else "")


def _rows(setting: Compared) -> list[tuple[str, ...]]:
    first = setting.lines[0].run
    found = []
    for line in setting.lines:
        found.append(_figures(line))
        if line.paired is not None:
            found.append(_difference(f"{line.run} - {first}", line))
    return found


def _figures(line: Line) -> tuple[str, ...]:
    of = line.figures
    right = f"{of['right']:.0f} of {of['asked']:.0f}" if of["asked"] else EMPTY
    psnr = number(of["psnr"], ".1f")
    if psnr != EMPTY:
        psnr += f" (max {number(of['psnr_max'], '.1f')})"
    return line.run, f"{of['images']:.0f}", psnr, number(of["lpips"], ".2f"), right


def _difference(title: str, line: Line) -> tuple[str, ...]:
    found = line.paired.differences
    if not line.paired.pairs:
        return title, "0", EMPTY, EMPTY, EMPTY
    last = found.get("identified") or found.get("success")
    cells = [cell(found.get("psnr")), cell(found.get("lpips")), cell(last)]
    return title, f"{line.paired.pairs}", *cells


def cell(difference: Difference | None) -> str:
    """A difference with its interval.

    Example:
        >>> cell(Difference("psnr", 8, 8, -1.25, -2.0, -0.5))
        '-1.2 [-2.0, -0.5]'
        >>> cell(Difference("psnr", 8, 2, -1.25, math.nan, math.nan)), cell(None)
        ('-1.2', '—')
    """
    if difference is None:
        return EMPTY
    spec = _SPECS[difference.measure]
    text = format(difference.value, spec)
    if math.isnan(difference.low):
        return text
    return f"{text} [{format(difference.low, spec)}, {format(difference.high, spec)}]"


def _notes(comparison: Comparison) -> list[str]:
    first = comparison.runs[0].letter
    lines = [line for setting in comparison.settings for line in setting.lines]
    pairs = [line.paired for line in lines if line.paired is not None]
    notes = [
        "A setting is what was really run: σ, q and steps count, the label ε does not",
        "Rows of runs: medians over their images (PSNR: higher leaks more, LPIPS: lower leaks more), and "
        "photographs identified in a gallery, of those that were asked of",
        f"Rows with a minus: mean paired difference from {first} on the same images, with 95 % intervals "
        "(bootstrap over batches; of shares identified exact where every batch has one photograph, or all "
        "batches changed alike); each holds by itself, so of twenty about one misses",
    ]
    if any(line.figures["images"] > line.figures["photographs"] for line in lines):
        notes.append(
            "An image that was attacked several times counts as often, but once among those identified"
        )
    if any("success" in pair.differences for pair in pairs):
        notes.append("Of the informed attacker, identified counts its right choices among the candidates")
    if any(0 < pair.groups < LEAST for pair in pairs):
        notes.append(f"No interval of a mean where fewer than {LEAST} batches share no photograph")
    if others := sum(pair.others for pair in pairs):
        notes.append(f"Left out: {counted(others, 'pair')} of the same seed and different photographs")
    if other := [line.run for line in lines if line.paired is not None and line.paired.other_gradients]:
        notes.append(
            f"No fair comparison of {first} with {' and '.join(dict.fromkeys(other))}: their undefended "
            "gradients of one batch differ in length, so models of one name have other weights, or the "
            "losses or the data are others"
        )
    if any((line.rows["psnr"] > CEILING).any() for line in lines):
        notes.append(f"In differences PSNR counts at most {CEILING:g} dB, the precision of 8 bits")
    if unknown := _unknown(comparison):
        notes.append(f"Settings that no installed part declares are not told apart: {', '.join(unknown)}")
    return notes


def _unknown(comparison: Comparison) -> Sequence[str]:
    known = columns()
    names = [name for run in comparison.runs for name in run.table if name not in known]
    return sorted({name for name in names if any(_filled(run.table, name) for run in comparison.runs)})


def _filled(table: pd.DataFrame, name: str) -> bool:
    return name in table and bool(table[name].notna().any())
