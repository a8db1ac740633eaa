"""The instructions of call frame programs: where each of them starts, for thousands of programs at once.

    41           advance_loc 1             the upper two bits are the instruction, the lower six an operand
    0e 10        def_cfa_offset 16
    86 02        offset r6 (rbp), 2        saved at CFA + 2 * data alignment
    0a           remember_state
    0f 02 77 08  def_cfa_expression        a block: its size, its bytes

Programs lie apart in the section, so marking the bytes where an instruction starts also puts them in order.

Source: DWARF 5, section 6.4.2 and 7.24; LSB 5.0 core, section 10.5 (GNU_args_size).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pyprof.symbolize.arrays import np
from pyprof.symbolize.call_frames import Programs
from pyprof.symbolize.frame_records import PADDING
from pyprof.symbolize.leb128 import unsigned_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Kinds of instruction: those with an operand in the byte by their upper bits, others by the byte.
ADVANCE, OFFSET, RESTORE = 0x40, 0x80, 0xC0
ADVANCE_FORMS = {0x02: "u1", 0x03: "<u2", 0x04: "<u4"}  # advance_loc1, 2 and 4: the numbers after them
OFFSET_EXTENDED, RESTORE_EXTENDED, UNDEFINED, SAME_VALUE, REGISTER = 0x05, 0x06, 0x07, 0x08, 0x09
REMEMBER_STATE, RESTORE_STATE = 0x0A, 0x0B
DEF_CFA, DEF_CFA_REGISTER, DEF_CFA_OFFSET, DEF_CFA_EXPRESSION = 0x0C, 0x0D, 0x0E, 0x0F
EXPRESSION, OFFSET_EXTENDED_SF, DEF_CFA_SF, DEF_CFA_OFFSET_SF = 0x10, 0x11, 0x12, 0x13
VAL_OFFSET, VAL_OFFSET_SF, VAL_EXPRESSION, GNU_ARGS_SIZE = 0x14, 0x15, 0x16, 0x2E
START = 0x3F  # ours: before the first instruction of each program
UNKNOWN = 0x3E  # ours: ends the program. Also set_loc, which no compiler writes

_NOP = 0x00
_FAR = 1 << 40  # from an unknown instruction to the next
_FIXED = {_NOP: 1, REMEMBER_STATE: 1, RESTORE_STATE: 1, 0x02: 2, 0x03: 3, 0x04: 5}  # bytes
_ONE_NUMBER = (
    *(RESTORE_EXTENDED, UNDEFINED, SAME_VALUE, DEF_CFA_REGISTER, DEF_CFA_OFFSET, DEF_CFA_OFFSET_SF),
    GNU_ARGS_SIZE,
)
_TWO_NUMBERS = (
    *(OFFSET_EXTENDED, REGISTER, DEF_CFA, OFFSET_EXTENDED_SF, DEF_CFA_SF, VAL_OFFSET, VAL_OFFSET_SF),
)
_NUMBER_AND_BLOCK = (EXPRESSION, VAL_EXPRESSION)
_FEW = 64  # programs; with fewer an array operation costs more than a Python loop
_MANY_BYTES = 64 << 10  # of few programs; with more a loop costs more than jumps over many instructions
_DOUBLINGS = 5  # of a jump


class Operations(NamedTuple):
    """The instructions of some programs, in order, each program's after a START."""

    places: NDArray[np.int64]  # in the code; of a START the byte before
    kinds: NDArray[np.uint8]
    programs: NDArray[np.int64]  # index of the program of each
    firsts: NDArray[np.int64]  # index of the START of each program
    is_broken: NDArray[np.bool_]  # UNKNOWN, or it goes on after the program's limit: the last of its program


def operations(code: NDArray[np.uint8], programs: Programs) -> Operations:
    """Return the instructions of some programs, all of them PADDING or more before the end of `code`."""
    following = _following(code)
    is_start = _marks(following, programs)
    places = np.flatnonzero(is_start)
    kinds = _KINDS[code[places]]
    firsts = np.searchsorted(places, programs.starts - 1)
    kinds[firsts] = START
    counts = np.diff(firsts, append=len(places))
    indices = np.repeat(np.arange(len(counts)), counts)
    is_broken = following[places] > programs.limits[indices]
    is_broken[firsts] = False
    return Operations(places, kinds, indices, firsts, is_broken)


