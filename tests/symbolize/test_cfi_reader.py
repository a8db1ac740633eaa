"""Finding the FDE of a virtual offset, by each way."""

import random
import struct

import pytest
from cfiwriter import CODE_START, FRAMES_OFFSET, FRAMES_START, Cie, Fde, elf_with_frames

from pyprof.symbolize import cfi_index
from pyprof.symbolize.cfi_reader import FrameTable
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.layout import elf_layout

LIBC = "/lib/x86_64-linux-gnu/libc.so.6"
FDES = (Fde(0x40, 0x10), Fde(0x10, 0x20), Fde(0x100, 0x80), Fde(0x30, 0x10))


def table_of(image: bytes) -> FrameTable:
    return FrameTable(image, elf_layout(image))


def start_at(table: FrameTable, distance: int) -> int | None:
    """Return where the code of the FDE for an offset starts, both from the start of the code."""
    entry = table.entry_at(CODE_START + distance)
    return entry.start - CODE_START if entry else None


WAYS = {
    "table": elf_with_frames(FDES),
    "table without section headers": elf_with_frames(FDES, has_sections=False),
    "scan": elf_with_frames(FDES, has_table=False),
    "scan from where the header says": elf_with_frames(FDES, has_table=False, has_sections=False),
    "debug": elf_with_frames(debug=[f._replace(cie=Cie(augmentation=b"")) for f in FDES], has_table=False),
}


@pytest.mark.parametrize("image", WAYS.values(), ids=WAYS)
def test_entry_covers_its_half_open_range(image: bytes) -> None:
    table = table_of(image)
    expected = {0xF: None, 0x10: 0x10, 0x2F: 0x10, 0x30: 0x30, 0x3F: 0x30, 0x40: 0x40, 0x4F: 0x40}
    expected |= {0x50: None, 0xFF: None, 0x100: 0x100, 0x17F: 0x100, 0x180: None, -0x400000: None}
    assert {distance: start_at(table, distance) for distance in expected} == expected


@pytest.mark.parametrize("has_table", [True, False])
def test_last_start_decides_even_when_it_ends_early(has_table: bool) -> None:
    table = table_of(elf_with_frames([Fde(0, 0x100), Fde(0x20, 0x10)], has_table=has_table))
    assert start_at(table, 0x1F) == 0
    assert start_at(table, 0x20) == 0x20
    assert start_at(table, 0x30) is None


def test_debug_frame_is_asked_for_what_eh_frame_does_not_cover() -> None:
    cie = Cie(augmentation=b"", version=4)
    table = table_of(
        elf_with_frames([Fde(0, 0x10)], debug=[Fde(0, 0x40, b"\x41", cie), Fde(0x40, 1, cie=cie)])
    )
    covered = table.entry_at(CODE_START)
    assert covered
    assert covered.limit == CODE_START + 0x10
    assert start_at(table, 0x20) == 0
    assert start_at(table, 0x40) == 0x40


def test_left_out_and_empty_code_has_no_entry() -> None:
    table = table_of(elf_with_frames([Fde(-CODE_START, 0x10), Fde(0x10, 0)], has_table=False))
    assert table.entry_at(8) is None
    assert start_at(table, 0x10) is None


def test_file_without_frames_has_no_entry() -> None:
    assert start_at(table_of(elf_with_frames(has_table=False)), 0) is None


@pytest.mark.parametrize(
    "encodings", ["01ff033b", "011bff3b", "011b033c", "021b033b", "019b033b", "011b031b"]
)
def test_table_of_another_form_is_not_used(encodings: str) -> None:
    image = bytearray(elf_with_frames(FDES))
    image[FRAMES_OFFSET : FRAMES_OFFSET + 4] = bytes.fromhex(encodings)
    assert start_at(table_of(bytes(image)), 0x10) == 0x10


def test_count_beyond_the_segment_is_cut() -> None:
    image = bytearray(elf_with_frames(FDES))
    image[FRAMES_OFFSET + 8 : FRAMES_OFFSET + 12] = b"\xff" * 4
    table = table_of(bytes(image))
    assert start_at(table, 0x10) == 0x10
    assert start_at(table, 0x100) == 0x100


def test_row_that_leads_outside_of_the_file_has_no_entry() -> None:
    image = bytearray(elf_with_frames(FDES))
    for row in range(len(FDES)):
        struct.pack_into("<i", image, FRAMES_OFFSET + 16 + 8 * row, 0x7FFFFFFF)
    assert start_at(table_of(bytes(image)), 0x10) is None


def test_row_whose_entry_is_for_other_code_has_no_entry() -> None:
    image = bytearray(elf_with_frames(FDES))
    struct.pack_into("<i", image, FRAMES_OFFSET + 12, CODE_START + 0x8 - FRAMES_START)
    assert start_at(table_of(bytes(image)), 0x9) is None


def test_scan_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cfi_index, "_SCAN_LIMIT", 3)  # a CIE and two FDEs
    table = table_of(elf_with_frames(FDES, has_table=False))
    assert [start_at(table, fde.start) for fde in FDES] == [0x40, 0x10, None, None]


def test_scan_keeps_what_is_before_a_false_size() -> None:
    image = bytearray(elf_with_frames(FDES, has_table=False))
    position = image.rindex(struct.pack("<I", 0x10), 0, image.index(b"\0.eh_frame"))  # the size of FDES[3]
    image[position - 12 : position - 8] = b"\xf0\xff\xff\xff"
    table = table_of(bytes(image))
    assert [start_at(table, fde.start) for fde in FDES] == [0x40, 0x10, 0x100, None]


def test_search_and_scan_agree_on_libc() -> None:
    with open(LIBC, "rb") as file:
        image = file.read()
    searched, scanned = table_of(image), table_of(image.replace(b"\x50\xe5\x74\x64", bytes(4), 1))
    assert isinstance(searched._frames, cfi_index.SearchTable)
    assert isinstance(scanned._frames, cfi_index.ScannedTable)
    start, limit = 0x26000, 0x17C000
    for target in range(start, limit, 997):
        assert searched.entry_at(target) == scanned.entry_at(target)


def test_mutated_frames_give_an_entry_or_an_error() -> None:
    with open(LIBC, "rb") as file:
        image = bytearray(file.read())
    layout = elf_layout(bytes(image))
    header = next(s for s in layout.segments if s.kind == 0x6474E550)
    chance = random.Random(7)  # noqa: S311
    for _ in range(60):
        mutated = bytearray(image)
        for _ in range(2000):
            mutated[header.file_offset + chance.randrange(header.size_bytes + 0x26000)] = chance.randrange(
                256
            )
        table = FrameTable(bytes(mutated), layout)
        for _ in range(50):
            target = chance.randrange(0x26000, 0x17C000)
            try:
                entry = table.entry_at(target)
            except SymbolizeError:
                continue
            assert entry is None or entry.start <= target < entry.limit
