"""CIEs and FDEs, well-formed and not."""

import struct

import pytest
from cfiwriter import ABSOLUTE, CODE_START, ENTRY, Cie, Fde, cie_bytes, frames, pointer

from pyprof.symbolize.cfi_entry import FrameEntry, FrameSection, common_entry, frame_entry, raw_entry
from pyprof.symbolize.error import SymbolizeError

PLACE = 0x402000


def section_of(image: bytes, *, is_debug: bool = False) -> FrameSection:
    return FrameSection(0, len(image), 0 if is_debug else PLACE, is_debug)


def entry_of(fde: Fde, *, is_debug: bool = False) -> FrameEntry:
    image, positions = frames([fde], 0 if is_debug else PLACE, is_debug=is_debug)
    return frame_entry(image, section_of(image, is_debug=is_debug), positions[0])


@pytest.mark.parametrize("encoding", [0x1B, 0x1C, 0x00, 0x03, 0x04, 0x0B, 0x0C])
def test_bounds_are_read_in_every_encoding(encoding: int) -> None:
    entry = entry_of(Fde(0x10, 0x20, b"\x41", Cie(encoding=encoding)))
    assert (entry.start, entry.limit) == (CODE_START + 0x10, CODE_START + 0x30)
    assert entry.program[:1] == b"\x41"


def test_program_starts_behind_the_augmentation() -> None:
    entry = entry_of(Fde(0, 1, b"\x41\x0e\x10"))
    assert entry.program.rstrip(b"\0") == b"\x41\x0e\x10"
    assert entry.common.program.rstrip(b"\0") == ENTRY
    image, _ = frames([Fde(0, 1, b"\x41\x0e\x10")], PLACE)
    assert entry.program_start - PLACE == image.index(b"\x41\x0e\x10")
    assert entry.common.program_start - PLACE == image.index(ENTRY)


def test_factors_column_and_signal_flag_are_read() -> None:
    common = entry_of(
        Fde(0, 1, cie=Cie(code_factor=4, data_factor=-16, return_column=14, augmentation=b"zRS"))
    ).common
    assert (common.code_factor, common.data_factor, common.return_column) == (4, -16, 14)
    assert common.is_signal_frame
    assert not entry_of(Fde(0, 1)).common.is_signal_frame


@pytest.mark.parametrize("version", [1, 3, 4])
def test_versions_of_debug_frame(version: int) -> None:
    entry = entry_of(Fde(0x10, 0x20, b"\x41", Cie(version=version, augmentation=b"")), is_debug=True)
    assert (entry.start, entry.limit, entry.program[:1]) == (CODE_START + 0x10, CODE_START + 0x30, b"\x41")


def test_personality_and_language_data_are_skipped() -> None:
    data = b"\x9b" + struct.pack("<i", 77) + b"\x1b\x1b"
    assert entry_of(Fde(0, 5, cie=Cie(augmentation=b"zPLR", data=data))).limit == CODE_START + 5
    assert entry_of(Fde(0, 5, cie=Cie(augmentation=b"zPR", data=b"\xff\x1b"))).limit == CODE_START + 5


def test_gcc_2_pointer_is_skipped() -> None:
    assert entry_of(Fde(0, 5, cie=Cie(augmentation=b"eh", encoding=ABSOLUTE))).limit == CODE_START + 5


def test_unknown_letter_ends_the_known_ones() -> None:
    common = entry_of(Fde(0, 1, cie=Cie(augmentation=b"zX", encoding=0, data=b"\1\2\3"))).common
    assert common.program.rstrip(b"\0") == ENTRY


def test_64_bit_debug_frame_is_read() -> None:
    cie = b"\xff" * 8 + bytes([4]) + b"\0" + bytes([8, 0, 1, 0x78, 16]) + ENTRY
    fde = struct.pack("<3Q", 0, CODE_START, 0x30) + b"\x41"
    image = b"".join(b"\xff" * 4 + struct.pack("<Q", len(body)) + body for body in (cie, fde))
    entry = frame_entry(image, section_of(image, is_debug=True), 12 + len(cie))
    assert (entry.start, entry.limit, entry.program) == (CODE_START, CODE_START + 0x30, b"\x41")


def test_zero_length_is_the_end() -> None:
    image, _ = frames([], PLACE)
    assert raw_entry(image, section_of(image), 0) is None


def refused(image: bytes, position: int) -> None:
    with pytest.raises(SymbolizeError):
        frame_entry(image, section_of(image), position)


def test_entry_outside_of_the_section_is_refused() -> None:
    image, positions = frames([Fde(0, 1)], PLACE)
    for position in (-8, len(image), 1 << 70, len(image) - 3):
        refused(image, position)
    for length in (0xFFFFFFFF, 1 << 20, 3, 0, 0xFFFFFFF0):
        refused(image[: positions[0]] + struct.pack("<I", length) + image[positions[0] + 4 :], positions[0])


def test_cie_pointer_that_leads_elsewhere_is_refused() -> None:
    image, (position,) = frames([Fde(0, 1)], PLACE)
    for identity in (4, 1 << 30, 0xFFFFFFFF, position + 5):
        refused(image[: position + 4] + struct.pack("<I", identity) + image[position + 8 :], position)


@pytest.mark.parametrize(
    "cie",
    [
        Cie(version=2),
        Cie(augmentation=b"q"),
        Cie(augmentation=b"zR", data=b""),
        Cie(augmentation=b"zR", data=b"\x9b"),
        Cie(augmentation=b"zR", data=b"\x50"),
        Cie(program=bytes(5000)),
    ],
)
def test_unusual_cie_is_refused(cie: Cie) -> None:
    image = cie_bytes(cie)
    position = len(image)
    body = struct.pack("<I", position + 4) + pointer(CODE_START, 0x1B, PLACE + position + 8) + bytes(5)
    refused(image + struct.pack("<I", len(body)) + body, position)


def test_segments_and_32_bits_are_refused() -> None:
    image = bytearray(cie_bytes(Cie(version=4, augmentation=b""), is_debug=True))
    image[10:12] = bytes([4, 0])
    with pytest.raises(SymbolizeError):
        common_entry(bytes(image), section_of(bytes(image), is_debug=True), 0)


def test_range_beyond_all_addresses_is_refused() -> None:
    image, (position,) = frames([Fde(0, 1, cie=Cie(encoding=0x04))], PLACE)
    refused(image[: position + 16] + struct.pack("<Q", (1 << 64) - 1) + image[position + 24 :], position)


def test_entry_that_ends_early_is_refused() -> None:
    image, (position,) = frames([Fde(0, 1)], PLACE)
    for length in range(4, 13):
        refused(image[:position] + struct.pack("<I", length) + image[position + 4 :], position)
