import pytest

from attacks.gradinversion import GradInversion
from dpbench.tune.search import Search
from dpbench.tune.space import Choice, Range, described, space

LINE = {"x": Range(0.1, 10.0, log=True, whole=False), "n": Range(1, 5, log=False, whole=True)}


def values(count, seed=0, results=lambda asked: asked["x"]):
    search, found = Search(LINE, higher=True, seed=seed), []
    for _ in range(count):
        found.append(search.ask())
        search.tell(results(found[-1]))
    return found


def test_the_same_results_lead_the_same_way_and_other_results_another():
    assert values(14) == values(14)
    other = values(14, results=lambda asked: -asked["x"])
    assert values(14)[:8] == other[:8]
    assert values(14)[8:] != other[8:]
    assert values(3, seed=1) != values(3)


def test_numbers_are_short_and_lie_in_their_range():
    for found in values(20):
        assert 0.1 <= found["x"] <= 10
        assert float(f"{found['x']:.3g}") == found["x"]
        assert found["n"] in range(1, 6)


def test_what_failed_is_no_result():
    search = Search(LINE, higher=True, seed=0)
    search.ask()
    search.tell(None)
    asked = search.ask()
    search.tell(1.0)
    assert search.best == asked


def test_a_word_is_one_of_its_choices():
    searched = space(GradInversion, ["matching"])
    assert searched == {"matching": Choice(("layer-l2", "cosine"))}
    assert described(searched) == {"matching": {"values": ["layer-l2", "cosine"]}}
    search, found = Search(searched, higher=False, seed=0), set()
    for _ in range(12):
        found.add(search.ask()["matching"])
        search.tell(float(len(found)))
    assert found == {"layer-l2", "cosine"}


@pytest.mark.parametrize("higher", [True, False])
def test_the_better_end_is_found(higher):
    search = Search({"x": Range(0.0, 1.0, log=False, whole=False)}, higher=higher, seed=3)
    for _ in range(25):
        search.tell(search.ask()["x"])
    assert search.best["x"] == pytest.approx(float(higher), abs=0.1)
