"""Integers, LEB128 and encoded pointers."""

import pytest
from cfiwriter import sleb, uleb

from pyprof.symbolize.dwarf_cursor import DwarfCursor
from pyprof.symbolize.error import SymbolizeError

NUMBERS = (0, 1, 63, 64, 127, 128, 300, 1 << 20, (1 << 63) - 1)


@pytest.mark.parametrize("value", [*NUMBERS, (1 << 64) - 1])
def test_uleb128_is_read_back(value: int) -> None:
    assert DwarfCursor(uleb(value)).uleb128() == value


@pytest.mark.parametrize("value", [*NUMBERS, *(-n for n in NUMBERS), -(1 << 63)])
def test_sleb128_is_read_back(value: int) -> None:
    assert DwarfCursor(sleb(value)).sleb128() == value


def test_padded_leb128_is_read() -> None:
    assert DwarfCursor(b"\x85\x80\x80\x00").uleb128() == 5
    assert DwarfCursor(b"\xfb\xff\xff\x7f").sleb128() == -5


def test_leb128_of_many_bytes_is_refused() -> None:
    with pytest.raises(SymbolizeError):
        DwarfCursor(b"\x80" * 100).uleb128()


def test_leb128_keeps_64_bits() -> None:
    assert DwarfCursor(b"\xff" * 15 + b"\x7f").uleb128() == (1 << 64) - 1
    assert DwarfCursor(b"\xff" * 15 + b"\x7f").sleb128() == -1


@pytest.mark.parametrize(
    ("encoding", "data", "value"),
    [
        (0x00, "88776655 44332211", 0x1122334455667788),
        (0x01, "e58e26", 624485),
        (0x02, "3412", 0x1234),
        (0x03, "78563412", 0x12345678),
        (0x09, "7f", (1 << 64) - 1),
        (0x0A, "feff", (1 << 64) - 2),
        (0x0B, "10000000", 16),
        (0x0C, "f0ffffffffffffff", (1 << 64) - 16),
        (0x1B, "f0ffffff", 0x1004 - 16),  # relative to where it is written: behind four bytes
        (0x3B, "f0ffffff", 0x5000 - 16),  # relative to the base
    ],
)
def test_pointer_is_read_in_every_encoding(encoding: int, data: str, value: int) -> None:
    cursor = DwarfCursor(bytes(4) + bytes.fromhex(data), 0x1000)
    cursor.take(4)
    assert cursor.pointer(encoding, 0x5000) == value


@pytest.mark.parametrize("encoding", [0x9B, 0x2B, 0x4B, 0x50, 0x3B, 0x05, 0xFF])
def test_pointer_that_needs_more_than_the_file_is_refused(encoding: int) -> None:
    with pytest.raises(SymbolizeError):
        DwarfCursor(bytes(16)).pointer(encoding)


def test_nothing_is_read_behind_the_end() -> None:
    for read in (
        DwarfCursor.byte,
        DwarfCursor.uleb128,
        DwarfCursor.sleb128,
        DwarfCursor.string,
        lambda cursor: cursor.take(2),
        lambda cursor: cursor.unsigned(2),
        lambda cursor: cursor.pointer(0x1B),
    ):
        cursor = DwarfCursor(b"\xff")
        cursor.position = 0 if read in (DwarfCursor.uleb128, DwarfCursor.sleb128) else len(cursor.data)
        with pytest.raises(SymbolizeError):
            read(cursor)
