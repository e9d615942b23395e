from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

from dpbench.protocol import InputError
from dpbench.sweep.axes import options as known
from dpbench.sweep.option import FIRST, GROUPS, MOST_USED
from dpbench.sweep.options import in_words_of_the_command_line, parse
from dpbench.sweep.resumed import from_configuration


def test_main_command():
    options = parse(["--defense", "dp", "--eps", "1"])
    assert (options.defense, options.eps, options.attack) == (("dp",), (1.0,), ("inverting-gradients",))
    assert (options.batch_size, options.model, options.victim) == ((1, 4), ("convnet",), ("early",))
    assert (options.data, options.out, options.resume) == ("samples", None, False)


def test_every_axis_takes_several_values():
    line = "--defense none clip noise prune dp --eps 1 10 1000 --batch-size 1 4 --attack dlg idlg"
    options = parse([*line.split(), "--adaptive", "yes", "no", "--prune-scope", "layer", "global"])
    assert options.defense == ("none", "clip", "noise", "prune", "dp")
    assert options.eps == (1.0, 10.0, 1000.0)
    assert options.attack == ("dlg", "idlg")
    assert options.adaptive == (True, False)
    assert options.prune_scope == ("layer", "global")


def test_all_attacks_are_those_registered():
    found = parse(["--attack", "all"]).attack
    assert {"dlg", "idlg", "inverting-gradients", "gradinversion", "analytic", "prior-aware"} <= set(found)
    assert len(set(found)) == len(found) > 6


def test_noise_multiplier_leaves_eps_to_itself():
    options = parse(["--noise-multiplier", "0.5"])
    assert (options.noise_multiplier, options.eps) == ((0.5,), ())


def test_what_is_shown_is_no_part_of_a_runs_configuration():
    assert parse(["--columns", "all"]).configuration() == parse([]).configuration()


def test_weights_are_called_trained():
    assert parse(["--weights", "w.pt"]).victim == ("trained",)
    assert parse(["--weights", "w.pt", "--victim", "early"]).victim == ("early",)


@pytest.fixture
def help_text(capsys):
    with pytest.raises(SystemExit) as end:
        parse(["--help"])
    assert not end.value.code
    return capsys.readouterr().out


def test_help_names_every_option_once_under_its_group_the_most_used_first(help_text):
    flags = re.findall(r"^[│ ] (--[a-z0-9-]+)", help_text, re.MULTILINE)
    assert flags == [f"--{name.replace('_', '-')}" for name in known()]
    assert [flag[2:].replace("-", "_") for flag in flags[:10]] == list(MOST_USED)
    titles = re.findall(r"^(?:╭─)? (\w.+?) options (?:─| +$)", help_text, re.MULTILINE)
    assert titles == list(GROUPS)
    assert {each.group for each in known().values()} == set(GROUPS) > {FIRST}


def test_help_says_who_takes_a_parameter_and_what_it_is_by_default(help_text):
    said = " ".join(help_text.replace("│", " ").split())
    assert "share of gradient entries that prune sets to zero, in [0, 1) (prune: 0.9)" in said
    assert re.search(r"--tv .*? weight of total variation \([^)]*deepinversion: 0\.05", said)
    assert "`" not in said


def test_help_fits_eighty_columns(help_text):
    assert max(map(len, help_text.splitlines())) <= 80


def test_no_source_is_searched_for_the_help_of_an_option(monkeypatch):
    """Tyro looks for comments where it is given no help, in a quarter of the time of reading the words."""
    searched = []
    with monkeypatch.context() as patch:  # pytest looks at sources, too
        patch.setattr(
            inspect, "findsource", lambda what, find=inspect.findsource: searched.append(what) or find(what)
        )
        assert parse(["--eps", "3"]).eps == (3.0,)
    assert searched == []


