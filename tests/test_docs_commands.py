"""What the documentation tells people to type works.

Every command, in blocks and within sentences, is read by the parser of the program that it calls, in this
process, so that a mistyped option, attack or defence fails. Some are also run: the README's test line (by CI
itself), the commands of docs/decide.md (tests/dpbench/decide/test_decide.py), the audits of docs/filters.md
(compared with stored ones, tests/test_filters.py), the examples (tests/test_examples.py), the site
(tests/test_docs_site.py); and here, with a tiny victim and few iterations or releases, the first line and the
program of the README, both runs of docs/own-parts.md with the files as they stand there, and an audit; runs
draw none of dpbench's own figures, which have tests of their own.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import re
import sys
import tomllib
from importlib.util import find_spec

import pytest
import torch
import tyro

import attacks
import defenses
import dpbench
from dpbench.__main__ import COMMANDS
from dpbench.assets import AssetUnavailable
from dpbench.assets import __main__ as assets
from dpbench.assets import path as asset
from dpbench.audit import options as audit
from dpbench.audit.__main__ import main as audited
from dpbench.cell.threats import threat_models
from dpbench.data import load_data
from dpbench.data.draws import draw_disjoint
from dpbench.decide import options as decide
from dpbench.protocol import InputError
from dpbench.report import __main__ as report
from dpbench.report.compare import __main__ as compare
from dpbench.report.plots.registry import plots
from dpbench.run import main as run
from dpbench.sweep import options as sweep
from dpbench.system.command_line import read, subcommand
from tests.helpers import documented
from tests.helpers.registries import as_in_a_new_process

ROOT, DOCS = documented.ROOT, documented.ROOT / "docs"
TYPED = documented.commands()
OWN_PARTS = DOCS / "own-parts.md"
SMALL = ["--model", "lenet", "--victim", "untrained", "--iterations", "2", "--device", "cpu", "--quiet"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NETWORK = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes=10):
        super().__init__(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))

make = Net
"""
ASSETS = {"list": assets.show, "fetch": assets.fetch, "verify": assets.verify, "export": assets.carry}
OTHERS = {"help", "version", "validate", "leaderboard", "half", "names"}
"""Options of `report`, `compare` and `assets`, which declare them elsewhere."""
FOREIGN = {"strict", "no-deps", "no-build-isolation", "no-index"}
"""Options of MkDocs and pip."""
KEYWORDS = {"benchmark": dpbench.benchmark, "attack": dpbench.attack, "capture": dpbench.capture}

torch.set_num_threads(1)


def read_run(words):
    given = sweep.parse(words)
    for name in given.attack:
        attacks.kind(name)
    for name in given.defense:
        defenses.stages(name)


def read_audit(words):
    given = audit.parse(words)
    defenses.stages(given["defense"].replace("NAME", "dp"))


PARSERS = {
    "run": read_run,
    "audit": read_audit,
    "decide": decide.parse,
    "report": lambda words: read(report.Options, words, "report"),
    "compare": lambda words: read(compare.Options, words, "compare"),
    "assets": lambda words: subcommand(ASSETS, words, "assets"),
}
"""Other commands have `options.parse(words, command, description)`, and need a folder."""


def options_of(name):
    """The module with the options of a command."""
    return importlib.import_module(f"{COMMANDS[name][0].removesuffix('.__main__')}.options")


def read_command(name, words):
    """Words of `dpbench NAME ...`; a name alone, or one that asks for help, is only looked up."""
    if name in ("COMMAND", "--version"):
        return
    assert name in COMMANDS, name
    if name in PARSERS and words and words != ["--help"]:
        PARSERS[name](words)
    elif name not in PARSERS and words != ["--help"]:
        folder = [] if "--out" in words else ["--out", "DIR"]  # pages may leave it out
        options_of(name).parse([*words, *folder], name, "")


def read_module(name, words):
    """Words of `python -m NAME ...`."""
    ours = {module.removesuffix(".__main__"): command for command, (module, _) in COMMANDS.items()}
    if name in ours:
        read_command(ours[name], words)
    elif name == "pytest":
        read_pytest(words)
    elif name.startswith("benchmarks."):
        options = benchmark_options(name)
        if words:
            tyro.cli(options, args=words)
    else:
        assert name in ("venv", "mkdocs"), name


