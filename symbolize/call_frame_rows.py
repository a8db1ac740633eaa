"""The rows of call frame programs: from where on in a function which rule holds.

    41          advance_loc 1          row 0    the CIE's rule: CFA = rsp + 8
    0e 10       def_cfa_offset 16
    86 02       offset rbp             row 1    CFA = rsp + 16, rbp at CFA - 16
    43          advance_loc 3
    0d 06       def_cfa_register rbp   row 4    CFA = rbp + 16, rbp at CFA - 16

No program is run. Thousands are looked at together; a row is what holds at the last instruction before
one that advances.

Source: DWARF 5, section 6.4; gcc libgcc/unwind-dw2.c (execute_cfa_program).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from pyprof.symbolize import call_frame_ops as op
from pyprof.symbolize.arrays import np
from pyprof.symbolize.call_frame_changes import Expressions, State, initial_state, state_changes
from pyprof.symbolize.call_frame_ops import Operations, operations
from pyprof.symbolize.call_frame_state import state_brackets, states_at
from pyprof.symbolize.call_frames import CallFrames, Programs
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.frame_records import PADDING, words
from pyprof.symbolize.unwind_key import is_any_cfa_in_rbx, rule_keys
from pyprof.symbolize.unwind_rule import Cfa

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROW_LIMIT = 1 << 22  # of one file; the largest libraries of compilers have a million

_SLICE_BYTES = 256 << 10  # of programs that are looked at together: what fits the processor's cache
_KEPT_BYTES = 24 << 20  # more than the arrays of a slice; glibc's own limit is 32 MiB
_PROGRAM_LIMIT = 64 << 10  # bytes of one program; the longest real ones have some thousands
_RBX_LIMIT = 16 << 20  # bytes of a section that is looked at once more for rbx; real ones have 1 MB


class Rows(NamedTuple):
    """Rows of many FDEs, in the order of the FDEs and ascending in each."""

    frames: NDArray[np.int64]  # index of the FDE
    places: NDArray[np.int64]  # bytes from the start of its code
    keys: NDArray[np.uint64]  # of the rules, see unwind_key.py


class _Cies(NamedTuple):
    """What the programs of FDEs need of their CIEs, one number each."""

    states: State  # after their programs
    code_alignments: NDArray[np.int64]
    data_alignments: NDArray[np.int64]
    is_signal: NDArray[np.bool_]
    is_known: NDArray[np.bool_]  # False: nothing is known about frames of its FDEs


class _Slice(NamedTuple):
    """FDEs that are looked at together."""

    programs: Programs
    sizes: NDArray[np.int64]  # bytes of code
    is_known: NDArray[np.bool_]  # False: all rows are Cfa.UNSUPPORTED


def call_frame_rows(frames: CallFrames, sizes: NDArray[np.int64], expressions: Expressions) -> Rows:
    """Return the rows of all FDEs, as far as their code goes.

    `sizes` are the bytes of code that each is for. Expressions found are added to `expressions`. Where a
    program is not understood, its rows from there on have the rule Cfa.UNSUPPORTED. What becomes of rbx is
    told only if a CFA is relative to it: nearly no file needs it, and the others have fewer rules without.

    Raises: SymbolizeError for more than ROW_LIMIT rows.
    """
    if not len(sizes):
        return Rows(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint64))
    _keep_freed_memory()
    rows = _all_rows(frames, sizes, _cies(frames, expressions, follows_rbx=False), expressions)
    if len(frames.code) <= _RBX_LIMIT and is_any_cfa_in_rbx(rows.keys):
        rows = _all_rows(frames, sizes, _cies(frames, expressions, follows_rbx=True), expressions)
    return rows


def _keep_freed_memory() -> None:
    """Make malloc keep the memory of one slice for the next.

    glibc gives freed memory back to the kernel, but for blocks up to the largest that was ever freed (man 3
    mallopt, M_MMAP_THRESHOLD). Without this a slice is full of page faults and takes up to twice as long.
    """
    np.empty(_KEPT_BYTES, np.uint8)


def _all_rows(frames: CallFrames, sizes: NDArray[np.int64], cies: _Cies, expressions: Expressions) -> Rows:
    is_long = frames.programs.limits - frames.programs.starts > _PROGRAM_LIMIT
    all_programs = frames.programs._replace(
        limits=np.where(is_long, frames.programs.starts, frames.programs.limits)
    )
    parts, count = [], 0
    for first, limit in _slices(all_programs):
        programs = all_programs.slice(first, limit)
        is_known = cies.is_known[programs.cies] & ~is_long[first:limit]
        rows = _rows(frames.code, _Slice(programs, sizes[first:limit], is_known), cies, expressions)
        parts.append(Rows(rows.frames + first, rows.places, rows.keys))
        count += len(rows.keys)
        if count > ROW_LIMIT:
            raise SymbolizeError(f"more than {ROW_LIMIT} rows of call frame information")
    return Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _slices(programs: Programs) -> Iterator[tuple[int, int]]:
    """Yield ranges of programs that lie within _SLICE_BYTES, at least one in each."""
    first = 0
    while first < len(programs.starts):
        limit = int(np.searchsorted(programs.limits, programs.starts[first] + _SLICE_BYTES, "right"))
        limit = max(limit, first + 1)
        yield first, limit
        first = limit


def _cies(frames: CallFrames, expressions: Expressions, *, follows_rbx: bool) -> _Cies:
    """Return the state after the program of each CIE.

    One that does what belongs into FDEs only, or nobody does, is not known.
    """
    count = len(frames.cies)
    code_alignments = np.array([cie.code_alignment for cie in frames.cies], np.int64)
    data_alignments = np.array([cie.data_alignment for cie in frames.cies], np.int64)
    is_known = np.array([cie.is_supported for cie in frames.cies], np.bool_)
    is_signal = np.array([cie.is_signal for cie in frames.cies], np.bool_)
    ops = operations(frames.cie_code, frames.cie_programs)
    start = initial_state(count, follows_rbx=follows_rbx)
    changes = state_changes(frames.cie_code, ops, data_alignments, start, expressions)
    lasts = np.append(ops.firsts[1:], len(ops.kinds)) - 1
    states = states_at(ops, changes, start, state_brackets(ops), lasts)
    is_odd = ops.is_broken | np.isin(
        ops.kinds, (op.ADVANCE, *op.ADVANCE_FORMS, op.REMEMBER_STATE, op.RESTORE_STATE)
    )
    is_known[ops.programs[is_odd]] = False
    return _Cies(states, code_alignments, data_alignments, is_signal, is_known)


def _rows(code: NDArray[np.uint8], fdes: _Slice, cies: _Cies, expressions: Expressions) -> Rows:
    """Return the rows of some programs, without those that say what the one before said."""
    programs = fdes.programs
    base = programs.starts[0] - 1
    code = code[base : programs.limits[-1] + len(PADDING)]
    ops = operations(code, Programs(programs.starts - base, programs.limits - base, programs.cies))
    ends, places = _row_ends(code, ops, cies.code_alignments[programs.cies], fdes.sizes)
    initial = State(*(column[programs.cies] for column in cies.states if column is not None))
    changes = state_changes(code, ops, cies.data_alignments[programs.cies], initial, expressions)
    brackets = state_brackets(ops)
    frames = ops.programs[ends]
    states = states_at(ops, changes, initial, brackets, ends)
    keys = rule_keys(states, cies.is_signal[programs.cies][frames], expressions)
    failures = np.concatenate([np.flatnonzero(ops.is_broken), brackets.unmatched])
    keys[~fdes.is_known[frames] | _is_after(failures, ops, ends)] = Cfa.UNSUPPORTED
    is_new = np.ones(len(keys), np.bool_)
    is_new[1:] = (keys[1:] != keys[:-1]) | (frames[1:] != frames[:-1])
    return Rows(frames[is_new], places[is_new], keys[is_new])


def _row_ends(
    code: NDArray[np.uint8], ops: Operations, alignments: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the last instruction of each row, and where in the function the row starts."""
    advances = _advances(code, ops) * alignments[ops.programs]
    is_last = np.ones(len(advances), np.bool_)
    is_last[:-1] = (advances[1:] != 0) | (ops.kinds[1:] == op.START)
    ends = np.flatnonzero(is_last)
    elapsed = np.cumsum(advances)
    places = elapsed[ends] - elapsed[ops.firsts][ops.programs[ends]]
    is_inside = places < sizes[ops.programs[ends]]
    return ends[is_inside], places[is_inside]


def _advances(code: NDArray[np.uint8], ops: Operations) -> NDArray[np.int64]:
    """Return how far each instruction advances, in units of the code alignment."""
    advances = np.where(ops.kinds == op.ADVANCE, code[ops.places] & 0x3F, 0).astype(np.int64)
    for kind, form in op.ADVANCE_FORMS.items():
        chosen = np.flatnonzero(ops.kinds == kind)
        advances[chosen] = words(code, form)[ops.places[chosen] + 1]
    advances[ops.is_broken] = 0
    return advances


def _is_after(failures: NDArray[np.int64], ops: Operations, wanted: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which instructions come after a failure, or are one, in their program."""
    if not len(failures):
        return np.zeros(len(wanted), np.bool_)
    has_failed = np.zeros(len(ops.kinds), np.int64)
    has_failed[failures] = 1
    counts = np.cumsum(has_failed)
    is_after: NDArray[np.bool_] = counts[wanted] > counts[ops.firsts][ops.programs[wanted]]
    return is_after
