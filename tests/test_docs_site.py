"""The documentation as a site: built strictly, no dead links, complete, and the same as on GitHub."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt

import attacks
import defenses
from dpbench.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
READ_ON_GITHUB = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
BUILD = "-m mkdocs build --strict"


def build(where, **settings):
    """What `python -m mkdocs build --strict` does, in this process; Abort where there is a warning."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(where), **settings)
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    config.plugins.on_shutdown()


class Html(HTMLParser):
    """What a page fetches, where it leads, what can be led to, and how often each element is in its text."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.links, self.anchors, self.elements, self.inside = [], [], set(), Counter(), False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors.add(given.get("id"))
        self.links += [given["href"]] if tag == "a" and "href" in given else []
        self.fetched += [given["href"]] if tag == "link" and given.get("rel") != "canonical" else []
        self.fetched += [given["src"]] if "src" in given else []
        self.inside = self.inside or tag == "article"
        if self.inside:
            self.elements[tag] += 1

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "article"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site: its folder, and its pages by path."""
    folder = tmp_path_factory.mktemp("site")
    build(folder)
    return folder, {
        path.relative_to(folder).as_posix(): Html(path.read_text()) for path in folder.rglob("*.html")
    }


def html_of(page):
    """The path of a page of `docs/` on the site."""
    return page.relative_to(DOCS).with_suffix(".html").as_posix().replace("README.html", "index.html")


def test_no_page_links_to_what_is_not_there(site):
    """Menus included; links to other sites are not followed."""
    folder, pages = site
    dead = []
    for name, html in pages.items():
        for link in html.links:
            to = urlsplit(link)
            if to.scheme or to.netloc or name == "404.html":
                continue
            target = (folder / name).parent / unquote(to.path) if to.path else folder / name
            path = target.resolve().relative_to(folder.resolve()).as_posix()
            path = "index.html" if path == "." else path
            anchors = pages[path].anchors if path in pages else set()
            if not (folder / path).is_file() or (to.fragment and unquote(to.fragment) not in anchors):
                dead.append(f"{name}: {link}")
    assert len(pages) > len(PAGES)
    assert dead == []


def test_nothing_is_fetched_from_elsewhere(site):
    folder, pages = site
    fetched = {link for html in pages.values() for link in html.fetched}
    assert any(link.endswith(".js") for link in fetched)
    assert [link for link in fetched if urlsplit(link).netloc] == []
    for style in folder.rglob("*.css"):
        assert not re.search(r"@import|url\([\"']?(https?:)?//", style.read_text()), style


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_a_page_has_the_lists_tables_and_blocks_that_github_shows(site, page):
    """MkDocs' dialect wants blank lines before lists and tables where GitHub's does not."""
    markdown = re.sub(r"^<!-- dpbench: .* -->$", "", page.read_text(), flags=re.MULTILINE)
    shown = Counter(
        token.tag
        for token in MarkdownIt("gfm-like", {"linkify": False}).parse(markdown)
        if token.nesting >= 0
    )
    built = site[1][html_of(page)].elements
    kinds = ["h1", "h2", "h3", "h4", "table", "li", "ol", "ul", "pre"]
    if "<!-- dpbench: " in page.read_text():  # tables, headings and lists are added
        assert all(built[kind] >= shown[kind.replace("pre", "code")] for kind in kinds if kind != "pre")
        return
    blocks = {
        "pre": sum(
            t.type in ("fence", "code_block")
            for t in MarkdownIt("gfm-like", {"linkify": False}).parse(markdown)
        )
    }
    assert {kind: built[kind] for kind in kinds} == {kind: shown[kind] for kind in kinds} | blocks


def slugs(markdown):
    """The anchors that GitHub makes of headings."""
    found, seen = set(), Counter()
    for heading in re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    ):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        found.add(slug if not seen[slug] else f"{slug}-{seen[slug]}")
        seen[slug] += 1
    return found


