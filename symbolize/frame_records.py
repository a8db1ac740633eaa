"""Where the records of a frame section lie: its CIEs and FDEs one after the other.

    14 00 00 00 | 00 00 00 00 | 01 7a 52 00 ...                 length, CIE: its id in .eh_frame is 0
    10 00 00 00 | 1c 00 00 00 | a0 d1 ff ff 1a 00 00 00 ...     length, FDE: its CIE is 0x1c before this word
    ff ff ff ff | 20 00 00 00 00 00 00 00 | ...                 a length of 64 bits
    00 00 00 00                                                 the end, or padding between two files' parts

In .debug_frame a CIE has the id 0xffffffff, and the id of an FDE is the place of its CIE in the section.

Source: LSB 5.0 core, section 10.6.1 (.eh_frame); DWARF 5, section 6.4.1 (.debug_frame).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from pyprof.symbolize.arrays import np
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.leb128 import NUMBER_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

# After a section, so that what is read at its last byte stays inside: an instruction has two numbers at most.
PADDING = np.zeros(3 * NUMBER_BYTES, np.uint8)

_RECORD_LIMIT = 2_000_000  # of one section; a browser has half a million
_LONG = 0xFFFFFFFF  # as a length: the length is the next 8 bytes
_LENGTH = struct.Struct("<I").unpack_from
_LONG_LENGTH = struct.Struct("<Q").unpack_from


class Records(NamedTuple):
    """The records of a section in its order. All are places in the section."""

    ids: NDArray[np.int64]  # of the word that tells a CIE from an FDE
    bodies: NDArray[np.int64]  # of the byte after that word
    limits: NDArray[np.int64]  # of the byte after the record
    is_cie: NDArray[np.bool_]
    cies: NDArray[np.int64]  # of the start of an FDE's CIE, as the FDE claims
    starts: NDArray[np.int64]


def frame_records(code: NDArray[np.uint8], is_debug_frame: bool) -> Records:
    """Return the records of a section, which is followed by PADDING in `code`.

    A record that leads outside ends them. Raises: SymbolizeError when there are too many.
    """
    starts = np.fromiter(record_starts(code[: -len(PADDING)].data), np.int64)
    lengths = words(code, "<u4")[starts].astype(np.int64)
    is_long = lengths == _LONG
    ids = starts + np.where(is_long, 12, 4)
    limits = ids + np.where(is_long, words(code, "<i8")[starts + 4], lengths)
    id_bytes = np.where(is_long & is_debug_frame, 8, 4)
    whole = limits - ids >= id_bytes
    starts, ids, limits, id_bytes = starts[whole], ids[whole], limits[whole], id_bytes[whole]
    values = words(code, "<i4")[ids].astype(np.int64)
    is_wide = id_bytes == 8
    values[is_wide] = words(code, "<i8")[ids[is_wide]]
    cies = np.where(is_wide, values, values & _LONG) if is_debug_frame else ids - values
    return Records(ids, ids + id_bytes, limits, values == (-1 if is_debug_frame else 0), cies, starts)


def record_starts(section: memoryview, *, ends_at_zero: bool = False) -> Iterator[int]:
    """Yield where the records of a section start, those of length 0 left out.

    Raises: SymbolizeError when there are too many.
    """
    position, section_limit = 0, len(section)
    for _ in range(_RECORD_LIMIT):
        if position + 12 > section_limit:
            return
        (length,) = _LENGTH(section, position)
        following = position + 4 + length
        if length == _LONG:
            following = position + 12 + _LONG_LENGTH(section, position + 4)[0]
        if following > section_limit or (length == 0 and ends_at_zero):
            return
        if length:
            yield position
        position = following
    raise SymbolizeError(f"more than {_RECORD_LIMIT} records of call frame information")


def words(code: NDArray[np.uint8], form: str) -> NDArray[np.int64]:
    """Return a view of the number that starts at each byte, for gathers: words(code, "<u4")[places]."""
    count = len(code) - np.dtype(form).itemsize + 1
    view: NDArray[np.int64] = np.ndarray((count,), form, code, strides=(1,))
    return view