def benchmark_options(name):
    """The dataclass of a benchmark's options; None where it has none."""
    module = importlib.import_module(name)
    found = [
        each for key, each in vars(module).items() if key.endswith("Options") and each.__module__ == name
    ]
    return found[0] if found else None


def read_pytest(words):
    marks = {each.partition(":")[0] for each in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    for before, word in zip(["", *words], words, strict=False):
        if before == "-m":
            assert word in marks
        elif before == "-k":
            assert any(word in (ROOT / each).read_text() for each in words if each.endswith(".py"))
        else:
            assert word in ("-q", "-m", "-k") or (ROOT / word).exists(), word


def read_pip(words):
    """By pip's own parser; extras have to be ours."""
    import setuptools  # noqa: F401  its distutils, before pip imports Python's, which it would refuse
    from pip._internal.commands import create_command

    create_command(words[0]).parse_args(words[1:])
    for extra in re.findall(r"\[(\w+)\]", " ".join(words)):
        assert extra in PROJECT["project"]["optional-dependencies"], extra


def understand(typed, *more):
    """AssertionError or InputError for what the program that is called would not take."""
    program, *words = [*documented.words(typed), *more]
    program = program.removeprefix(".venv/bin/")
    try:
        if program == "dpbench":
            read_command(words[0], words[1:])
        elif program in ("pip", "pytest"):
            {"pip": read_pip, "pytest": read_pytest}[program](words)
        elif program == "bash" or words[0].endswith(".py"):
            assert (ROOT / words[0]).is_file()
            assert len(words) == 1
        elif words[0] == "-c":
            exec(words[1], {})
        else:
            assert words[0] == "-m"
            read_module(words[1], words[2:])
    except SystemExit as end:  # of a parser
        raise AssertionError(f"not understood: {typed}") from end


@pytest.fixture(autouse=True)
def as_in_a_process_of_its_own():
    """What is imported from files of one's own is forgotten."""
    before = set(sys.modules)
    with as_in_a_new_process():
        yield
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if not file.startswith((str(ROOT), sys.prefix)) or file.startswith(str(ROOT / "examples")):
            sys.modules.pop(name)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The working directory, with what the pages take for granted: their own files, a network, a sweep."""
    text = OWN_PARTS.read_text(encoding="utf-8")
    parts = re.findall(r"^## [^\n]*`(\w+\.py)`\n.*?^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(parts) == 6
    more = {"my_model.py": NETWORK, "my_package/networks.py": NETWORK, "results/x/config.toml": ""}
    for name, content in (dict(parts) | more).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    for name in ("examples", "results/reference"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def few_figures():
    """None but those of one's own; put back by `as_in_a_new_process`."""
    for name in list(plots):
        plots._items.pop(name)


@pytest.mark.parametrize("typed", TYPED, ids=[f"{page}: {typed[:60]}" for typed, page in TYPED.items()])
@pytest.mark.usefixtures("files")
def test_a_command_is_understood(typed):
    if "timm:" in typed and find_spec("timm") is None:
        with pytest.raises(InputError, match="timm"):
            understand(typed)
    elif typed.endswith(("--out", "--leaderboard")):  # named in a sentence without its value
        understand(typed, "DIR")
    else:
        understand(typed)


@pytest.mark.parametrize(
    "typed",
    [
        "dpbench run --defence dp",
        "dpbench run --attack inverted-gradients",
        "dpbench run --defense pruned",
        "python -m dpbench.decide --epoch 3",
        "dpbench frontier --level 1",
        "dpbench audit --release 100",
        "dpbench compare A B --output c",
        "dpbench assets export DIR --halve",
        "python -m benchmarks.gpu --minute 9",
        "python -m pytest -m slowly",
        "pip install -e '.[tests]'",
        "dpbench atack",
        "python scripts/train.py",
    ],
)
def test_a_mistake_in_a_command_is_found(typed):
    with pytest.raises((AssertionError, InputError)):
        understand(typed)


@pytest.mark.parametrize(
    "typed", [each for each in TYPED if re.search(r"dpbench[. ]run .*--data (cifar10|samples)\b", each)]
)
def test_the_batches_of_a_command_can_be_drawn(typed, files):
    """As many distinct labels as images, say: no run begins without."""
    words = documented.words(typed.replace("...", "").partition(" --tuned")[0])
    given = sweep.parse(words[words.index("dpbench.run" if "dpbench.run" in words else "run") + 1 :])
    if given.data == "cifar10":
        try:
            asset("cifar10", fetch=False)
        except AssetUnavailable:
            pytest.skip("CIFAR-10 is not on this machine")
    data = load_data(given.data)
    for size, seed, draw in itertools.product(given.batch_size, given.batch_seed[:1], given.label_draw):
        assert len(draw_disjoint(data, size, seed, draw).indices) == size


def test_the_table_of_threat_models_names_every_attack_of_each():
    lines = (DOCS / "threat-models.md").read_text(encoding="utf-8").splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("| `")]
    told = {name.strip(" `"): set(re.findall(r"`([a-z-]+)`", cell)) for name, _, cell in rows}
    assert told.pop("fishing") == {"honest"}  # all of an honest server's
    for name, named in told.items():
        suited = {each for each in attacks.names() if threat_models[name].suits(attacks.kind(each))}
        assert named == suited, name


