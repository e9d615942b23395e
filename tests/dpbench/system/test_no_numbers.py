"""What an option takes instead is said in our words, not in those of the parser."""

from dataclasses import dataclass
from typing import Literal

import pytest

from dpbench.protocol import InputError
from dpbench.system.command_line import read


@dataclass(frozen=True)
class Numbers:
    """Some options."""

    size: int = 1
    step: float = 1.0
    eps: tuple[float, ...] = ()
    seed: int | None = None
    batch: Literal["batch"] | int = 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--size=1.5", "--size takes a whole number, not '1.5'"),
        ("--size=", "--size takes a whole number, not ''"),
        ("--size", "--size needs a value"),
        ("--step=much", "--step takes a number, not 'much'"),
        ("--step=it's", '--step takes a number, not "it\'s"'),
        ("--eps=", "--eps does not take ''"),
        ("--seed=nan", "--seed takes a whole number, not 'nan'"),
        ("--batch=all", "--batch takes a whole number or batch, not 'all'"),
    ],
)
def test_no_number(words, said):
    with pytest.raises(InputError) as caught:
        read(Numbers, [words], "words")
    assert str(caught.value) == f"{said}; see words --help."
