"""Flags about claims: audits, bounds, and images that attacks were tuned on."""

import json
import warnings
from dataclasses import replace

import pytest

from dpbench.audit import files
from dpbench.audit.__main__ import main
from dpbench.audit.noise import Check
from dpbench.audit.report import Finding, Report
from dpbench.report.flags.audits import audits
from dpbench.report.flags.claims import AUDIT, BOUND, TUNED, UNCHECKED
from dpbench.report.tables import to_markdown, to_tex
from dpbench.store import Store

PASSED = Report(
    findings=(Finding("C", 0.4, 0.2, 0.8, "mean"),) * 4,
    checks=(Check("size", "as claimed", 0.4, 0.001), Check("shape", "as claimed", 0.2, 0.001)),
    releases=20_000,
    confidence=0.95,
    delta=1e-5,
    claimed_eps=1.0,
    gaussian=True,
    reach=44.0,
)
LEAKING = replace(PASSED, findings=(*PASSED.findings[:3], Finding("100 C", 3.25, 1.5, 4.5, "mean")))
ODD = replace(PASSED, checks=(PASSED.checks[0], Check("shape", "not normal", 1e-9, 0.001)))


@pytest.fixture
def of_audits(make_run, raised, tmp_path):
    """The flags of a sound run in whose folder these audits lie."""

    def found(defense="dp", **reports):
        for name, report in reports.items():
            files.write(tmp_path / f"{name}.json", defense, report)
        return raised(make_run(), Store(tmp_path))

    return found


def test_an_audit_that_refutes_the_claim_stands_beside_the_defence(of_audits, make_run):
    (flag,) = of_audits(audit=LEAKING)
    assert flag.kind == AUDIT
    assert flag.text == (
        "The audit audit.json of dp found at least ε 4.50 for one release where 1 is claimed (20,000 "
        "releases for each of 4 canaries, confidence 95 %), so its guarantee does not hold."
    )
    table = make_run()
    assert set(flag.keys) == set(table.loc[table["defense"] == "dp", "key"])


def test_noise_that_is_not_the_claimed_one_is_named(of_audits):
    (flag,) = of_audits(audit=ODD)
    assert "found noise that fails 1 of 2 checks (shape) (20,000" in flag.text


def test_an_audit_that_passes_is_silent(of_audits):
    assert of_audits(audit=PASSED) == []
    assert of_audits(audit=replace(LEAKING, claimed_eps=None)) == []


def test_every_audit_of_the_folder_counts_and_one_of_another_defence_has_no_cells(of_audits):
    (flag,) = of_audits("own", **{"audit-own": LEAKING, "audit": PASSED, "other": LEAKING})
    assert flag.text.startswith("The audit audit-own.json of own ")
    assert flag.keys == ()


def test_a_plug_in_s_budget_is_on_its_author_s_word_wherever_it_is_read(make_run, raised):
    table = make_run().assign(noise_unchecked=lambda rows: (rows["defense"] == "dp") | None)
    (flag,) = raised(table)
    assert flag.kind == UNCHECKED
    assert set(flag.keys) == set(table.loc[table["defense"] == "dp", "key"])
    assert "its author vouches for and not dpbench" in flag.text
    for text in (to_markdown(table), to_tex(table)):
        assert "The epsilon of dp is that of Gaussian noise, which its author vouches for" in text
        assert "vouches" not in to_markdown(make_run())


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "defense": "dp", "findings": 3}', "[" * 9999]
)
def test_a_file_that_is_no_audit_is_left_out_with_a_warning(of_audits, tmp_path, content):
    (tmp_path / "audit-x.json").write_text(content)
    with pytest.warns(RuntimeWarning, match="audit-x.json is no audit that can be read"):
        assert len(of_audits(audit=LEAKING)) == 1


def test_a_link_is_not_followed(of_audits, tmp_path):
    of_audits(elsewhere=LEAKING)
    (tmp_path / "audit.json").symlink_to(tmp_path / "elsewhere.json")
    assert of_audits() == []


def test_values_of_the_wrong_kind_are_no_audit(of_audits, tmp_path):
    files.write(tmp_path / "audit.json", "dp", LEAKING)
    content = json.loads((tmp_path / "audit.json").read_text())
    (tmp_path / "audit.json").write_text(json.dumps(content | {"claimed_eps": "one"}))
    with pytest.warns(RuntimeWarning, match="is no audit"):
        assert of_audits() == []


def test_the_command_line_writes_what_the_report_reads(tmp_path):
    name = str(tmp_path / "audit-dp.json")
    assert main(["--defense", "dp", "--eps", "1", "--releases", "400", "--quiet", "--out", name]) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = audits(tmp_path)
    assert (found.name, found.defense, found.releases) == ("audit-dp.json", "dp", 400)
    assert found.claimed_eps == pytest.approx(1)
    assert (found.canaries, found.exceeded, found.departures) == (4, False, ())


def test_the_command_line_says_where_it_cannot_write(tmp_path, capsys):
    out = str(tmp_path / "nowhere" / "audit.json")
    assert main(["--defense", "dp", "--eps", "1", "--releases", "400", "--quiet", "--out", out]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.fixture
def informed(make_rows, dp):
    """Rows of an informed attacker that was right in so many of 40 trials, bound 0.16."""

    def made(right):
        more = {"threat_model": "informed", "candidates": 10, "trials": 40, "success_bound": 0.16}
        (row,) = make_rows("prior-aware", "dp", 1, 0, 0, **(dp | more | {"success": right / 40, "key": "c"}))
        return [{name: value for name, value in row.items() if name not in ("psnr", "lpips")}]

    return made


def test_an_attacker_above_a_bound_is_named(informed, raised):
    (flag,) = raised(informed(36))
    assert flag.kind == BOUND
    assert flag.text.startswith(
        "prior-aware under dp ε=1, batch of 1: picked 90 % of 40 (corrected interval "
    )
    assert "where at most 16 % is possible, which is an error in the defence" in flag.text
    assert flag.keys == ("c",)
    assert raised(informed(9)) == []


def test_images_that_attacks_are_tuned_on_are_counted(make_rows, raised):
    def flagged(*seeds, data="cifar10"):
        rows = [row for s in seeds for row in make_rows("dlg", "none", 2, 25, 0.01, seed=s, data=data)]
        return [flag for flag in raised(rows) if flag.kind == TUNED]

    (flag,) = flagged(0, 100, 999, 1000)
    assert flag.text.startswith("4 of 8 images of cifar10 are of the batch seeds 100 to 999")
    assert flag.keys == ("dlg-none--2-100", "dlg-none--2-999")
    assert flagged(0, 99, 1000, 5000) == []
    assert flagged(100, data="samples") == []


def test_images_that_the_values_of_an_attack_were_tuned_on_are_counted(make_rows, raised):
    def rows(seed, tuned_on, **more):
        (row,) = make_rows("dlg", "none", 1, 25, 0.01, seed=seed, data="mine")
        return row | {"tuned": "tuned.toml ab: mine, batch seeds 100 to 105", "tuned_on": tuned_on} | more

    (flag,) = raised([rows(1000, False), rows(1001, True)])
    assert flag.kind == TUNED
    assert flag.text == (
        "1 of 2 images are among those that the attack's parameters were tuned on (tuned.toml ab: mine, "
        "batch seeds 100 to 105), so it may do better on them than on others: report batches of other images."
    )
    assert flag.keys == ("dlg-none--1-1001",)
    assert raised([rows(1000, False)]) == []
    assert raised([rows(1001, True, tuned=None)]) == []
