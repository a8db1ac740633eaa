"""Rows of code put into blocks of 1 KiB, so that the walker in the kernel finds one with few reads.

    blocks   first_block: first row 0, 2 rows, rule 0     next: first row 2, 0 rows, rule 5
    rows     0x0010 rule 3 | 0x0240 rule 5                place in the block, rule from there on

A block has the rule in force at its first byte, so it says all about its code. The rows of a block lie in
one chunk of 1024 rows; where the next block's would not fit, the chunk ends with PAD.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from pyprof.symbolize.arrays import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_BITS = 10  # a block is 1 KiB of code
BLOCK_BYTES = 1 << BLOCK_BITS
CHUNK_ROWS = 1024
PAD = 0xFFFFFFFF
RULE_LIMIT = 0xFFFF  # rules of a table, so that no row looks like PAD
BLOCK = np.dtype([("first", "<u4"), ("count", "<u2"), ("rule", "<u2")])


class Blocks(NamedTuple):
    """A table without its rules."""

    first_block: int  # number of the first block: file offset >> BLOCK_BITS
    blocks: NDArray[np.void]  # of BLOCK
    rows: NDArray[np.uint32]  # a multiple of CHUNK_ROWS: bits 0-15 the place in the block, 16-31 the rule


def blocks(starts: NDArray[np.int64], rules: NDArray[np.int64]) -> Blocks:
    """Return the blocks of rows that start at ascending file offsets, at least one.

    A rule holds up to the next row; the last row has rule 0.
    """
    first_block, last_block = (int(starts[index]) >> BLOCK_BITS for index in (0, -1))
    block_starts = np.arange(first_block, last_block + 1) << BLOCK_BITS
    table = np.zeros(len(block_starts), BLOCK)
    in_force = np.searchsorted(starts, block_starts, "right")
    table["rule"] = np.concatenate([np.zeros(1, np.int64), rules])[in_force]
    is_inside = starts & (BLOCK_BYTES - 1) != 0  # a row at a block's first byte is the block's rule
    starts, rules = starts[is_inside], rules[is_inside]
    limits = np.searchsorted(starts, block_starts + BLOCK_BYTES)
    counts = np.diff(limits, prepend=0)
    firsts = _firsts(limits, counts)
    table["first"], table["count"] = np.where(counts > 0, firsts, 0), counts
    rows = np.full(-(-int((firsts + counts).max()) // CHUNK_ROWS) * CHUNK_ROWS, PAD, np.uint32)
    places = np.repeat(firsts - (limits - counts), counts) + np.arange(len(starts))
    rows[places] = (starts & (BLOCK_BYTES - 1)) | rules << 16
    return Blocks(first_block, table, rows)


def are_well_formed(blocks: NDArray[np.void], rows: NDArray[np.uint32], rule_count: int) -> bool:
    """Return whether blocks and rows are what the walker relies on, for a table of `rule_count` rules."""
    used = blocks[blocks["count"] > 0]
    firsts, counts = used["first"].astype(np.int64), used["count"].astype(np.int64)
    limits = firsts + counts
    if len(rows) % CHUNK_ROWS or len(blocks) == 0 or blocks["rule"].max() >= rule_count:
        return False
    if (limits > len(rows)).any() or (firsts[1:] < limits[:-1]).any():
        return False
    if (firsts // CHUNK_ROWS != (limits - 1) // CHUNK_ROWS).any():
        return False
    is_used = np.zeros(len(rows) + 1, np.int8)
    is_used[firsts] += 1
    is_used[limits] -= 1
    is_row = np.cumsum(is_used[:-1], dtype=np.int8) != 0
    is_first = np.zeros(len(rows), np.bool_)
    is_first[firsts] = True
    places, rules = rows & 0xFFFF, rows >> 16
    is_right = (places < BLOCK_BYTES) & (rules < rule_count)
    is_right[1:] &= is_first[1:] | (places[1:] > places[:-1])
    return bool(np.where(is_row, is_right, rows == PAD).all())


def _firsts(limits: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of the first row of each block, such that no block crosses a chunk."""
    firsts = limits - counts
    sums = limits.data  # rows up to and with each block, for bisect
    block, chunk = 0, 0
    while block < len(limits):
        done = int(firsts[block])
        following = bisect_right(sums, done + CHUNK_ROWS, block)
        firsts[block:following] += chunk * CHUNK_ROWS - done
        block, chunk = following, chunk + 1
    return firsts