def test_help_imports_nothing_that_is_not_needed_for_it():
    """What costs seconds of CPU is imported when it is used; `import dpbench` alone imports nothing."""
    script = """
import sys
import dpbench
assert not {"torch", "numpy", "pandas", "tyro", "rich"} & set(sys.modules)
from dpbench.run import main
try:
    main(["--help"])
except SystemExit as end:
    assert not end.code
heavy = ["opacus", "dp_accounting", "pandas", "pyarrow", "matplotlib", "ray", "kornia", "torchvision"]
heavy += ["scipy", "torchmetrics", "lpips", "foolbox", "sympy", "torch._inductor", "torch._dynamo"]
heavy += ["jinja2", "itables", "jsonschema", "kymatio"]
print("heavy:", *[name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy:"


BAD = [
    ("--eps 0", "--eps must be above 0, not 0."),
    ("--eps 1 -3", "--eps must be above 0, not -3."),
    ("--eps nan", "--eps must be a finite number below 2**63, not nan."),
    ("--eps inf", "--eps must be a finite number below 2**63, not inf."),
    ("--eps one", "--eps"),
    ("--delta 1", "--delta must be at most 0.5, not 1."),
    ("--delta 0", "--delta must be above 0, not 0."),
    ("--prune-ratio 1", "--prune-ratio must be below 1, not 1."),
    ("--prune-ratio -0.1", "--prune-ratio must be at least 0, not -0.1."),
    ("--noise-std -1", "--noise-std must be at least 0, not -1."),
    ("--max-grad-norm 0", "--max-grad-norm must be above 0, not 0."),
    ("--train-size 0", "--train-size must be at least 1, not 0."),
    ("--epochs 0", "--epochs must be above 0, not 0."),
    ("--batch-size 0", "--batch-size must be at least 1, not 0."),
    ("--batch-size 1.5", "--batch-size"),
    ("--batch-size 99999999999999999999", "below 2**63, not 99999999999999999999."),
    (f"--batch-seed {'9' * 4000}", "below 2**63, not a number of more than 60 digits."),
    ("--batch-size", "--batch-size needs at least one value."),
    ("--defense dp --eps --quiet", "--eps needs at least one value."),
    ("--prune_ratio", "--prune-ratio needs at least one value."),
    ("--batch-seed -1", "--batch-seed must be at least 0, not -1."),
    ("--iterations -5", "--iterations must be at least 1, not -5."),
    ("--image-size 0", "--image-size must be at least 1, not 0."),
    ("--image-size 100000", "--image-size must be at most 4096, not 100000."),
    ("--noise-multiplier 1e308", "--noise-multiplier must be a finite number below 2**63"),
    ("--epochs 1e308", "--epochs must be a finite number below 2**63"),
    ("--releases 1000000000", "--releases must be"),
    ("--trials 1000000000000", "--trials must be"),
    ("--eps 1 --noise-multiplier 1", "not both"),
    ("--model vgg", "Unknown model 'vgg'; known: lenet, convnet"),
    ("--norm bn", "bn"),
    ("--victim old", "old"),
    ("--accountant gdp", "gdp"),
    ("--epz 1", "There is no option --epz (did you mean --eps?)"),
    ("--weights w.pt --model lenet convnet", "one --model"),
]


@pytest.mark.parametrize(("line", "said"), BAD)
def test_bad_input_is_one_sentence(line, said):
    with pytest.raises(InputError) as error:
        parse(line.split())
    sentence = in_words_of_the_command_line(str(error.value))
    assert said in sentence
    assert not {"\n", "`"} & set(sentence)
    assert sentence.endswith(".")


def test_invalid_choice_lists_the_known_ones():
    with pytest.raises(InputError, match=r"early.*trained.*untrained"):
        parse(["--victim", "old"])


def test_only_options_in_backquotes_become_flags():
    said = "`max_grad_norm` and `no_option` of max_grad_norm"
    assert in_words_of_the_command_line(said) == "--max-grad-norm and `no_option` of max_grad_norm"


def test_configuration_comes_back_whole():
    line = "--defense clip --iterations 7 --adaptive yes no --data cifar10 --out a --threat-model honest"
    options = parse(line.split())
    stored = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.configuration().items()
        if value is not None  # as TOML has it
    }
    assert stored["iterations"] == [7]
    assert stored["adaptive"] == [True, False]
    assert not {"out", "quiet", "executor", "prune_ratio"} & stored.keys()
    again = from_configuration(stored | {"version": "0"}, parse(["--resume", "--out", "a"]))
    assert again.configuration() == options.configuration()
    assert again.out == "a"


def test_resuming_takes_no_other_option():
    options = parse(["--resume", "--out", "a", "--eps", "3"])
    with pytest.raises(InputError, match="nothing but `out`, `executor`, `quiet`, and `plugin`"):
        from_configuration({}, options)
    from_configuration({}, parse(["--resume", "--out", "a", "--executor", "workers", "--quiet"]))
