"""Unwind tables: the call frame information of an x86-64 ELF file in a form that the kernel can search.

Code is addressed by file offset. What a table holds is in unwind_blocks.py and unwind_rule.py. Import this
module late: it imports numpy.

Source: LSB 5.0 core, section 10.6; DWARF 5, section 6.4; x86-64 psABI, section 3.7.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from hashlib import blake2b
from itertools import accumulate
from mmap import mmap
from typing import TYPE_CHECKING, NamedTuple

from pyprof.symbolize.arrays import np
from pyprof.symbolize.call_frame_changes import Expressions
from pyprof.symbolize.call_frame_rows import Rows, call_frame_rows
from pyprof.symbolize.call_frames import call_frames
from pyprof.symbolize.code_ranges import FILE_OFFSET_LIMIT, CodeRanges, code_ranges, code_segments
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.frame_section import FrameSection, frame_section
from pyprof.symbolize.layout import Image, Layout
from pyprof.symbolize.unwind_blocks import BLOCK, BLOCK_BITS, BLOCK_BYTES, RULE_LIMIT, are_well_formed, blocks
from pyprof.symbolize.unwind_key import key_rule
from pyprof.symbolize.unwind_rule import RULE_BYTES, Cfa, Rule, are_rules, rule_at, rule_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EM_X86_64 = 62
_BLOCK = struct.Struct("<IHH")
_ROW_BYTES = 4

# A serialised table: this header, 16 bytes of checksum, blocks, rows, rules.
_MAGIC, _VERSION = b"PyUnwind", 2
_HEADER = struct.Struct("<8s5I16s")  # magic, version, first block, counts of blocks, rows and rules, digest
_CHECKSUM_BYTES = 16


class UnwindTable(NamedTuple):
    """The unwind table of one file, as the walker in the kernel reads it."""

    first_block: int  # file offset >> 10 of the code that the first of `blocks` is for
    blocks: bytes  # {u32 first; u16 count; u16 rule} each
    rows: bytes  # u32 each, in chunks of 1024
    rules: bytes  # 16 bytes each; the first is Cfa.NONE


def unwind_table(image: Image, layout: Layout) -> UnwindTable:
    """Return the unwind table of a file.

    Raises: SymbolizeError when it is not for x86-64, has no call frame information or more than any real
    file has.
    """
    if layout.machine != _EM_X86_64 or not layout.is_64 or layout.order != "<":
        raise SymbolizeError("not x86-64")
    section = frame_section(image, layout)
    if section is None:
        raise SymbolizeError("no call frame information")
    frames, expressions = call_frames(image, section), Expressions()
    ranges = code_ranges(frames, code_segments(layout))
    rows = call_frame_rows(frames, ranges.limits - ranges.starts, expressions)
    if not len(rows.keys):
        raise SymbolizeError("no call frame information for code of this file")
    return _table(*_file_rows(ranges, rows), expressions)


def lookup(table: UnwindTable, file_offset: int) -> Rule:
    """Return the rule for a byte of code."""
    number = (file_offset >> BLOCK_BITS) - table.first_block
    if not 0 <= number < len(table.blocks) // BLOCK.itemsize:
        return Rule(Cfa.NONE)
    first, count, index = _BLOCK.unpack_from(table.blocks, number * BLOCK.itemsize)
    rows = struct.unpack_from(f"<{count}I", table.rows, first * 4)
    place = bisect_right(rows, file_offset & (BLOCK_BYTES - 1), key=lambda row: row & 0xFFFF)
    return rule_at(table.rules, rows[place - 1] >> 16 if place else index)


def serialised(table: UnwindTable, digest: bytes) -> bytes:
    """Return a table as bytes, for a file. `digest` is the source_digest of what it was built from."""
    counts = (
        len(table.blocks) // BLOCK.itemsize,
        len(table.rows) // _ROW_BYTES,
        len(table.rules) // RULE_BYTES,
    )
    header = _HEADER.pack(_MAGIC, _VERSION, table.first_block, *counts, digest)
    payload = table.blocks + table.rows + table.rules
    return header + _checksum(header, payload) + payload


def parsed(data: bytes | memoryview | mmap, digest: bytes) -> UnwindTable:
    """Return the table that `serialised` has written.

    All that the walker relies on is verified. Raises: SymbolizeError when the bytes are something else,
    of another version, damaged, or a table of something that has another digest.
    """
    with memoryview(data) as whole:
        header, checksum = bytes(whole[: _HEADER.size]), bytes(whole[_HEADER.size :][:_CHECKSUM_BYTES])
        payload = bytes(whole[_HEADER.size + _CHECKSUM_BYTES :])
    if len(checksum) < _CHECKSUM_BYTES:
        raise SymbolizeError("not an unwind table: shorter than its header")
    magic, version, first_block, block_count, row_count, rule_count, source = _HEADER.unpack(header)
    if magic != _MAGIC or version != _VERSION:
        raise SymbolizeError("not an unwind table of this version")
    if source != digest:
        raise SymbolizeError("an unwind table of another file")
    if _checksum(header, payload) != checksum:
        raise SymbolizeError("a damaged unwind table")
    limits = list(accumulate((block_count * BLOCK.itemsize, row_count * _ROW_BYTES, rule_count * RULE_BYTES)))
    table = UnwindTable(
        first_block, payload[: limits[0]], payload[limits[0] : limits[1]], payload[limits[1] :]
    )
    if limits[2] != len(payload) or not _is_well_formed(table):
        raise SymbolizeError("a malformed unwind table")
    return table


def source_digest(image: Image, layout: Layout, section: FrameSection) -> bytes:
    """Return 16 bytes that stand for all that a table is built from.

    Raises: SymbolizeError as unwind_table does, for the segments.
    """
    digest = blake2b(digest_size=16)
    digest.update(struct.pack("<QQ?", section.virtual_offset, section.size_bytes, section.is_debug_frame))
    for segment in code_segments(layout):
        digest.update(struct.pack("<3Q", segment.virtual_offset, segment.file_offset, segment.size_bytes))
    with memoryview(image) as whole:
        digest.update(whole[section.file_offset : section.file_offset + section.size_bytes])
    return digest.digest()


def _file_rows(ranges: CodeRanges, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return file offsets, ascending, and the key of the rule from each on; the last is 0.

    Where no range follows at once there is a row with key 0.
    """
    used = np.flatnonzero(ranges.limits > ranges.starts)
    gaps = np.setdiff1d(ranges.limits[used], ranges.starts[used], assume_unique=True)
    starts = np.concatenate([ranges.starts[rows.frames] + rows.places, gaps])
    keys = np.concatenate([rows.keys, np.zeros(len(gaps), np.uint64)])
    order = np.argsort(starts, kind="stable")
    starts, keys = starts[order], keys[order]
    is_new = np.ones(len(keys), np.bool_)
    is_new[1:] = keys[1:] != keys[:-1]
    return starts[is_new], keys[is_new]


