"""Reads labels.csv: which file shows what."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from dpbench.protocol import InputError
from dpbench.system.paths import open_file


@dataclass(frozen=True)
class Labelled:
    """Image files, the label of each (from 0), and the names of those labels that have one."""

    files: list[Path]
    labels: list[int]
    names: dict[int, str]


def listed(listing: Path) -> Labelled:
    """What `listing` says; the files lie beside it or further below.

    Its columns are `file`, `label` and optionally `name` (of the label), in any order and case. Labels are
    numbers from 0 to 999999, or names throughout, which are numbered in alphabetical order.

    Raises:
        InputError: where it cannot be read, or a line lacks something, names a file elsewhere or one that
            another line has.
    """
    home, files, texts, named = listing.parent.resolve(), [], [], []
    lines: dict[Path, int] = {}
    for number, row in enumerate(_rows(listing), 2):
        file, label = (row.get("file") or "").strip(), row.get("label")
        if not file or label is None:
            raise InputError(
                f"{listing}, line {number}, needs a file and a label: columns file,label[,name]."
            )
        files.append(_below(home, file, f"{listing}, line {number}"))
        # one image would count for two, or have two labels
        if (first := lines.setdefault(files[-1], number)) != number:
            raise InputError(
                f"{listing}, line {number}, names {file} again, which line {first} has: leave one of them."
            )
        texts.append(_checked(label.strip(), f"{listing}, line {number}"))
        named.append((row.get("name") or "").strip())
    numbers = [text for text in texts if text.isdigit()]
    if len(numbers) == len(texts):
        labels = [int(text) for text in texts]
        return Labelled(
            files, labels, {label: name for label, name in zip(labels, named, strict=True) if name}
        )
    if numbers:
        word = next(text for text in texts if not text.isdigit())
        raise InputError(
            f"{listing} has numbers ({numbers[0]}) and names ({word}) as labels: use one kind throughout."
        )
    names = sorted(set(texts))
    places = {name: i for i, name in enumerate(names)}
    return Labelled(files, [places[text] for text in texts], dict(enumerate(names)))


def _rows(listing: Path) -> list[dict[str, str | None]]:
    """The lines by column, whose names are brought to lower case without spaces around them."""
    try:
        with open_file(listing) as content:
            table = csv.DictReader(io.TextIOWrapper(content, encoding="utf-8-sig", newline=""))
            header = table.fieldnames or ()
            table.fieldnames = [name.strip().lower() for name in header]
            rows = list(table)
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{listing} is not a CSV file that can be read ({error}).") from None
    if not {"file", "label"} <= set(table.fieldnames):
        raise InputError(
            f"{listing} begins with {','.join(header)!r}: its first line must be file,label or "
            "file,label,name."
        )
    if not rows:
        raise InputError(f"{listing} lists no images: add a line for each.")
    return rows


def _below(home: Path, name: str, where: str) -> Path:
    """The file `name` in folder `home`; a listing from elsewhere must not point to other files."""
    try:
        file = (home / name).resolve()
    except (OSError, ValueError, RuntimeError):  # a circle of links; a character that no name has
        raise InputError(f"{where}: {name!r} cannot be the name of a file.") from None
    if not file.is_relative_to(home):
        raise InputError(f"{where}: {name} lies outside the folder of the listing: copy it into {home}.")
    return file


def _checked(label: str, where: str) -> str:
    """`label` if it is a number in range, or a name: a word that is not some other number."""
    if label.isascii() and label.isdigit() and len(label) <= 6:
        return label
    try:
        float(label)
    except ValueError:
        if any(character.isalpha() for character in label):
            return label
    raise InputError(
        f"{where}: label {label!r} is not an integer from 0 to 999999, and not the name of a class."
    )
