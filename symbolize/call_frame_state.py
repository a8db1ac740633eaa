"""The state that call frame instructions add up to, at many places of many programs at once.

For each of the values, the instructions that set it are numbered. A place has the value of the last
one up to it. After restore_state that is the last one up to the remember_state that belongs to it:

    number   1                        2                    3                        3 is 1
             def_cfa_offset 16        def_cfa_offset 8     restore_state
                      remember_state        |                   |
                                       a place: 8          a place: 16

Source: DWARF 5, section 6.4.2.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pyprof.symbolize import call_frame_ops as op
from pyprof.symbolize.arrays import np
from pyprof.symbolize.call_frame_changes import Change, State
from pyprof.symbolize.call_frame_ops import Operations

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Brackets(NamedTuple):
    """The restore_state instructions, as indices of operations."""

    restores: NDArray[np.int64]
    remembers: NDArray[np.int64]  # the remember_state that belongs to each
    unmatched: NDArray[np.int64]  # restore_states without one


def state_brackets(ops: Operations) -> Brackets:
    """Return which remember_state each restore_state belongs to.

    In one program at one depth the two alternate, so the one before a restore_state is the one.
    """
    events = np.flatnonzero((ops.kinds == op.REMEMBER_STATE) | (ops.kinds == op.RESTORE_STATE))
    is_remember = ops.kinds[events] == op.REMEMBER_STATE
    depths = np.cumsum(np.where(is_remember, 1, -1)) - is_remember  # outside of the bracket
    programs = ops.programs[events]
    order = np.lexsort((depths, programs))
    events, is_remember, depths, programs = (x[order] for x in (events, is_remember, depths, programs))
    is_matched = np.zeros(len(events), np.bool_)
    is_one = (depths[1:] == depths[:-1]) & (programs[1:] == programs[:-1])
    is_matched[1:] = is_one & is_remember[:-1] & ~is_remember[1:]
    matched = np.flatnonzero(is_matched)
    return Brackets(events[matched], events[matched - 1], events[~is_matched & ~is_remember])


def states_at(
    ops: Operations,
    changes: tuple[Change, ...],
    initial: State,
    brackets: Brackets,
    wanted: NDArray[np.int64],
) -> State:
    """Return the states after some instructions, given by their indices.

    `changes` are in the order of State; `initial` is what each program starts with.
    """
    columns = zip(changes, (column for column in initial if column is not None), strict=True)
    return State(*(_values_at(ops, change, start, brackets, wanted) for change, start in columns))


def _values_at(
    ops: Operations,
    change: Change,
    start: NDArray[np.int64],
    brackets: Brackets,
    wanted: NDArray[np.int64],
) -> NDArray[np.int64]:
    if not len(change.operations):
        return start[ops.programs[wanted]]
    sets = np.zeros(len(ops.kinds), np.bool_)
    for operations in (change.operations, ops.firsts, brackets.restores):
        sets[operations] = True
    numbers = np.cumsum(sets) - 1
    values = np.zeros(numbers[-1] + 1, np.int64)
    values[numbers[change.operations]] = change.values
    values[numbers[ops.firsts]] = start
    if len(brackets.restores):
        values = values[_sources(len(values), numbers[brackets.restores], numbers[brackets.remembers])]
    chosen: NDArray[np.int64] = values[numbers[wanted]]
    return chosen


def _sources(count: int, restores: NDArray[np.int64], remembers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number whose value each number has: its own but for a restore_state's.

    What a restore_state goes back to can be one itself; each round doubles how many steps are taken.
    """
    sources = np.arange(count)
    sources[restores] = remembers
    while True:
        further = sources[sources[restores]]
        if np.array_equal(further, sources[restores]):
            return sources
        sources[restores] = further
