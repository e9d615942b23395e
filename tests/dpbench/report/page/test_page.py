"""The page of runs that ended, failed or were interrupted, and of tables only; and whom it trusts."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from dpbench.report import flags, page, settings
from dpbench.report.__main__ import main
from dpbench.report.naming import Naming
from dpbench.report.page import document, folder, sections
from dpbench.report.page.budget import budgets
from dpbench.report.page.cells import cells
from dpbench.report.page.changes import changes
from dpbench.report.page.decided import decided
from dpbench.report.page.provenance import command
from dpbench.report.summary import summary
from dpbench.store import Store, open_run
from dpbench.store.schema import frame

REFERENCE = Path(__file__).parents[4] / "results" / "reference"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def ids_are_unique(found):
    return len(found.ids) == len(set(found.ids))


def test_a_run_has_a_page_with_landmarks_and_one_heading(finished, found):
    tags = [tag for tag, _ in found.tags]
    assert [tags.count(name) for name in ("h1", "main", "nav", "footer")] == [1, 1, 1, 1]
    assert ids_are_unique(found)
    linked = [of["href"] for tag, of in found.tags if tag == "a"]
    assert all(link.startswith("#") and link[1:] in found.ids for link in linked)
    count = len(finished.keys())
    assert f"{count} of {count} cells ended well" in found.text


def test_nothing_is_fetched(found):
    addresses = [of[name] for _, of in found.tags for name in ("src", "href") if name in of]
    assert all(address.startswith(("#", "data:")) for address in addresses)
    policy = next(of["content"] for tag, of in found.tags if of.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_logs_and_settings_of_each_cell_are_one_click_away(finished, found):
    for key in finished.frame()["key"]:
        assert f"cell-{key}" in found.ids
        assert f"began {key}" in found.text
    assert "eps: 1000" in found.text


def test_hostile_names_are_text(make_run, store_of, read):
    table = make_run(dp=False, batch_sizes=(1,))
    table["attack"] = table["attack"].where(table["attack"] != "inverting-gradients", HOSTILE)
    table["note"] = HOSTILE
    run = store_of(table, name="<b>&")
    run.log(run.keys()[0], HOSTILE)
    (run.path / "environment.json").write_text(json.dumps({"python": HOSTILE, "packages": {HOSTILE: "1"}}))
    found = read(run, run.frame())
    assert not [of for tag, of in found.tags if tag == "img" and of.get("src") == "x"]
    assert HOSTILE in {row["attack"] for row in found.rows("images")}
    assert {tag for tag, _ in found.tags} & {"b", "iframe"} == set()
    assert "<b>&" in found.text


def test_what_an_informed_attacker_gets_is_said_once(make_run, store_of):
    table = make_run()
    told = page.write(store_of(table), table).read_text()
    assert told.count("An informed attacker, who knows all but one sample") == 1


def test_control_characters_do_not_reach_the_page(make_run, store_of):
    table = make_run(dp=False, batch_sizes=(1,))
    ours = table["attack"] == "inverting-gradients"
    table["attack"] = table["attack"].where(~ours, "grad\u202etxt.\x1b[31m")
    run = store_of(table)
    assert not {"\u202e", "\x1b"} & set(page.html(run, run.frame()))


def test_a_failed_run_says_why(make_rows, store_of, read):
    rows = make_rows("dlg", "none", 2, 20, 0.1, status="failed", error="RuntimeError: out of memory")
    run = store_of(frame(rows))
    found = read(run, run.frame())
    assert "No attack ended well, so there is no answer." in found.text
    assert "RuntimeError: out of memory" in found.text
    assert "0 of 1 cells ended well, 1 failed" in found.text
    assert "answer" not in found.ids


def test_an_interrupted_run_says_what_is_there_and_what_is_missing(make_run, store_of, read):
    run = store_of(make_run())
    lost = run.keys()[-1]
    (run.path / "cells" / f"{lost}.safetensors").unlink()
    store, table = folder.read(run.path)
    found = read(store, table)
    assert table["psnr_floor"].notna().any()  # floors are attached, as at the end of a run
    assert "1 has not been run" in found.text
    assert "1 of the run's cells has no result" in found.text
    assert "The run was interrupted or still goes on" in found.text
    assert f"cell-{lost}" in found.ids
    assert found.ids.index("answer") < found.ids.index("state")


def test_a_page_weighs_every_result_once(make_run, store_of, monkeypatch):
    """Several of its sections ask for the same flags and for the same evidence."""
    raised, weighed = [], []
    evidence = settings.evidence
    monkeypatch.setattr(flags, "RAISED", [lambda results: raised.append(results) or ()])
    monkeypatch.setattr(
        settings, "evidence", lambda rows, floors: weighed.append(tuple(rows.index)) or evidence(rows, floors)
    )
    table = make_run()
    page.html(store_of(table), table)
    assert len(raised) == 1
    assert len(weighed) == len(set(weighed)) > 1


def test_an_empty_run_has_a_page(tmp_path, read):
    run = open_run(tmp_path / "run", {"defense": ["dp"]})
    found = read(*folder.read(run.path))
    assert "There are no results of attacks in this folder." in found.text
    assert "python -m dpbench.run --defense dp" in found.text


def test_the_exported_table_is_passed_over_where_cells_came_after_it(make_run, store_of):
    table = make_run()
    run = store_of(table)
    table[table["batch_size"] == 1].to_parquet(run.path / "results.parquet", index=False)
    assert len(folder.read(run.path)[1]) == len(table)
    table.to_parquet(run.path / "results.parquet", index=False)
    assert folder.read(run.path)[1]["psnr"].tolist() == table["psnr"].tolist()


def test_tables_without_cells_are_enough(tmp_path, read, capsys):
    shutil.copytree(REFERENCE / "main", tmp_path / "main")
    assert main([str(tmp_path / "main")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "main" / "report.html")
    found = read(*folder.read(tmp_path / "main"))
    assert "The folder has tables and no cells" in found.text
    assert any(of.get("src", "").startswith("data:image/png;base64,") and of["alt"] for _, of in found.tags)
    assert "It was run with dpbench" not in found.text
    (tmp_path / "main" / "config.toml").unlink()
    assert len(folder.read(tmp_path / "main")[1]) == 30


def test_a_folder_of_decide_shows_its_table(read):
    found = read(*folder.read(REFERENCE / "decide"))
    head, *rows = found.tables["Epsilons"]
    choices = json.loads((REFERENCE / "decide" / "decide.json").read_text())["choices"]
    assert len(head) == len(rows[0])
    for row, choice in zip(rows, choices, strict=True):
        values = [float(value) for cell in row for value in cell["values"]]
        names = ["eps", "noise_multiplier", "eps_release", "rero_release", "rero_training"]
        names += ["rero_server"]
        names += ["advantage", "power", "gaussian_mu"]
        names += ["eps_user"] if choice["eps_user"] is not None else []
        assert values == [choice[name] for name in names]
    assert "what it says of the training for every one who does not know which batches hold" in found.text


@pytest.mark.parametrize("name", ["nowhere", "file", "foreign"])
def test_what_is_no_folder_of_results_is_refused(tmp_path, capsys, name):
    (tmp_path / "file").write_text("x")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "a.txt").write_text("x")
    assert main([str(tmp_path / name)]) == 2
    assert "name" in capsys.readouterr().err
    assert not (tmp_path / "foreign" / page.FILE).exists()


def test_a_link_is_not_followed(make_run, store_of, tmp_path):
    run = store_of(make_run(dp=False, batch_sizes=(1,)))
    (tmp_path / "secret").write_text("the reader's own file")
    log = run.log_file(run.keys()[0])
    log.unlink()
    log.symlink_to(tmp_path / "secret")
    assert "the reader's own file" not in cells(run.frame(), run)


@pytest.mark.filterwarnings("ignore:report.html")
def test_a_damaged_file_costs_its_section_only(make_rows, store_of, read):
    run = store_of(frame(make_rows("dlg", "none", 2, 20, 0.1)))
    (run.path / "decide.json").write_text('{"choices": [{}], "training": {}}')
    found = read(run, run.frame())
    assert "This section could not be made (KeyError" in found.text
    assert {"answer", "results", "images", "cells"} <= set(found.ids)


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000, '{"choices": []}', "\x00"])
def test_a_file_that_says_nothing_is_passed_over(tmp_path, content):
    (tmp_path / "decide.json").write_text(content)
    assert decided(frame([]), Store(tmp_path)) is None


def test_a_section_that_breaks_is_named(make_run, store_of, read, monkeypatch):
    def broken(table, store):
        raise KeyError("a column that is not there")

    section = sections.Section("mine", "My own", broken)
    monkeypatch.setattr(document, "SECTIONS", (section, *sections.SECTIONS[-2:]))
    run = store_of(make_run(dp=False, batch_sizes=(1,)))
    with pytest.warns(RuntimeWarning, match="My own is missing: KeyError"):
        found = read(run, run.frame())
    assert "This section could not be made (KeyError" in found.text
    assert "cells" in found.ids


def test_the_line_that_makes_the_run_again_is_understood_by_the_command_line():
    from dpbench.sweep.options import parse
    from dpbench.system.paths import read_toml

    for name in ("main", "epsilon", "malicious-linear"):
        file = REFERENCE / name / "config.toml"
        words = command(file.read_text()).split()
        assert words[:3] == ["python", "-m", "dpbench.run"]
        options = parse(words[3:])
        kept = {k: v for k, v in read_toml(file).items() if k not in ("version", "inputs", "lpips_net")}
        for option, value in kept.items():
            values = value if isinstance(value, list) else [value]  # older runs had one accountant
            found = options[option] if isinstance(options[option], tuple) else (options[option],)
            assert found == tuple({"yes": True, "no": False}.get(each, each) for each in values), option


def test_what_was_not_kept_is_not_called_absent(read, tmp_path):
    """Rows may be too large to be kept; the summary and the table are there."""
    kept = shutil.copytree(REFERENCE / "labels", tmp_path / "labels")
    (kept / "results.parquet").unlink()
    found = read(*folder.read(kept))
    assert "There are no results" not in found.text
    assert "were not kept in this folder" in found.text
    assert "summary.csv and table.md" in found.text


@pytest.mark.parametrize("name", ["batch-size", "rero"])
def test_the_line_that_makes_an_old_run_again_is_for_its_version(read, name, tmp_path):
    old = shutil.copytree(REFERENCE / name, tmp_path / name)
    for file in ("config.toml", "results.csv"):
        text = (old / file).read_text(encoding="utf-8")
        assert "0.2.0" in text
        (old / file).write_text(text.replace("0.2.0", "0.1.0"), encoding="utf-8")
    found = read(*folder.read(old))
    assert "It was run with dpbench 0.1.0." in " ".join(found.text.split())
    assert "It was run with" not in read(*folder.read(REFERENCE / name)).text


def test_a_budget_of_releases_has_no_steps(read):
    """`rero` has 10 releases: q = 1 and one step beside them would contradict that."""
    found = read(*folder.read(REFERENCE / "rero"))
    titles = [row[0]["text"] for row in found.tables["Budgets"]]
    assert "releases" in titles
    assert not {"sample rate q", "steps T"} & set(titles)
    assert "dp ε=0.5, releases=10" in [row[0]["text"] for row in found.tables["Informed attacker"]]


def test_what_would_change_the_verdict_is_what_was_not_tried(make_run, make_rows, dp):
    rows = [
        *make_rows("dlg", "none", 1, 25, 0.01),
        *make_rows("dlg", "dp", 1, 14, 0.3, **(dp | {"adaptive": True})),
        *make_rows("dlg", "dp", 1, 14, 0.3, **(dp | {"adaptive": False})),
        *make_rows("dlg", "clip", 1, 14, 0.3, adaptive=False),
    ]
    found = {each.what: each.why for each in changes(frame(rows), Store(REFERENCE / "main"))}
    assert found["An attack that knows the defence"] == "Not tried against clip (--adaptive yes)."
    informed = frame([row | {"threat_model": "informed"} for row in rows])
    found = {each.what: each.why for each in changes(informed, Store(REFERENCE / "main"))}
    assert "honest" in found["Another attacker"]  # who knows less, not more


def test_what_failed_is_not_said_to_be_untried(make_rows, dp):
    failed = {"status": "failed", "psnr": None}
    aware = make_rows("dlg", "dp", 1, 14, 0.3, **(dp | failed | {"adaptive": True}))
    informed = make_rows("prior-aware", "dp", 1, 14, 0.3, **(dp | failed | {"threat_model": "informed"}))
    rows = [*make_rows("dlg", "dp", 1, 14, 0.3, **(dp | {"adaptive": False})), *aware, *informed]
    found = {each.what: each.why for each in changes(frame(rows), Store(REFERENCE / "main"))}
    assert "An attack that knows the defence" not in found
    assert "informed" not in found["Another attacker"]


def test_the_page_does_not_depend_on_the_folder_it_is_made_in(tmp_path, monkeypatch):
    """The package that DataTables is taken from reads the project file of the current folder on import."""
    (tmp_path / "pyproject.toml").write_text("[tool\n<<<<<<< HEAD\n")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "itables"]:
        monkeypatch.delitem(sys.modules, name)
    assert "DataTables" in document._bundle("js")


def test_budgets_of_images_and_of_clients_are_told_apart(make_rows, dp):
    """Their numbers may be equal, and the card named whichever came first."""
    rows = make_rows("dlg", "dp", 1, 9, 0.5, **dp | {"unit": "record"})
    rows += make_rows("dlg", "dp", 1, 9, 0.5, seed=1, **dp | {"unit": "user"})
    table = frame(rows)
    found, left_out = budgets(summary(table), Naming(table))
    assert (len(found), left_out) == (2, 0)
    assert ["unit user" in each.defence for each in found] == [False, True]
