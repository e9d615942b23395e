"""Whatever is mistyped on any of dpbench's command lines, one sentence says what it may have been."""

import re
from importlib import import_module

import pytest

from dpbench.__main__ import COMMANDS
from dpbench.__main__ import main as dpbench
from dpbench.assets.__main__ import main as assets
from dpbench.run import main as run


def refused(capsys, main, *words):
    assert main(list(words)) == 2
    out, err = capsys.readouterr()
    assert not out
    return err.splitlines()[-1]  # after notes, on data say


@pytest.mark.parametrize("command", COMMANDS)
def test_a_mistyped_option_of_any_command(command, capsys):
    main = import_module(COMMANDS[command][0]).main
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert not end.value.code
    flags = re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)
    if set(flags) <= {"--help"}:
        pytest.skip("its options belong to its own subcommands")
    flag = max(flags, key=len)
    said = refused(capsys, main, flag[:-2] + flag[-1])
    assert f"There is no option {flag[:-2] + flag[-1]} (did you mean {flag}?)" in said
    said = refused(capsys, main, f"{flag[:-2]}{flag[-1]}=1")
    assert f"(did you mean {flag}?)" in said


@pytest.mark.parametrize(
    ("main", "line", "expected"),
    [
        (dpbench, "rnu", "dpbench has no 'rnu' (did you mean 'run'?)"),
        (run, "--label-draw distict", "--label-draw does not take 'distict' (did you mean 'distinct'?)"),
        (run, "--train_siz 3", "There is no option --train_siz (did you mean --train-size?)"),
        (run, "--columns psnr_mx", "summary.csv has no 'psnr_mx' (did you mean 'psnr_max'?)"),
        (run, "--suite epsilo", "Unknown suite 'epsilo' (did you mean 'epsilon'?)"),
        (run, "--data cifar", "Unknown data 'cifar' (did you mean 'cifar10'?)"),
        (run, "--attack dgl", "Unknown attack 'dgl' (did you mean 'dlg'?)"),
        (run, "--defense clip+prun", "Unknown defense 'prun' (did you mean 'prune'?)"),
        (run, "--model resnet-20", "Unknown model 'resnet-20' (did you mean 'resnet20'?)"),
        (run, "--defense none extra=1 --foo", "There is no option --foo; see"),
        (assets, "fetc all", "has no 'fetc' (did you mean 'fetch'?)"),
        (assets, "export --hlf DIR", "There is no option --hlf (did you mean --half?)"),
        (assets, "fetch cifar100", "Unknown asset 'cifar100' (did you mean 'cifar10'?)"),
        (assets, "", "needs a word: give one of list, fetch"),
    ],
)
def test_other_words(main, line, expected, capsys):
    assert expected in refused(capsys, main, *line.split())
