from __future__ import annotations

import pandas as pd
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpbench.protocol import InputError
from dpbench.run import main
from dpbench.sweep import suite
from dpbench.sweep.options import (
    checked,
    defaults,
    in_words_of_the_command_line,
    options,
    parse,
)
from dpbench.sweep.resumed import from_configuration
from dpbench.sweep.status import describe
from dpbench.system.paths import LARGEST_TOML, read_toml
from tests.helpers.sixty import table_of

pytestmark = pytest.mark.usefixtures("bare_exports")


@pytest.mark.parametrize("name", suite.names())
def test_shipped_suites_are_valid_and_described(name):
    options = parse(["--suite", name])
    assert options != parse([])
    assert read_toml(suite._home() / f"{name}.toml")["about"]


def test_the_suites_that_were_promised_are_there():
    assert {"quick", "epsilon", "batch-size", "pruning"} <= set(suite.names())


def test_options_on_the_command_line_go_before_the_suite():
    options = parse(["--batch-size", "2", "--suite", "epsilon"])
    assert options.batch_size == (2,)
    assert options.eps == (1.0, 10.0, 32.0, 100.0, 350.0, 1000.0, 10000.0, 1000000.0)


def test_a_single_value_will_do_for_an_axis(tmp_path):
    (tmp_path / "mine.toml").write_text('eps = 3\nattack = "dlg"\nweights = "w.pt"')
    options = parse(["--suite", str(tmp_path / "mine.toml")])
    assert (options.eps, options.attack, options.weights) == ((3.0,), ("dlg",), "w.pt")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("espilon = 1", "'espilon' is no option; known: defense"),
        ('out = "/etc"', "'out' is no option"),
        ('executor = "ray"', "'executor' is no option"),
        ('adaptive = ["maybe"]', "--adaptive must be True or False, not 'maybe'"),
        ('eps = ["1"]', "--eps must be a number, not '1'"),
        ("eps = [true]", "--eps must be a number, not True"),
        ("eps = [nan]", "--eps must be a finite number"),
        ("eps = [inf]", "finite"),
        ("eps = [-1]", "above 0"),
        ("eps = [[1]]", "--eps must be a number"),
        ("batch_size = [1.5]", "--batch-size must be a whole number"),
        (f"batch_size = [{2**63}]", "--batch-size must be a finite number below 2**63"),
        (f"eps = [{10**400}]", "--eps must be a finite number"),
        ("batch_seed = [-1]", "--batch-seed"),
        ('eps_scope = ["all"]', "--eps-scope must be one of training, release"),
        ("data = 2026-01-01", "--data must be a word"),
        ("defense = []", "--defense needs at least one value"),
        ("eps = []", "--eps needs at least one value."),
        ("tv = []", "--tv needs at least one value."),
        ("eps = [1", "no TOML"),
        ("a = " + "[" * 5000, "no TOML"),
        ("a = " + "9" * 5000, "no TOML"),
        (f"batch_seed = {list(range(2000))}\nattack_seed = {list(range(2000))}", "combinations"),
    ],
)
def test_what_is_no_suite_is_one_sentence(tmp_path, text, said):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InputError, match=r"^[^\n]*$") as caught:
        parse(["--suite", str(tmp_path / "mine.toml")])
    assert said in in_words_of_the_command_line(str(caught.value))


def test_what_is_no_file(tmp_path):
    for name, said in (
        ("slow", "known: batch-size"),
        (f"{tmp_path}/none.toml", "no file"),
        (str(tmp_path), "is a folder, not a file"),
        ("/dev/zero", "is a pipe or a device, not a file"),
        ("~nosuchuser/mine.toml", "home folder"),
    ):
        with pytest.raises(InputError, match=said):
            parse(["--suite", name])
    (tmp_path / "large.toml").write_text("#" * (LARGEST_TOML + 1))
    with pytest.raises(InputError, match="larger"):
        parse(["--suite", str(tmp_path / "large.toml")])


@pytest.mark.parametrize("words", ['["yes", "no"]', "[true, false]"])
def test_yes_and_no_are_truth_values(tmp_path, words):
    (tmp_path / "mine.toml").write_text(f"adaptive = {words}")
    assert parse(["--suite", str(tmp_path / "mine.toml")]).adaptive == (True, False)


def test_a_runs_configuration_runs_it_again(undisturbed, tmp_path):
    again = tmp_path / "again"
    assert main(["--suite", str(undisturbed / "config.toml"), "--out", str(again), "--quiet"]) == 0
    assert (again / "config.toml").read_text() == (undisturbed / "config.toml").read_text()
    pd.testing.assert_frame_equal(table_of(again), table_of(undisturbed))


DECIDING = sorted(name for name, each in options().items() if each.decides and name != "plugin")
VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=4), st.dates()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([*DECIDING, "version", "inputs", "other"]), VALUES, max_size=4))
def test_a_configuration_of_any_kind_is_options_or_one_sentence(tmp_path, stored):
    file = tmp_path / "config.toml"
    file.write_text(tomli_w.dumps(stored), encoding="utf-8")
    given = checked(defaults()).replaced(out=str(tmp_path))
    for use in (lambda: from_configuration(read_toml(file), given), lambda: parse(["--suite", str(file)])):
        said = ""
        try:
            use()
        except InputError as error:
            said = str(error)
        assert "\n" not in said
    assert describe(tmp_path).splitlines()


@pytest.mark.parametrize("plugin", [5, "no_such_module", [1.5], {"a": 1}])
def test_plugins_of_a_configuration(tmp_path, plugin):
    given = checked(defaults()).replaced(out=str(tmp_path))
    with pytest.raises(InputError, match=r"plugin"):
        from_configuration({"plugin": plugin}, given)