def test_there_are_commands_on_most_pages():
    assert len(TYPED) > 80
    assert len(set(TYPED.values())) > 20


def test_options_within_sentences_are_options_of_some_command():
    declared = [sweep, decide, audit, *(options_of(name) for name in COMMANDS.keys() - PARSERS.keys())]
    known = {name for each in declared for name in each.options()} | OTHERS
    for path in (ROOT / "benchmarks").glob("[a-z]*.py"):
        known |= set(getattr(benchmark_options(f"benchmarks.{path.stem}"), "__dataclass_fields__", ()))
    found = {
        option: page.name
        for page in documented.PAGES
        for code in documented.inline(page)
        for option in re.findall(r"(?<!\S)--([a-z][a-z-]*[a-z])", code)
    }
    typed = {name.replace("_", "-") for name in known} | FOREIGN
    assert {option: page for option, page in found.items() if option not in typed} == {}
    assert len(found) > 50


@pytest.mark.usefixtures("few_figures")
@pytest.mark.parametrize("line", documented.blocks(OWN_PARTS, "")[0].splitlines())
def test_the_parts_of_ones_own_run_as_they_stand(line, files):
    _, _, module, *words = documented.words(line)
    assert module == "dpbench.run"
    assert run([*words, *SMALL, "--out", "out"]) == 0
    assert (dpbench.load(files / "out")["status"] == "ok").all()
    assert (files / "out" / "seconds.png").is_file() == ("seconds.py" in line)


@pytest.mark.usefixtures("few_figures")
def test_the_first_line_runs(tmp_path):
    (first,) = (
        each
        for each in documented.blocks(ROOT / "README.md", "")
        if "-m dpbench.run --defense dp --eps 1\n" in each
    )
    assert first in documented.blocks(DOCS / "get-started.md", "")
    words = documented.words(first.split(" && ")[-1])[3:]
    assert run([*words, *SMALL, "--batch-size", "1", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.html").is_file()


def test_an_audit_runs(capsys):
    assert "python -m dpbench.audit --defense dp --eps 1" in TYPED
    assert audited(["--defense", "dp", "--eps", "1", "--releases", "400"]) == 0
    assert "dp" in capsys.readouterr().out


PYTHON = [(page, code) for page in documented.PAGES for code in documented.blocks(page, "python")]


@pytest.mark.parametrize(("page", "code"), PYTHON, ids=[page.name for page, _ in PYTHON])
def test_python_in_the_pages_calls_what_there_is(page, code):
    """Names that are imported exist; keywords are those of the function, or options of a sweep."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []
        if isinstance(node, ast.Call) and ast.unparse(node.func).removeprefix("dpbench.") in KEYWORDS:
            called = KEYWORDS[ast.unparse(node.func).removeprefix("dpbench.")]
            own = set(inspect.signature(called).parameters) | set(sweep.options())
            assert [each.arg for each in node.keywords if each.arg not in own] == []


@pytest.mark.parametrize("page", ["data.md", "metrics.md", "decide.md"])
def test_whole_programs_in_the_pages_run(page):
    for code in documented.blocks(DOCS / page, "python"):
        exec(code, {"__name__": "mine"})


@pytest.mark.usefixtures("few_figures")
def test_the_readmes_program_runs(tmp_path, monkeypatch):
    """With 2 iterations for 20 and 100."""
    (code,) = documented.blocks(ROOT / "README.md", "python")
    monkeypatch.chdir(tmp_path)
    exec(re.sub(r"iterations=\d+", "iterations=2", code), {})
    assert (tmp_path / "results" / "mine" / "report.html").is_file()
