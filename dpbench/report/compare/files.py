"""compare.csv, compare.md, compare.png and compare.html."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from dpbench.report.compare.comparison import Comparison, merged
from dpbench.report.compare.forest import forest, svg
from dpbench.report.compare.text import markdown
from dpbench.report.compare.words import HEADER, Said
from dpbench.report.page.templating import plain
from dpbench.system.atomic import made_folder, written
from dpbench.system.paths import absolute

_DPI = 200


def write(folder: str | Path, comparison: Comparison, said: Said) -> list[Path]:
    """Write the files, each wholly or not at all; older ones of these names are replaced.

    Raises:
        InputError: where the folder cannot be made or written.
    """
    home = absolute(folder)
    made_folder(home)
    figure = forest(comparison, said)
    page = html(said, None if figure is None else svg(figure))
    texts = {"compare.md": markdown(said), "compare.html": page}
    files = [written(home / "compare.csv", lambda path: merged(comparison).to_csv(path, index=False))]
    files += [
        written(home / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))
        for name, text in texts.items()
    ]
    if figure is None:
        (home / "compare.png").unlink(missing_ok=True)
        return files
    picture = written(home / "compare.png", lambda path: figure.savefig(path, format="png", dpi=_DPI))
    return [*files, picture]


def html(said: Said, picture: str | None) -> str:
    """The page; `picture` is an `<svg>` element of our own."""
    return plain(
        "compare",
        title=f"{len(said.runs)} runs compared",
        said=said,
        header=HEADER,
        picture=picture and Markup(picture),
    )
