"""Where an ELF file holds its call frame information.

    section    .eh_frame         most files
    segment    GNU_EH_FRAME      a file without section headers: .eh_frame_hdr says where .eh_frame starts
    section    .debug_frame      Go, and assembly with ".cfi_sections .debug_frame"

    01 1b 03 3b | 14 5a 00 00    .eh_frame_hdr: version; encodings of pointer, count, table; the pointer

Source: LSB 5.0 core, section 10.6; man 5 elf.
"""

import struct
from typing import NamedTuple

from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.frame_records import record_starts
from pyprof.symbolize.layout import PT_LOAD, Image, Layout, Section, Segment, section_name
from pyprof.symbolize.pointer_encoding import ABSOLUTE, FORMS, PLACE_RELATIVE, SECTION_RELATIVE

SECTION_LIMIT = 32 << 20  # bytes; TensorFlow has 29 MiB, and nothing that is known has more

_PT_GNU_EH_FRAME = 0x6474E550
_SHF_COMPRESSED = 0x800
_STRUCT_FORMS = {"<u2": "<H", "<u4": "<I", "<u8": "<Q", "<i2": "<h", "<i4": "<i", "<i8": "<q"}


class FrameSection(NamedTuple):
    """A range of the file that holds CIEs and FDEs."""

    file_offset: int
    size_bytes: int
    virtual_offset: int
    is_debug_frame: bool  # of two dialects: .debug_frame, else .eh_frame


def frame_section(image: Image, layout: Layout) -> FrameSection | None:
    """Return where the call frame information is, None when there is none.

    .debug_frame only where .eh_frame describes no code. Raises: SymbolizeError when it is larger than
    SECTION_LIMIT.
    """
    eh_frame = _section(image, layout, b".eh_frame")
    found = _in_file(eh_frame, False) if eh_frame else _by_header(image, layout)
    if found is None or not _describes_code(image, found):
        debug_frame = _section(image, layout, b".debug_frame")
        found = _in_file(debug_frame, True) if debug_frame else None
    if found and found.size_bytes > SECTION_LIMIT:
        raise SymbolizeError("more call frame information than any program has")
    return found


def _section(image: Image, layout: Layout, name: bytes) -> Section | None:
    return next((s for s in layout.sections if section_name(image, layout, s) == name), None)


def _in_file(section: Section, is_debug_frame: bool) -> FrameSection | None:
    """Return the range of a section; None when its bytes are elsewhere, or compressed."""
    if section.size_bytes == 0 or section.flags & _SHF_COMPRESSED:
        return None
    return FrameSection(section.file_offset, section.size_bytes, section.virtual_offset, is_debug_frame)


def _by_header(image: Image, layout: Layout) -> FrameSection | None:
    """Return .eh_frame by the pointer in .eh_frame_hdr, up to the record of length 0 that ends it."""
    header = next((s for s in layout.segments if s.kind == _PT_GNU_EH_FRAME and s.size_bytes >= 12), None)
    start = _header_pointer(image, header) if header else None
    for segment in layout.segments:
        distance = (start or 0) - segment.virtual_offset
        if start and segment.kind == PT_LOAD and 0 <= distance < segment.size_bytes:
            size_bytes = min(segment.size_bytes - distance, SECTION_LIMIT)
            whole = FrameSection(segment.file_offset + distance, size_bytes, start, False)
            return whole._replace(size_bytes=_terminated_bytes(image, whole))
    return None


def _header_pointer(image: Image, header: Segment) -> int | None:
    """Return the virtual offset of .eh_frame, None when .eh_frame_hdr is not understood."""
    version, encoding = image[header.file_offset], image[header.file_offset + 1]
    form = FORMS.get(encoding & 0xF)
    bases = {ABSOLUTE: 0, PLACE_RELATIVE: header.virtual_offset + 4, SECTION_RELATIVE: header.virtual_offset}
    base = bases.get(encoding & 0xF0)
    if version != 1 or form is None or base is None:
        return None
    (value,) = struct.unpack_from(_STRUCT_FORMS[form], image, header.file_offset + 4)
    return int(base + value) % (1 << 64)


def _terminated_bytes(image: Image, section: FrameSection) -> int:
    """Return the size of the records up to the first of length 0, which is where the linker ends them."""
    with memoryview(image) as whole:
        records = whole[section.file_offset : section.file_offset + section.size_bytes]
        last = max(record_starts(records, ends_at_zero=True), default=None)
        if last is None:
            return 0
        length, long_length = struct.unpack_from("<IQ", records, last)
        return int(last + 12 + long_length if length == 0xFFFFFFFF else last + 4 + length)


def _describes_code(image: Image, section: FrameSection) -> bool:
    """Return whether a section has an FDE: a record with an id that is not a CIE's."""
    with memoryview(image) as whole:
        records = whole[section.file_offset : section.file_offset + section.size_bytes]
        for start in record_starts(records):
            is_long = bytes(records[start : start + 4]) == b"\xff\xff\xff\xff"
            place = start + (12 if is_long else 4)
            if any(records[place : place + 4]):
                return True
    return False
