"""Extents, held against an array of which each entry is free or not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyprof.profiler.extents import Extents

CAPACITY = 24


class Naive:
    """An array that knows of each entry whether it is free."""

    def __init__(self, capacity: int) -> None:
        self.is_free = [True] * capacity

    def allocate(self, count: int) -> int | None:
        for first in range(len(self.is_free) - count + 1):
            if all(self.is_free[first : first + count]):
                self.is_free[first : first + count] = [False] * count
                return first
        return None

    def free(self, first: int, count: int) -> None:
        assert not any(self.is_free[first : first + count])
        self.is_free[first : first + count] = [True] * count


def longest(extents: Extents) -> int:
    """Return the length of the longest free stretch."""
    for count in range(CAPACITY, 0, -1):
        first = extents.allocate(count)
        if first is not None:
            extents.free(first, count)
            return count
    return 0


@given(st.lists(st.one_of(st.integers(0, CAPACITY + 1), st.just("free")), max_size=60), st.randoms())
def test_stretches_are_those_of_an_array_that_is_searched_from_its_start(
    steps: list[int | str], random: object
) -> None:
    extents, naive = Extents(CAPACITY), Naive(CAPACITY)
    taken: list[tuple[int, int]] = []
    for step in steps:
        if isinstance(step, int):
            first = extents.allocate(step)
            assert first == naive.allocate(step)
            if first is not None:
                taken.append((first, step))
        elif taken:
            stretch = taken.pop(random.randrange(len(taken)))  # type: ignore[attr-defined]
            extents.free(*stretch)
            naive.free(*stretch)
    for stretch in taken:
        extents.free(*stretch)
    assert longest(extents) == CAPACITY


def test_first_stretch_that_fits_is_given() -> None:
    extents = Extents(10)
    assert [extents.allocate(count) for count in (3, 4, 3)] == [0, 3, 7]
    extents.free(7, 3)
    extents.free(0, 3)
    assert extents.allocate(2) == 0
    assert extents.allocate(2) == 7


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_neighbours_become_one_in_whatever_order_they_come_back(order: tuple[int, ...]) -> None:
    extents = Extents(CAPACITY)
    for _ in range(3):
        extents.allocate(8)
    for index in order:
        extents.free(8 * index, 8)
    assert extents.allocate(CAPACITY) == 0


def test_stretch_that_is_nowhere_free_is_refused_and_costs_nothing() -> None:
    extents = Extents(10)
    extents.allocate(6)
    assert extents.allocate(5) is None
    assert extents.allocate(4) == 6
    assert extents.allocate(1) is None


def test_nothing_is_always_there_and_takes_no_room() -> None:
    extents = Extents(1)
    extents.allocate(1)
    assert extents.allocate(0) == 0
    extents.free(0, 0)
    assert extents.allocate(1) is None
