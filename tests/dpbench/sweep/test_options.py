from __future__ import annotations

import pytest

from dpbench.protocol import InputError
from dpbench.sweep.options import Options, checked, from_configuration, parse


def test_main_command():
    options = parse(["--defense", "dp", "--eps", "1"])
    assert options == checked(Options(defense=("dp",), eps=(1.0,)))
    assert options.batch_size == (1, 4)
    assert options.victim == ("early",)


def test_every_axis_takes_several_values():
    line = "--defense none clip noise prune dp --eps 1 10 1000 --batch-size 1 4 --attack dlg idlg"
    options = parse(line.split())
    assert options.defense == ("none", "clip", "noise", "prune", "dp")
    assert options.eps == (1.0, 10.0, 1000.0)
    assert options.attack == ("dlg", "idlg")


def test_all_attacks_are_those_registered():
    import attacks

    assert parse(["--attack", "all"]).attack == tuple(attacks.names())


def test_noise_multiplier_leaves_eps_empty():
    assert parse(["--noise-multiplier", "0.5"]).eps == ()


def test_weights_are_called_trained():
    assert parse(["--weights", "w.pt"]).victim == ("trained",)
    assert parse(["--weights", "w.pt", "--victim", "early"]).victim == ("early",)


def test_help_ends_well_and_names_every_option(capsys):
    with pytest.raises(SystemExit) as end:
        parse(["--help"])
    assert not end.value.code
    said = capsys.readouterr().out
    for name in Options.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in said


BAD = [
    ("--eps 0", "--eps must be above 0, not 0."),
    ("--eps 1 -3", "--eps must be above 0, not -3."),
    ("--eps nan", "--eps must be a finite number, not nan."),
    ("--eps inf", "--eps must be a finite number, not inf."),
    ("--eps one", "--eps"),
    ("--delta 1", "--delta must lie between 0 and 1, not 1."),
    ("--delta 0", "--delta must lie between 0 and 1, not 0."),
    ("--prune-ratio 1", "--prune-ratio must be at least 0 and below 1, not 1."),
    ("--prune-ratio -0.1", "--prune-ratio must be at least 0 and below 1, not -0.1."),
    ("--noise-std -1", "--noise-std must be at least 0, not -1."),
    ("--max-grad-norm 0", "--max-grad-norm must be above 0, not 0."),
    ("--train-size 0", "--train-size must be above 0, not 0."),
    ("--epochs 0", "--epochs must be above 0, not 0."),
    ("--batch-size 0", "--batch-size must be above 0, not 0."),
    ("--batch-size 1.5", "--batch-size"),
    ("--batch-size", "--batch-size needs at least one value."),
    ("--iterations -5", "--iterations must be above 0, not -5."),
    ("--image-size 0", "--image-size must be above 0, not 0."),
    ("--eps 1 --noise-multiplier 1", "not both"),
    ("--model vgg", "Unknown model 'vgg'; known: lenet, convnet"),
    ("--norm bn", "bn"),
    ("--victim old", "old"),
    ("--accountant gdp", "gdp"),
    ("--epz 1", "Unrecognized options: --epz"),
    ("--weights w.pt --model lenet convnet", "one --model"),
]


@pytest.mark.parametrize(("line", "said"), BAD)
def test_bad_input_is_one_sentence(line, said):
    with pytest.raises(InputError) as error:
        parse(line.split())
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


def test_invalid_choice_lists_the_known_ones():
    with pytest.raises(InputError, match=r"early.*trained.*untrained"):
        parse(["--victim", "old"])


def test_configuration_comes_back_whole():
    line = [
        "--defense",
        "clip",
        "--iterations",
        "7",
        "--adaptive",
        "yes",
        "no",
        "--data",
        "cifar10",
        "--out",
        "a",
    ]
    options = parse(line)
    stored = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.configuration().items()
        if value is not None  # as TOML has it
    }
    again = from_configuration(stored | {"version": "0"}, parse(["--resume", "--out", "a"]))
    assert again.configuration() == options.configuration()
    assert again.out == "a"


def test_resuming_takes_no_other_option():
    options = parse(["--resume", "--out", "a", "--eps", "3"])
    with pytest.raises(InputError, match="nothing but --out"):
        from_configuration({}, options)
