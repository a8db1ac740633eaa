"""The two kinds of entries of call frame information: CIE (common) and FDE (of one function).

    length  CIE id / CIE pointer  body                               the length counts from behind itself
    14      0                     01 "zR\\0" 01 78 10 01 1b ...      CIE of .eh_frame
    14      1c                    <start> <size> 00 ...              FDE, whose CIE is 0x1c before its pointer
    0                                                                end of .eh_frame

.debug_frame has the same with another id (all ones) and pointers from the start of the section.

Source: DWARF 5, 6.4.1; Linux Standard Base Core 5.0, 10.6 "Exception Frames"; gcc, libgcc/unwind-dw2.c
(extract_cie_info).
"""

from typing import NamedTuple

from pyprof.symbolize.dwarf_cursor import OMITTED, WORD_MASK, DwarfCursor
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.layout import Image

_COMMON_LIMIT = 4096  # bytes of a CIE; real ones have 20 to 60
_ENTRY_LIMIT = 1 << 17  # bytes of an FDE; the largest of cc1, an extreme, has 20,064
_ABSOLUTE = 0x00
_ADDRESS_BYTES = 8


class FrameSection(NamedTuple):
    """Where call frame information lies; for entries found by address, the loaded segment around them."""

    file_offset: int
    limit: int  # file offset
    virtual_offset: int  # of its first byte
    is_debug: bool  # .debug_frame


class RawEntry(NamedTuple):
    """An entry's borders, as file offsets."""

    body: int  # behind the id or pointer
    limit: int  # where the next entry starts
    common: int | None  # where its CIE starts; None when it is one


class CommonEntry(NamedTuple):
    """A CIE: what the FDEs of many functions have in common."""

    code_factor: int
    data_factor: int
    return_column: int  # DWARF register
    pointer_encoding: int
    has_augmentation_size: bool  # in each FDE
    is_signal_frame: bool  # the caller was interrupted: its address is no return address
    program: bytes  # that each FDE's program continues
    program_start: int  # virtual offset


class FrameEntry(NamedTuple):
    """An FDE: the call frame information of the virtual offsets [start, limit)."""

    start: int
    limit: int
    common: CommonEntry
    program: bytes
    program_start: int  # virtual offset


def raw_entry(image: Image, section: FrameSection, position: int) -> RawEntry | None:
    """Return the borders of the entry at a file offset, None for a length of zero (the end of .eh_frame).

    Raises: SymbolizeError when the entry, or its CIE's start, is not inside the section.
    """
    if not section.file_offset <= position <= section.limit - 4:
        raise SymbolizeError("call frame information leads outside of its section")
    length = int.from_bytes(image[position : position + 4], "little")
    if length == 0:
        return None
    start, id_bytes = position + 4, 4
    if length == 0xFFFFFFFF and section.is_debug:  # no tool writes 64-bit .eh_frame, nor agrees on its form
        length = int.from_bytes(image[start : start + 8], "little")
        start, id_bytes = start + 8, 8
    limit = start + length
    if length < id_bytes or limit > section.limit:
        raise SymbolizeError("an entry of call frame information is larger than its section")
    identity = int.from_bytes(image[start : start + id_bytes], "little")
    if identity == ((1 << 8 * id_bytes) - 1 if section.is_debug else 0):
        return RawEntry(start + id_bytes, limit, None)
    common = section.file_offset + identity if section.is_debug else start - identity
    return RawEntry(start + id_bytes, limit, common)


