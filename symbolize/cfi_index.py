"""Where the FDEs of an ELF file lie, by the start of their code: from its own table, or by reading all.

.eh_frame_hdr holds a table that is sorted by start:

    01 1b 03 3b               version; encodings of the pointer to .eh_frame, of the count, of the table
    e8 0c 00 00               .eh_frame, relative to these four bytes
    2a 00 00 00               number of rows
    20 f0 ff ff  04 01 00 00  start of code and its FDE, relative to the start of .eh_frame_hdr

Source: Linux Standard Base Core 5.0, 10.6.2 ".eh_frame_hdr"; gcc, libgcc/unwind-dw2-fde-dip.c
(_Unwind_IteratePhdrCallback) and unwind-dw2-fde.c (linear_search_fdes).
"""

import struct
from array import array
from bisect import bisect_right
from typing import NamedTuple

from pyprof.symbolize.cfi_entry import (
    FrameSection,
    RawEntry,
    body_cursor,
    code_bounds,
    common_entry,
    raw_entry,
)
from pyprof.symbolize.dwarf_cursor import DwarfCursor
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.layout import PT_LOAD, Image, Layout

_PT_GNU_EH_FRAME = 0x6474E550
_DATAREL_SDATA4 = 0x3B
_HEADER_LIMIT = 32  # bytes; more than the part before the table can have
_BOUNDS_LIMIT = 32  # bytes; more than the bounds of an FDE can have
_ROW_BYTES = 8
_SCAN_LIMIT = 1 << 18  # entries that are read one after the other; larger files have a table
_NUMBER = struct.Struct("<i")


class Place(NamedTuple):
    """Where an FDE is."""

    position: int  # file offset
    section: FrameSection


class SearchTable(NamedTuple):
    """The table of .eh_frame_hdr, read in place."""

    image: Image
    segments: tuple[FrameSection, ...]  # where the file is loaded; the FDEs are in one of them
    base: int  # virtual offset that the rows are relative to
    file_offset: int  # of the first row
    row_count: int
    frames_start: int  # virtual offset of .eh_frame

    def place_at(self, target: int) -> Place | None:
        """Return the FDE of the last start at or below a virtual offset; it may end before that."""
        wanted = target - self.base
        low, high = 0, self.row_count  # rows before `low` are at or below the target, from `high` on above it
        while low < high:
            middle = (low + high) // 2
            if self._number(_ROW_BYTES * middle) <= wanted:
                low = middle + 1
            else:
                high = middle
        if low == 0:
            return None
        return place_of(self.segments, self.base + self._number(_ROW_BYTES * (low - 1) + 4))

    def _number(self, distance: int) -> int:
        return int(_NUMBER.unpack_from(self.image, self.file_offset + distance)[0])


class ScannedTable:
    """The FDEs of one section, found by reading all of it once."""

    def __init__(self, image: Image, section: FrameSection) -> None:
        """Read up to 262,144 entries, or to the first whose size cannot be; an unreadable one is left out."""
        found = sorted(_scanned(image, section))
        self._starts = array("Q", [start for start, _ in found])  # virtual offsets
        self._positions = array("Q", [position for _, position in found])
        self._section = section

    def place_at(self, target: int) -> Place | None:
        """Return the FDE of the last start at or below a virtual offset; it may end before that."""
        index = bisect_right(self._starts, target) - 1
        return Place(self._positions[index], self._section) if index >= 0 else None


def search_table(image: Image, layout: Layout) -> SearchTable | None:
    """Return the table of .eh_frame_hdr, None when there is none of the one form that linkers write."""
    for segment in layout.segments:
        if segment.kind == _PT_GNU_EH_FRAME:
            start, size_bytes = segment.file_offset, segment.size_bytes
            cursor = DwarfCursor(
                image[start : start + min(size_bytes, _HEADER_LIMIT)], segment.virtual_offset
            )
            try:
                version, frames_encoding, count_encoding, encoding = cursor.take(4)
                frames_start = cursor.pointer(frames_encoding, segment.virtual_offset)
                count = cursor.pointer(count_encoding, segment.virtual_offset)
            except SymbolizeError:
                return None
            if version != 1 or encoding != _DATAREL_SDATA4:
                return None
            count = min(count, (size_bytes - cursor.position) // _ROW_BYTES)
            first = start + cursor.position
            segments = loaded_segments(layout)
            return SearchTable(image, segments, segment.virtual_offset, first, count, frames_start)
    return None


def loaded_segments(layout: Layout) -> tuple[FrameSection, ...]:
    """Return the loaded parts of a file, as places for entries that are found by address."""
    return tuple(
        FrameSection(s.file_offset, s.file_offset + s.size_bytes, s.virtual_offset, is_debug=False)
        for s in layout.segments
        if s.kind == PT_LOAD
    )


def place_of(segments: tuple[FrameSection, ...], start: int) -> Place | None:
    """Return where the bytes at a virtual offset are, None when they are not in the file."""
    for segment in segments:
        position = segment.file_offset + start - segment.virtual_offset
        if segment.file_offset <= position < segment.limit:
            return Place(position, segment)
    return None


def _scanned(image: Image, section: FrameSection) -> list[tuple[int, int]]:
    """Return (start of code, file offset) of each FDE of a section, as they lie."""
    found: list[tuple[int, int]] = []
    encodings: dict[int, int | None] = {}
    position = section.file_offset
    for _ in range(_SCAN_LIMIT):
        try:
            raw = raw_entry(image, section, position)
        except SymbolizeError:
            break
        if raw is None and not section.is_debug:
            break
        if raw is not None and raw.common is not None:
            start = _start(image, section, raw, encodings)
            if start is not None:
                found.append((start, position))
        position = raw.limit if raw else position + 4
    return found


def _start(
    image: Image, section: FrameSection, raw: RawEntry, encodings: dict[int, int | None]
) -> int | None:
    """Return where the code of an FDE starts; None when it is unreadable or its code was left out in linking.

    encodings: of pointers, by CIE; None for an unreadable one. What is missing is added.
    """
    common = raw.common or 0
    if common not in encodings:
        try:
            encodings[common] = common_entry(image, section, common).pointer_encoding
        except SymbolizeError:
            encodings[common] = None
    encoding = encodings[common]
    if encoding is None:
        return None
    try:
        start, limit = code_bounds(body_cursor(image, section, raw, _BOUNDS_LIMIT), encoding)
    except SymbolizeError:
        return None
    return start if start and limit > start else None