def _table(starts: NDArray[np.int64], keys: NDArray[np.uint64], expressions: Expressions) -> UnwindTable:
    used = np.unique(keys)  # the smallest is 0: no rule
    if len(used) > RULE_LIMIT:
        raise SymbolizeError(f"more than {RULE_LIMIT} different rules")
    parts = blocks(starts, np.searchsorted(used, keys))
    rules = b"".join(rule_bytes(key_rule(key, expressions)) for key in used.tolist())
    return UnwindTable(parts.first_block, parts.blocks.tobytes(), parts.rows.tobytes(), rules)


def _is_well_formed(table: UnwindTable) -> bool:
    """Return whether all numbers of a table are in their bounds."""
    rule_count = len(table.rules) // RULE_BYTES
    block_limit = table.first_block + len(table.blocks) // BLOCK.itemsize
    rows, records = np.frombuffer(table.rows, "<u4"), np.frombuffer(table.blocks, BLOCK)
    if not 0 < rule_count <= RULE_LIMIT or block_limit > FILE_OFFSET_LIMIT >> BLOCK_BITS:
        return False
    return are_rules(table.rules) and are_well_formed(records, rows, rule_count)


def _checksum(header: bytes, payload: bytes) -> bytes:
    digest = blake2b(header, digest_size=_CHECKSUM_BYTES)
    digest.update(payload)
    return digest.digest()