def common_entry(image: Image, section: FrameSection, position: int) -> CommonEntry:
    """Return the CIE at a file offset.

    Raises: SymbolizeError when there is none, or it is of a kind that x86-64 does not use.
    """
    raw = raw_entry(image, section, position)
    if raw is None or raw.common is not None:
        raise SymbolizeError("call frame information does not lead to a CIE")
    cursor = _cursor(image, section, raw, _COMMON_LIMIT)
    version = cursor.byte()
    augmentation = cursor.string()
    if version not in (1, 3, 4):
        raise SymbolizeError(f"version {version} of call frame information")
    if version == 4 and cursor.take(2) != bytes([_ADDRESS_BYTES, 0]):
        raise SymbolizeError("call frame information with segments, or not for 64 bits")
    if augmentation == b"eh":  # gcc 2: a pointer that nobody needs
        cursor.take(_ADDRESS_BYTES)
    code_factor, data_factor = cursor.uleb128(), cursor.sleb128()
    return_column = cursor.byte() if version == 1 else cursor.uleb128()
    encoding = _ABSOLUTE
    if augmentation[:1] == b"z":
        size_bytes = cursor.uleb128()
        limit = cursor.position + size_bytes
        encoding = _pointer_encoding(cursor, augmentation)
        cursor.position = limit
    elif augmentation not in (b"", b"eh"):
        raise SymbolizeError(f"augmentation {augmentation[:16]!r} of call frame information")
    return CommonEntry(
        code_factor=code_factor,
        data_factor=data_factor,
        return_column=return_column,
        pointer_encoding=encoding,
        has_augmentation_size=augmentation[:1] == b"z",
        is_signal_frame=b"S" in augmentation,
        program_start=cursor.start + cursor.position,
        program=cursor.data[cursor.position :],
    )


def frame_entry(image: Image, section: FrameSection, position: int) -> FrameEntry:
    """Return the FDE at a file offset, with its CIE.

    Raises: SymbolizeError when there is none, or it cannot be read.
    """
    raw = raw_entry(image, section, position)
    if raw is None or raw.common is None:
        raise SymbolizeError("call frame information does not lead to an FDE")
    common = common_entry(image, section, raw.common)
    cursor = _cursor(image, section, raw, _ENTRY_LIMIT)
    start, limit = code_bounds(cursor, common.pointer_encoding)
    if common.has_augmentation_size:
        cursor.take(cursor.uleb128())
    program_start = cursor.start + cursor.position
    return FrameEntry(start, limit, common, cursor.data[cursor.position :], program_start)


def code_bounds(cursor: DwarfCursor, encoding: int) -> tuple[int, int]:
    """Return the virtual offsets [start, limit) that an FDE is for; its body starts with them.

    Raises: SymbolizeError when they cannot be read, or cannot be.
    """
    start = cursor.pointer(encoding)
    size_bytes = cursor.pointer_value(encoding)
    if not 0 <= size_bytes <= WORD_MASK - start:
        raise SymbolizeError("call frame information for a range of code that cannot be")
    return start, start + size_bytes


def body_cursor(image: Image, section: FrameSection, raw: RawEntry, size_bytes: int) -> DwarfCursor:
    """Return a cursor over the first bytes of an entry's body."""
    start = section.virtual_offset + raw.body - section.file_offset
    return DwarfCursor(image[raw.body : min(raw.limit, raw.body + size_bytes)], start)


def _cursor(image: Image, section: FrameSection, raw: RawEntry, limit_bytes: int) -> DwarfCursor:
    if raw.limit - raw.body > limit_bytes:
        raise SymbolizeError(f"an entry of call frame information has more than {limit_bytes} bytes")
    return body_cursor(image, section, raw, limit_bytes)


def _pointer_encoding(cursor: DwarfCursor, augmentation: bytes) -> int:
    """Return the encoding of the pointers in FDEs; the cursor is at the augmentation's data."""
    encoding = _ABSOLUTE
    for letter in augmentation[1:]:
        if letter == ord("R"):
            encoding = cursor.byte()
        elif letter == ord("L"):
            cursor.byte()
        elif letter == ord("P"):
            personality = cursor.byte()
            if personality != OMITTED:
                cursor.pointer_value(personality)
        elif letter not in b"SB":  # its data's size is not known: neither is where the next letter's is
            break
    return encoding
