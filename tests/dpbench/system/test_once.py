"""Results that are kept while a report is made."""

import pytest

from dpbench.system.once import kept, once


@pytest.fixture
def counted():
    calls = []

    @once
    def length(given, more=0):
        calls.append(more)
        return [len(given) + more]

    return length, calls


def test_it_is_computed_once_within_and_each_time_outside(counted):
    length, calls = counted
    table = [1, 2, 3]
    assert length(table) == length(table) == [3]
    assert len(calls) == 2
    with kept():
        assert length(table) is length(table)
    assert len(calls) == 3
    with kept():
        length(table)
    assert len(calls) == 4


def test_equal_objects_are_not_the_same_and_other_arguments_count(counted):
    length, calls = counted
    first, second = [1], [1]
    with kept():
        assert length(first) == length(second) == [1]
        assert length(first, 2) == length(first, more=2) == [3]
    assert calls == [0, 0, 2, 2]


def test_an_object_that_is_gone_is_not_taken_for_one_that_came_to_its_place(counted):
    length, _ = counted
    with kept():
        assert [length([0] * size)[0] for size in range(50)] == list(range(50))


def test_it_ends_with_the_outermost_and_with_an_error(counted):
    length, calls = counted
    table = [1]
    with kept():
        with kept():
            length(table)
        length(table)
    assert len(calls) == 1
    with pytest.raises(ZeroDivisionError), kept():
        raise ZeroDivisionError
    length(table)
    length(table)
    assert len(calls) == 3


def test_what_fails_is_tried_again():
    calls = []

    @once
    def failing(given):
        calls.append(given)
        raise ValueError("again")

    with kept():
        for _ in range(2):
            with pytest.raises(ValueError, match="again"):
                failing("table")
    assert len(calls) == 2