def _marks(following: NDArray[np.int64], programs: Programs) -> NDArray[np.bool_]:
    """Return which bytes start an instruction, or precede a program."""
    marks = np.zeros(len(following), np.bool_)
    marks[programs.starts - 1] = True
    is_left = programs.starts < programs.limits
    places, limits = programs.starts[is_left], programs.limits[is_left]
    while len(places) > _FEW:
        marks[places] = True
        places = following[places]
        is_left = places < limits
        if not is_left.all():
            places, limits = places[is_left], limits[is_left]
    if (limits - places).sum() > _MANY_BYTES:
        marks[_far_places(following, places, limits)] = True
    else:
        marks[_walk(following, places, limits)[0]] = True
    return marks


def _walk(
    following: NDArray[np.int64], starts: NDArray[np.int64], limits: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places from each start on up to its limit, and the limit of each."""
    places: list[int] = []
    counts, jump = [], following.data
    for start, limit in zip(starts.tolist(), limits.tolist(), strict=True):
        place, before = start, len(places)
        while place < limit:
            places.append(place)
            place = jump[place]
        counts.append(len(places) - before)
    return np.array(places, np.int64), np.repeat(limits, counts)


def _far_places(
    following: NDArray[np.int64], starts: NDArray[np.int64], limits: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return what _walk does, by jumps over 32 instructions first, then over 16, 8 and so on."""
    jumps = [np.minimum(following, len(following) - 1)]  # the last byte is in no program
    for _ in range(_DOUBLINGS):
        jumps.append(jumps[-1][jumps[-1]])
    places, limits = _walk(jumps.pop(), starts, limits)
    for jump in reversed(jumps):
        further = jump[places]
        is_inside = further < limits
        places = np.concatenate([places, further[is_inside]])
        limits = np.concatenate([limits, limits[is_inside]])
    return places


def _following(code: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return for each byte where the next instruction starts, if one starts at this byte."""
    last = len(code) - len(PADDING)
    ends, shapes = _number_ends(code), _SHAPES[code]
    following: NDArray[np.int64] = np.arange(len(code)) + _LENGTHS[code]
    np.copyto(following[:-1], ends[1:], where=shapes[:-1] == _ONE)
    two, block, number_and_block = (
        np.flatnonzero(shapes[:last] == n) for n in (_TWO, _BLOCK, _ONE_AND_BLOCK)
    )
    following[two] = ends[np.minimum(ends[two + 1], last)]
    for places, operands in ((block, block + 1), (number_and_block, ends[number_and_block + 1])):
        size = unsigned_numbers(code, np.minimum(operands, last))
        following[places] = size.limits + size.values
    return following


def _number_ends(code: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return for each byte the place after the LEB128 number that starts there."""
    ends = np.arange(1, len(code) + 1)
    ends[code >= 0x80] = len(code)
    return np.minimum.accumulate(ends[::-1])[::-1]


def _kinds() -> NDArray[np.uint8]:
    """Return the kind of instruction for each byte."""
    kinds = np.arange(256).astype(np.uint8)
    kinds[0x40:] &= 0xC0
    known = (*_FIXED, *_ONE_NUMBER, *_TWO_NUMBERS, *_NUMBER_AND_BLOCK, DEF_CFA_EXPRESSION)
    kinds[[byte for byte in range(0x40) if byte not in known]] = UNKNOWN
    return kinds


def _lengths() -> NDArray[np.int64]:
    """Return for each byte the size of the instruction if it has no number in it, _FAR for an unknown one."""
    lengths = np.where(_KINDS == UNKNOWN, _FAR, 1)
    for kind, size_bytes in _FIXED.items():
        lengths[kind] = size_bytes
    return lengths


def _shapes() -> NDArray[np.uint8]:
    """Return for each byte what operands the instruction has besides those of a fixed size."""
    shapes = np.zeros(256, np.uint8)
    shapes[_KINDS == OFFSET] = _ONE
    shapes[list(_ONE_NUMBER)] = _ONE
    shapes[list(_TWO_NUMBERS)] = _TWO
    shapes[DEF_CFA_EXPRESSION] = _BLOCK
    shapes[list(_NUMBER_AND_BLOCK)] = _ONE_AND_BLOCK
    return shapes


_ONE, _TWO, _BLOCK, _ONE_AND_BLOCK = 1, 2, 3, 4  # LEB128 numbers, a block, both
_KINDS = _kinds()
_LENGTHS = _lengths()
_SHAPES = _shapes()
