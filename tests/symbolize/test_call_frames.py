import struct

import pytest
from elfwriter import TEXT_BYTES, TEXT_START, Extra, elf
from framewriter import (
    AT_ENTRY,
    FRAME_START,
    GAP,
    UNSUPPORTED,
    USUAL,
    Cie,
    Fde,
    advance,
    def_cfa_offset,
    frames,
    rules_of,
    table_of,
)

from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.layout import elf_layout
from pyprof.symbolize.unwind_rule import Cfa, Rule
from pyprof.symbolize.unwind_table import unwind_table

PUSHED = Rule(Cfa.RSP, offset=16)
FUNCTION = Fde(0x10, 0x20, advance(4) + def_cfa_offset(16))
FUNCTION_RULES = {0x10: AT_ENTRY, 0x14: PUSHED, 0x30: GAP}
NOTHING = "no call frame information"


@pytest.mark.parametrize(
    ("augmentation", "data"),
    [
        (b"zR", b"\x1b"),
        (b"zR", b"\x10"),
        (b"zR", b"\x1c"),
        (b"zR", b"\x14"),
        (b"zR", b"\x00"),
        (b"zR", b"\x03"),
        (b"zR", b"\x0b"),
        (b"zR", b"\x04"),
        (b"zR", b"\x0c"),
        (b"z", b""),
        (b"zLR", b"\x1b\x1b"),
        (b"zPR", b"\x9b\1\2\3\4\x1b"),
        (b"zPLR", b"\x00\1\2\3\4\5\6\7\x08\x03\x1b"),
        (b"zPR", b"\x02\1\2\x1b"),
    ],
)
def test_the_augmentation_tells_how_an_fde_is_read(augmentation: bytes, data: bytes) -> None:
    assert rules_of(table_of(Cie(augmentation=augmentation, data=data), FUNCTION)) == FUNCTION_RULES


@pytest.mark.parametrize("cie", [Cie(version=1), Cie(version=3), Cie(version=4)])
def test_versions_of_a_cie(cie: Cie) -> None:
    assert rules_of(table_of(cie, FUNCTION)) == FUNCTION_RULES


def test_augmentation_data_of_an_fde_is_skipped() -> None:
    for data in (b"\x04\1\2\3\4", b"\x84\x00\1\2\3\4", b"\x80\1" + b"\x0e" * 128):
        assert rules_of(table_of(Cie(), FUNCTION._replace(augmentation=data))) == FUNCTION_RULES


@pytest.mark.parametrize(
    "cie",
    [
        Cie(version=2),
        Cie(version=5),
        Cie(data=b"\x01"),
        Cie(data=b"\x09"),
        Cie(data=b"\x2b"),
        Cie(data=b"\x3b"),
        Cie(data=b"\x9b"),
        Cie(data=b"\xff"),
        Cie(data=b""),
        Cie(augmentation=b"eh", data=None),
        Cie(augmentation=b"R", data=None),
        Cie(augmentation=b"zQR", data=b"\x1b"),
        Cie(augmentation=b"zPR", data=b"\x50\0\0\0\0\x1b"),
        Cie(augmentation=b"zPR", data=b"\x01\x01\x1b"),
        Cie(augmentation=b"z" + b"R" * 40, data=b"\x1b" * 40),
    ],
)
def test_functions_of_a_cie_that_is_not_understood_are_left_out(cie: Cie) -> None:
    other = Fde(0x40, 8)
    assert rules_of(table_of(cie, FUNCTION, Cie(), other)) == {0x40: AT_ENTRY, 0x48: GAP}


@pytest.mark.parametrize(
    "cie",
    [
        Cie(augmentation=b"zRQ"),
        Cie(column=17),
        Cie(column=17, version=3),
        Cie(code_alignment=1 << 40),
        Cie(data_alignment=-(1 << 40)),
    ],
)
def test_functions_whose_range_alone_is_known_are_unsupported(cie: Cie) -> None:
    assert rules_of(table_of(cie, FUNCTION)) == {0x10: UNSUPPORTED, 0x30: GAP}


def test_records_of_length_0_and_of_64_bits() -> None:
    one, other = Fde(0, 8), Fde(0x40, 8, def_cfa_offset(16))
    assert rules_of(table_of(Cie(), one, bytes(4), Cie(), other)) == {
        0: AT_ENTRY,
        8: GAP,
        0x40: PUSHED,
        0x48: GAP,
    }
    image = elf(extra=[Extra(".eh_frame", frames([Cie(), one, other], is_long=True), FRAME_START)])
    assert rules_of(unwind_table(image, elf_layout(image))) == {0: AT_ENTRY, 8: GAP, 0x40: PUSHED, 0x48: GAP}