@pytest.mark.parametrize("page", READ_ON_GITHUB, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_work_on_github(page):
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    known = set(tracked) | {parent.as_posix() for path in tracked for parent in Path(path).parents}
    text = re.sub(r"^```.*?^```$|`[^`\n]*`(?!\])", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        to = urlsplit(link)
        if to.scheme:
            continue
        target = (page.parent / to.path).resolve() if to.path else page
        assert target.relative_to(ROOT).as_posix() in known, link
        if to.fragment:
            assert to.fragment in slugs(target.read_text()), link


@pytest.mark.parametrize(
    ("page", "kind", "names"),
    [
        ("attacks.md", "attack", attacks.names()),
        ("defences.md", "defence", tuple(defenses.defenses_registry)),
        ("command-line.md", "options", tuple(COMMANDS)),
    ],
)
def test_every_part_has_its_place(page, kind, names):
    """A new attack or defence needs a heading of its name, and this line below it."""
    text = (DOCS / page).read_text()
    ours = [name for name in names if name != "none"]
    missing = [name for name in ours if f"<!-- dpbench: {kind} {name} -->" not in text]
    assert missing == []


def test_a_parameter_and_a_column_are_on_their_pages(site):
    folder, _ = site
    assert "share of gradient entries that prune sets to zero" in (folder / "defences.html").read_text()
    assert "<code>--levels</code>" in (folder / "command-line.html").read_text()
    assert "--leaderboard" in (folder / "command-line.html").read_text()
    assert "<code>rero_release</code>" in (folder / "columns.html").read_text()


def test_every_finding_is_listed_and_dated():
    listed = (DOCS / "findings" / "README.md").read_text()
    notes = [path.name for path in (DOCS / "findings").glob("*.md") if path.name != "README.md"]
    assert len(notes) >= 10
    for name in notes:
        assert re.fullmatch(r"20\d\d-\d\d-[a-z0-9-]+\.md", name)
        assert f"]({name})" in listed


def test_the_glossary_explains_each_term_before_it_is_used():
    entries = re.findall(
        r"^### ([^\n]+)\n\n(.*?)(?=\n##|\Z)", (DOCS / "concepts.md").read_text(), re.MULTILINE | re.DOTALL
    )
    terms = [term for term, _ in entries]
    assert len(terms) == len(set(terms)) > 40
    for place, (term, said) in enumerate(entries):
        plain = re.sub(r"\]\([^)]*\)|`[^`]*`", "", said)
        early = [
            later
            for later in terms[place + 1 :]
            if re.search(rf"\b{re.escape(later)}s?\b", plain, _case(later))
        ]
        assert early == [], term


def _case(term):
    return re.NOFLAG if term.isupper() or len(term) == 1 else re.IGNORECASE


def test_a_mistake_fails_the_build(tmp_path):
    """A dead link, a dead anchor, a file that is not in the repository, and a part that there is not."""
    from mkdocs.exceptions import Abort

    for number, mistake in enumerate(
        ("[x](nowhere.md)", "[x](#nowhere)", "[x](../nowhere.py)", "<!-- dpbench: attack nothing -->")
    ):
        docs = tmp_path / f"docs{number}"
        (docs / "findings").mkdir(parents=True)
        (docs / "findings" / "README.md").write_text("# Findings\n")
        (docs / "README.md").write_text(f"# Home\n\n{mistake}\n")
        with pytest.raises(Abort):
            build(tmp_path / "out", docs_dir=str(docs), nav=["README.md", {"Findings": "findings/"}])


def test_the_readme_names_the_command_that_builds_the_site():
    assert BUILD in (ROOT / "README.md").read_text()
    assert BUILD in (ROOT / "mkdocs.yml").read_text()


def test_choosing_repeats_what_is_decided():
    """The table of docs/decide.md is what the command prints (tests/dpbench/decide/test_decide.py)."""
    rows = [line.split() for line in (DOCS / "decide.md").read_text().splitlines()]
    of_one = {row[0]: row[2] for row in rows if len(row) == 11 and row[0] in ("1", "8")}
    page = (DOCS / "choose-an-epsilon.md").read_text()
    assert f"hold the image has {of_one['1']} to itself; at ε = 8 it has {of_one['8']}." in page
