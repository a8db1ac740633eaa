"""LEB128 numbers, many at once.

    e5 8e 26     624485, unsigned     each byte holds 7 bits, lowest first; bit 7 says that more follow
    80 7f        -128, signed         bit 6 of the last byte is the sign

Source: DWARF 5, section 7.6 and appendix C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pyprof.symbolize.arrays import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUMBER_LIMIT = 1 << 35  # what is larger is given as this: it can be multiplied and shifted, and means nothing
NUMBER_BYTES = 10  # of 64 bits; what goes on after these is read as if it ended here


class Numbers(NamedTuple):
    """Some numbers, and where each ends."""

    values: NDArray[np.int64]
    limits: NDArray[np.int64]  # places of the bytes after each


def unsigned_numbers(code: NDArray[np.uint8], starts: NDArray[np.int64]) -> Numbers:
    """Return the unsigned numbers that start at some places, cut at NUMBER_LIMIT.

    After each place `code` has NUMBER_BYTES bytes or more.
    """
    values, limits = _low_bits(code, starts)
    is_large = (limits - starts >= NUMBER_BYTES) & (code[limits - 1] != 0)
    return Numbers(np.where(is_large, NUMBER_LIMIT, np.minimum(values, NUMBER_LIMIT)), limits)


def signed_numbers(code: NDArray[np.uint8], starts: NDArray[np.int64]) -> Numbers:
    """Return the signed numbers that start at some places, cut at NUMBER_LIMIT and its negative."""
    values, limits = _low_bits(code, starts)
    bits = np.minimum(7 * (limits - starts), 63)
    values |= np.where(code[limits - 1] & 0x40, np.int64(-1) << bits, 0)
    return Numbers(np.clip(values, -NUMBER_LIMIT, NUMBER_LIMIT), limits)


def _low_bits(code: NDArray[np.uint8], starts: NDArray[np.int64]) -> Numbers:
    """Return the low 63 bits of each number."""
    byte = code[starts]
    values = (byte & 0x7F).astype(np.int64)
    limits = starts + 1
    more = np.flatnonzero(byte & 0x80)
    for index in range(1, NUMBER_BYTES):
        if not len(more):
            break
        byte = code[starts[more] + index]
        limits[more] += 1
        if index < NUMBER_BYTES - 1:
            values[more] |= (byte & 0x7F).astype(np.int64) << 7 * index
        more = more[byte >= 0x80]
    return Numbers(values, limits)
