"""What a decorator refuses: it stands in a file of somebody else, who has to see what is wrong with it."""

import pytest

from attacks.base import Attack, attack
from defenses import PostProcessor, defense
from dpbench.cell.threat_model import ThreatModel, threat_model
from dpbench.data import dataset
from dpbench.generators import generator
from dpbench.metrics import metric
from dpbench.protocol import parameter
from dpbench.report.plots import plot
from dpbench.victim import network


def unfinished(base):
    """A new class that defines nothing: the method that makes it a part was forgotten or misspelt."""
    return type("Unfinished", (base,), {"__module__": "mine"})


@pytest.mark.parametrize(
    ("decorator", "base", "method"),
    [
        (attack("mine"), Attack, "run"),
        (defense("mine"), PostProcessor, "process"),
        (threat_model("mine"), ThreatModel, "run"),
    ],
)
def test_a_class_without_its_method(decorator, base, method):
    with pytest.raises(TypeError, match=rf"^mine.Unfinished lacks a method: define {method}\.$"):
        decorator(unfinished(base))


@pytest.mark.parametrize(
    ("decorator", "item", "base"),
    [
        (attack("mine"), unfinished(PostProcessor), "Attack"),
        (attack("mine"), type("Unfinished", (), {"__module__": "mine"}), "Attack"),
        (defense("mine"), unfinished(Attack), "Defense"),
        (defense("mine"), lambda gradients: gradients, "Defense"),
        (threat_model("mine"), unfinished(Attack), "ThreatModel"),
    ],
)
def test_what_is_of_another_kind(decorator, item, base):
    with pytest.raises(TypeError, match=rf"has to be a class derived from {base}\.$"):
        decorator(item)


DECORATORS = {
    "attack": attack,
    "dataset": dataset,
    "defense": defense,
    "generator": generator,
    "network": network,
    "plot": plot,
    "threat_model": threat_model,
}


@pytest.mark.parametrize("name", DECORATORS)
def test_a_decorator_without_its_name(name):
    with pytest.raises(TypeError, match=rf'^mine.Unfinished needs a name: write @{name}\("NAME"\) above it'):
        DECORATORS[name](unfinished(Attack))


@pytest.mark.parametrize("name", ["", " ", "-mine", "a+b", "a/b", "a:b", "a,b", "a\nb", "a\\b"])
def test_a_name_that_could_not_be_typed(name):
    with pytest.raises(ValueError, match=r"is no defense's name: take one that begins with a letter"):
        defense(name)(unfinished(PostProcessor))


@pytest.mark.parametrize(
    ("decorator", "base", "name"), [(attack, Attack, "all"), (defense, PostProcessor, "none")]
)
def test_a_name_that_means_something_else(decorator, base, name):
    with pytest.raises(ValueError, match=f"'{name}' means something else where {decorator.__name__}s"):
        decorator(name)(unfinished(base))


def test_a_metric_needs_a_name_of_its_own():
    with pytest.raises(ValueError, match="is no metric's name"):
        metric("a/b", columns=())(lambda scored: {})


@pytest.mark.parametrize(
    ("kind", "default", "said"),
    [
        (int, "four", "must be a whole number, not 'four'"),
        (float, None, "must be a number, not None"),
        (int, 17, "must be at most 16, not 17"),
    ],
)
def test_a_default_that_the_parameter_may_not_have(kind, default, said):
    body = {"__module__": "mine", "__annotations__": {"mine_bits": kind}}
    body |= {"mine_bits": parameter(default, "bits of mine", at_most=16), "process": lambda self, *_: None}
    with pytest.raises(TypeError, match=rf"^The default of a .* that it may have: `mine_bits` {said}\.$"):
        defense("mine")(type("Mine", (PostProcessor,), body))