@pytest.mark.parametrize("is_long", [False, True])
def test_debug_frame(is_long: bool) -> None:
    plain = Cie(augmentation=b"", version=4)
    records = [plain, Fde(0, 8, augmentation=None), FUNCTION._replace(augmentation=None)]
    data = frames(records, is_debug=True, is_long=is_long)
    image = elf(extra=[Extra(".debug_frame", data, 0, flags=0)])
    assert rules_of(unwind_table(image, elf_layout(image))) == {0: AT_ENTRY, 8: GAP, **FUNCTION_RULES}


@pytest.mark.parametrize("cie", [-4, 4, 0x18, 1 << 20])
def test_an_fde_of_no_cie_is_left_out(cie: int) -> None:
    assert rules_of(table_of(Cie(), Fde(0, 8), FUNCTION._replace(cie=cie))) == {0: AT_ENTRY, 8: GAP}


def test_an_fde_can_come_before_its_cie() -> None:
    fde_bytes = len(frames([FUNCTION]))
    early = FUNCTION._replace(cie=fde_bytes)
    assert rules_of(table_of(early, Cie(augmentation=b"z", data=b""))) == FUNCTION_RULES


def test_a_section_without_a_usable_cie_is_an_error() -> None:
    for records in ([FUNCTION._replace(cie=4)], [Cie(version=9), FUNCTION], [FUNCTION._replace(cie=0)]):
        with pytest.raises(SymbolizeError, match=NOTHING):
            table_of(*records)


def test_a_record_that_leads_outside_ends_them() -> None:
    broken = struct.pack("<I", 0x1000) + bytes(8)
    assert rules_of(table_of(Cie(), Fde(0, 8), broken, Cie(), FUNCTION)) == {0: AT_ENTRY, 8: GAP}


@pytest.mark.parametrize(
    "record", [b"\1\0\0\0\0", b"\4\0\0\0" + bytes(4), b"\4\0\0\0\x1c\0\0\0", b"\xff" * 12]
)
def test_short_records_are_left_out(record: bytes) -> None:
    assert rules_of(table_of(Cie(), FUNCTION, record)) == FUNCTION_RULES


def test_augmentation_data_beyond_the_record_leaves_the_fde_out() -> None:
    for data in (b"\x7f", b"\xff\xff\xff\xff\x7f", b"\x80\x80\x01"):
        table = table_of(Cie(), Fde(0, 8), Fde(0x10, 8, augmentation=data))
        assert rules_of(table) == {0: AT_ENTRY, 8: GAP}


def test_a_function_ends_where_the_next_one_starts() -> None:
    records = [Cie(), Fde(0, 0x40, def_cfa_offset(16)), Fde(0x10, 0x10), Fde(0x18, 0x20, def_cfa_offset(16))]
    assert rules_of(table_of(*records[:3])) == {0: PUSHED, 0x10: AT_ENTRY, 0x20: GAP}
    assert rules_of(table_of(*records)) == {0: PUSHED, 0x10: AT_ENTRY, 0x18: PUSHED, 0x38: GAP}


def test_the_later_of_two_functions_with_one_start_counts() -> None:
    records = [Cie(), Fde(0, 0x40, def_cfa_offset(16)), Fde(0, 0x20), Fde(0x10, 4)]
    assert rules_of(table_of(*records[:3])) == {0: AT_ENTRY, 0x20: GAP}
    assert rules_of(table_of(*records)) == {0: AT_ENTRY, 0x14: GAP}


def test_functions_in_any_order() -> None:
    records = [Cie(), Fde(0x40, 8), Fde(0x20, 8, def_cfa_offset(16)), Fde(0x60, 8), Fde(0, 8)]
    expected = {
        0: AT_ENTRY,
        8: GAP,
        0x20: PUSHED,
        0x28: GAP,
        0x40: AT_ENTRY,
        0x48: GAP,
        0x60: AT_ENTRY,
        0x68: GAP,
    }
    assert rules_of(table_of(*records)) == expected


@pytest.mark.parametrize(
    "dropped",
    [
        Fde(-TEXT_START, 8),
        Fde(0x10, 0),
        Fde(-8, 8),
        Fde(TEXT_BYTES, 8),
        Fde(TEXT_BYTES + 0x1000, 8),
    ],
)
def test_what_is_for_no_code_of_the_file_is_left_out(dropped: Fde) -> None:
    assert rules_of(table_of(Cie(data=b"\x0c"), FUNCTION, dropped)) == FUNCTION_RULES
    with pytest.raises(SymbolizeError, match=NOTHING):
        table_of(Cie(data=b"\x0c"), dropped)


def test_a_function_ends_where_its_segment_ends() -> None:
    rules = rules_of(table_of(Cie(), Fde(TEXT_BYTES - 8, 1 << 31)))
    assert rules == {TEXT_BYTES - 8: AT_ENTRY}


def test_a_cie_that_is_written_twice_is_one() -> None:
    records = [Cie(), Fde(0, 8), Cie(), Fde(8, 8), Cie(USUAL + def_cfa_offset(16)), Fde(16, 8)]
    assert rules_of(table_of(*records)) == {0: AT_ENTRY, 16: PUSHED, 24: GAP}
