"""The leaderboard: a page that ranks the entries of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dpbench.privacy.rounding import down_percent, up, up_percent
from dpbench.protocol import InputError
from dpbench.report.entries.boards import LEAST, Item, boards
from dpbench.report.entries.check import check, find
from dpbench.report.naming import EMPTY, ROUNDED_UP, number
from dpbench.report.page.templating import plain
from dpbench.store.columns import columns
from dpbench.system.atomic import made_folder, written
from dpbench.system.paths import absolute, kind_of
from dpbench.system.words import per_cent


def write(folder: str | Path, out: str | Path) -> tuple[Path, int, int]:
    """Write the leaderboard of the entries in `folder` and below; copies and faulty ones are not ranked.

    Returns:
        The page, the number of entries on it and of those left out.

    Raises:
        InputError: there is no entry, or the page cannot be written.
    """
    page, home = absolute(out), absolute(folder)
    if kind_of(page) == "folder":
        raise InputError(f"{out} is a folder; give a file for the page, {out}/leaderboard.html say.")
    items, left_out, entries, seen = [], [], 0, {}
    for path in find(folder):
        name = str(path.relative_to(home)) if path.is_relative_to(home) else path.name
        try:
            checked = check(path)
        except InputError as error:
            left_out.append((name, str(error)))
            continue
        if checked.faults:
            left_out.append((name, "; ".join(checked.faults)))
            continue
        results = checked.found["provenance"]["files"]["results.csv"]
        if results in seen:
            left_out.append((name, f"it has the same results as {seen[results]}"))
            continue
        seen[results] = name
        entries += 1
        items += [Item(checked.found, result, checked.unchecked) for result in checked.found["results"]]
    text = html(items, left_out)
    made_folder(page.parent)
    return written(page, lambda path: path.write_text(text, encoding="utf-8")), entries, len(left_out)


def html(items: list[Item], left_out: list[tuple[str, str]]) -> str:
    """The page.

    Args:
        items: results of entries without faults.
        left_out: (entry, why).
    """
    found = [
        {"board": board, "rows": [(rank, _cells(item), item) for rank, item in board.ranked]}
        for board in boards(items)
    ]
    return plain(
        "leaderboard", title="Leaderboard", boards=found, header=_HEADER, left_out=left_out, least=LEAST
    )


_HEADER = (
    "entry",
    "defence",
    "strongest attack right",
    "95 % interval",
    "PSNR over floor (dB)",
    "bound (prior)",
    "ε training",
    "ε release",
    "accuracy",
)


def _cells(item: Item) -> tuple[str, ...]:
    result, strongest = item.result, item.result["strongest"]
    success, bound, guarantee, accuracy = item.success, result["bound"], result["guarantee"], item.accuracy
    right = interval = EMPTY
    if success:
        share = f"{per_cent(success['share'])}% ({success['right']} of {success['asked']})"
        right = f"{share}, {strongest['attack']}"
        interval = f"{per_cent(success['low'])}% to {per_cent(success['high'])}%"
    return (
        item.entry["submission"]["name"],
        _defence(result["defence"]),
        right,
        interval,
        _number(strongest["psnr_over_floor"], "+.1f"),
        f"{up_percent(bound['success'])} ({down_percent(bound['prior'])})" if bound else EMPTY,
        _budget(guarantee, "eps"),
        _budget(guarantee, "eps_release"),
        f"{accuracy['mean']:.1%} ({accuracy['utility_model']})" if accuracy else EMPTY,
    )


def _budget(guarantee: dict[str, Any] | None, name: str) -> str:
    if guarantee is None or guarantee[name] is None:
        return EMPTY
    # without its delta an epsilon says nothing
    text = f"{up(float(guarantee[name]))} at δ {up(float(guarantee['delta']))}"
    sampler = guarantee["sampler"]
    if name == "eps":
        return f"{text} (sampling {sampler['assumed']}; here {sampler['actual']})"
    return text


def _defence(defence: dict[str, Any]) -> str:
    known = columns()
    words = [
        f"{known[name].symbol if name in known and known[name].symbol else name}={_word(name, value)}"
        for name, value in defence["parameters"].items()
    ]
    return " ".join([defence["name"] if defence["name"] != "none" else "no defence", *words])


def _number(value: float | str | None, spec: str) -> str:
    return number(float(value) if isinstance(value, str) else value, spec)


def _word(name: str, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return up(value) if name in ROUNDED_UP else f"{value:.3g}"
