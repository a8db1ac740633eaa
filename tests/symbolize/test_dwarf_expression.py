"""The stack machine, operation by operation."""

from collections.abc import Sequence

import pytest
from cfiwriter import sleb, uleb

from pyprof.symbolize.dwarf_expression import expression_value
from pyprof.symbolize.error import SymbolizeError

MASK = (1 << 64) - 1
REGISTERS: list[int | None] = [1000 + number for number in range(17)]
MEMORY = {0x5000: bytes.fromhex("8877665544332211")}


def read(address: int, size_bytes: int) -> int | None:
    data = MEMORY.get(address)
    return int.from_bytes(data[:size_bytes], "little") if data else None


def value(program: str | bytes, initial: Sequence[int] = ()) -> int | None:
    data = bytes.fromhex(program) if isinstance(program, str) else program
    return expression_value(data, REGISTERS, read, initial)


@pytest.mark.parametrize(
    ("program", "result"),
    [
        ("30", 0),
        ("4f", 31),  # lit31
        ("08 ff", 255),  # const1u
        ("09 ff", MASK),  # const1s
        ("0a feff", 0xFFFE),
        ("0b feff", MASK - 1),
        ("0c 00000080", 0x80000000),
        ("0d 00000080", MASK - 0x7FFFFFFF),
        ("0e 0807060504030201", 0x0102030405060708),
        ("0f ffffffffffffffff", MASK),
        ("10 e58e26", 624485),  # constu
        ("11 7f", MASK),  # consts
        ("76 78", 1006 - 8),  # breg6 -8
        ("8f 00", None),  # breg31: there is none
        ("92 10 02", 1016 + 2),  # bregx
        ("33 12 22", 6),  # dup; plus
        ("33 34 13", 3),  # drop
        ("33 34 14 13 13", 3),  # over
        ("33 34 14", 3),
        ("31 32 33 15 02", 1),  # pick
        ("31 32 16", 1),  # swap
        ("31 32 33 17", 2),  # rot: the top becomes third
        ("31 32 33 17 13", 1),
        ("31 32 33 17 13 13", 3),
        ("09 fb 19", 5),  # abs
        ("35 36 1a", 4),  # and
        ("09 f9 32 1b", MASK - 2),  # -7 / 2 = -3
        ("37 09 fe 1b", MASK - 2),  # 7 / -2 = -3
        ("09 f9 09 fe 1b", 3),
        ("35 33 1c", 2),  # minus
        ("37 33 1d", 1),  # mod
        ("37 33 1e", 21),  # mul
        ("31 1f", MASK),  # neg
        ("30 20", MASK),  # not
        ("35 3a 21", 15),  # or
        ("35 3a 22", 15),  # plus
        ("35 23 c0 02", 325),  # plus_uconst
        ("31 34 24", 16),  # shl
        ("31 08 40 24", 0),  # shl by 64
        ("11 7f 08 3f 25", 1),  # shr is unsigned
        ("11 7f 08 3f 26", MASK),  # shra is signed
        ("11 7f 0e ffffffffffffffff 26", MASK),
        ("35 36 27", 3),  # xor
        ("35 35 29", 1),  # eq
        ("35 09 fb 2a", 1),  # 5 ge -5
        ("35 35 2b", 0),  # gt
        ("09 fb 35 2c", 1),  # le
        ("35 35 2d", 0),  # lt
        ("35 36 2e", 1),  # ne
        ("31 32 2f 0100 13", 2),  # skip over drop
        ("31 32 31 28 0100 13", 2),  # bra taken
        ("31 32 30 28 0100 13", 1),  # bra not taken
        ("31 96", 1),  # nop
        ("0a 0050 06", 0x1122334455667788),  # deref
        ("0a 0050 94 02", 0x7788),  # deref_size
    ],
)
def test_operation(program: str, result: int | None) -> None:
    if result is None:
        with pytest.raises(SymbolizeError):
            value(program)
    else:
        assert value(program) == result


def test_all_literals_and_base_registers() -> None:
    assert [value(bytes([0x30 + number])) for number in range(32)] == list(range(32))
    assert [value(bytes([0x70 + number]) + sleb(-1)) for number in range(17)] == list(range(999, 1016))


def test_initial_values_are_below_the_first() -> None:
    assert value("1c", [10, 3]) == 7
    assert value("", [10]) == 10


@pytest.mark.parametrize(("rip", "pushed"), [(0x40100A, 0), (0x40100B, 8), (0x40101F, 8)])
def test_linkage_table_pushes_at_its_eleventh_byte(rip: int, pushed: int) -> None:
    registers: list[int | None] = [0] * 7 + [0x7FFF0000] + [0] * 8 + [rip]
    program = bytes.fromhex("7708 8000 3f 1a 3b 2a 33 24 22")
    assert expression_value(program, registers, read) == 0x7FFF0008 + pushed


def test_absent_memory_is_told_from_an_invalid_expression() -> None:
    assert value("0a 0060 06") is None
    assert value("0a 0060 06 06 13 13 13") is None


@pytest.mark.parametrize(
    "program",
    [
        *("", "22", "31 22", "31 14", "31 15 05", "31 16", "31 32 17", "31 30 1b", "31 30 1d"),
        *("31 94 09", "31 94 00", "08", "0a 00", "92 11 00", "77", "31 2f 0100", "31 2f f0ff"),
        *("03 0000000000000000", "50", "9c", "e0", "ff"),
    ],
)
def test_invalid_expression_is_refused(program: str) -> None:
    with pytest.raises(SymbolizeError):
        value(program)


def test_unknown_register_is_refused() -> None:
    with pytest.raises(SymbolizeError):
        expression_value(b"\x70\x00", [None] * 17, read)


def test_endless_loop_is_refused() -> None:
    with pytest.raises(SymbolizeError):
        value("2f fdff")


def test_growing_stack_is_refused() -> None:
    with pytest.raises(SymbolizeError):
        value("31 2f fcff")
    with pytest.raises(SymbolizeError):
        value(b"\x31" * 100)


def test_numbers_stay_within_64_bits() -> None:
    square = b"\x0e" + b"\xff" * 8 + (b"\x12\x1e") * 50
    assert value(square) is not None
    assert 0 <= (value(square) or 0) <= MASK
    assert value(b"\x31\x23" + uleb(MASK)) == 0
