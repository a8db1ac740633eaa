"""The structure of an ELF file: its segments, its sections and its build id.

Reads the header tables and notes only, with struct. pyelftools reads the same, but here it costs 45 ms of
import and 2 to 4 ms for each file, which for 60 libraries is more than all the rest of symbolization;
the tests compare the two. Nothing in a table is believed: an offset or a size that leads outside the
file drops that entry, and the number of entries is bounded.

Source: man 5 elf; System V gABI, chapters 4 and 5; include/uapi/linux/elf.h.
"""

import os
import struct
from collections.abc import Iterator
from mmap import MAP_PRIVATE, PROT_READ, mmap
from typing import NamedTuple

from pyprof.symbolize.error import SymbolizeError

Image = bytes | mmap  # the whole file
FILE_LIMIT = 1 << 30  # bytes of a file that is read at all

PT_LOAD, PT_NOTE, PF_X = 1, 4, 1
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOTE, SHT_NOBITS, SHT_DYNSYM = 1, 2, 3, 4, 7, 8, 11
SHF_EXECINSTR = 4
_NT_GNU_BUILD_ID = 3
_ENTRY_LIMIT = 65_536  # sections or segments; real files have up to some thousands
_NOTE_LIMIT = 4096  # notes of one file
_STRING_LIMIT = 16_384  # bytes; no symbol table of a real program has longer names
_BUILD_ID_LIMIT = 64  # bytes; SHA-1 has 20


class Segment(NamedTuple):
    """A program header; half-open ranges of equal length."""

    kind: int  # PT_*
    flags: int  # PF_*
    file_offset: int
    virtual_offset: int
    size_bytes: int  # in the file; memory beyond it is zero and holds no code
    alignment: int


class Section(NamedTuple):
    """A section header. `size_bytes` is 0 where the header claims bytes that the file does not have."""

    name_offset: int  # into the section names
    kind: int  # SHT_*
    flags: int  # SHF_*
    virtual_offset: int
    file_offset: int
    size_bytes: int  # in the file: 0 for NOBITS
    memory_bytes: int  # as the header says, for ranges of virtual offsets only
    link: int  # index of the section that this one refers to
    entry_bytes: int  # of one entry in a table, 0 when it is none


class Layout(NamedTuple):
    """What the header tables of an ELF file say."""

    is_64: bool
    order: str  # of bytes, for struct: "<" or ">"
    machine: int  # EM_*
    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]
    names_section: int  # index of the section names


class _Header(NamedTuple):
    machine: int
    segments_offset: int
    sections_offset: int
    segment_bytes: int
    segment_count: int
    section_bytes: int
    section_count: int
    names_section: int


def mapped_image(descriptor: int) -> mmap:
    """Return the bytes of the file that `descriptor` is open for.

    Raises: SymbolizeError when it is empty or larger than 1 GiB, or cannot be mapped.
    """
    try:
        if os.fstat(descriptor).st_size > FILE_LIMIT:
            raise SymbolizeError("larger than 1 GiB")
        return mmap(descriptor, 0, prot=PROT_READ, flags=MAP_PRIVATE)
    except (OSError, ValueError) as error:
        raise SymbolizeError(f"cannot be mapped: {error}") from error


def elf_layout(image: Image) -> Layout:
    """Return the segments and sections of an ELF file.

    Raises: SymbolizeError when it is not one, or its tables are larger than any real file's.
    """
    if image[:4] != b"\x7fELF" or len(image) < 20 or image[4] not in (1, 2) or image[5] not in (1, 2):
        raise SymbolizeError("not an ELF file")
    is_64, order = image[4] == 2, "<" if image[5] == 1 else ">"
    header = _header(image, is_64, order)
    raw_sections = _table(image, header.sections_offset, header.section_count, header.section_bytes)
    sections = tuple(_section(entry, is_64, order, len(image)) for entry in raw_sections)
    raw_segments = _table(image, header.segments_offset, header.segment_count, header.segment_bytes)
    segments = tuple(_segment(entry, is_64, order, len(image)) for entry in raw_segments)
    return Layout(is_64, order, header.machine, segments, sections, header.names_section)


def build_id(image: Image, layout: Layout) -> str:
    """Return the GNU build id in lower-case hexadecimal, "" when the file has none."""
    ranges = [(s.file_offset, s.size_bytes, s.alignment) for s in layout.segments if s.kind == PT_NOTE]
    ranges += [(s.file_offset, s.size_bytes, 4) for s in layout.sections if s.kind == SHT_NOTE]
    budget = _NOTE_LIMIT
    for start, size_bytes, alignment in ranges:
        position, limit = start, start + size_bytes
        pad = 8 if alignment == 8 else 4
        while position + 12 <= limit and budget > 0:
            budget -= 1
            name_bytes, value_bytes, kind = struct.unpack_from(layout.order + "3I", image, position)
            name_start = position + 12
            value_start = name_start + _aligned(name_bytes, pad)
            if value_start + value_bytes > limit:
                break
            is_build_id = kind == _NT_GNU_BUILD_ID and image[name_start : name_start + 4] == b"GNU\0"
            if is_build_id and name_bytes == 4 and 0 < value_bytes <= _BUILD_ID_LIMIT:
                return image[value_start : value_start + value_bytes].hex()
            position = value_start + _aligned(value_bytes, pad)
    return ""


def section_name(image: Image, layout: Layout, section: Section) -> bytes:
    """Return a section's name; empty when it cannot be read."""
    if layout.names_section >= len(layout.sections):
        return b""
    return string(image, layout.sections[layout.names_section], section.name_offset)


def string(image: Image, table: Section, position: int) -> bytes:
    """Return the string at a position of a string table, without a "@VERSION" at its end.

    Empty when it cannot be read; cut at 16 kB.
    """
    if position >= table.size_bytes:
        return b""
    start = table.file_offset + position
    limit = min(start + _STRING_LIMIT, table.file_offset + table.size_bytes)
    end = image.find(b"\0", start, limit)
    name = image[start : end if end >= 0 else limit]
    return name[:1] + name[1:].partition(b"@")[0]


def virtual_offset(layout: Layout, file_offset: int) -> int | None:
    """Return where a byte of the file is in the program, None when it is in no loaded segment.

    Where segments share a page of the file, the executable one is meant: this is for code.
    """
    found = None
    for segment in layout.segments:
        distance = file_offset - segment.file_offset
        if segment.kind == PT_LOAD and 0 <= distance < segment.size_bytes:
            if segment.flags & PF_X:
                return segment.virtual_offset + distance
            if found is None:
                found = segment.virtual_offset + distance
    return found


def _header(image: Image, is_64: bool, order: str) -> _Header:
    """Return the fields after e_ident. A count that does not fit is in the first section header."""
    # e_type machine version entry phoff shoff flags ehsize phentsize phnum shentsize shnum shstrndx
    layout = struct.Struct(order + ("2HI3QI6H" if is_64 else "2HI3II6H"))
    if len(image) < 16 + layout.size:
        raise SymbolizeError("not an ELF file: shorter than its header")
    fields = layout.unpack_from(image, 16)
    header = _Header(fields[1], fields[4], fields[5], *fields[8:13])
    first = next(_table(image, header.sections_offset, 1, header.section_bytes), None)
    if header.sections_offset and first is not None and len(first) >= (64 if is_64 else 40):
        size_bytes, link, info = struct.unpack_from(
            order + ("Q2I" if is_64 else "3I"), first, 32 if is_64 else 20
        )
        if header.section_count == 0:
            header = header._replace(section_count=size_bytes)
        if header.names_section == 0xFFFF:
            header = header._replace(names_section=link)
        if header.segment_count == 0xFFFF:
            header = header._replace(segment_count=info)
    if max(header.section_count, header.segment_count) > _ENTRY_LIMIT:
        raise SymbolizeError(f"more than {_ENTRY_LIMIT} sections or segments")
    return header


def _table(image: Image, start: int, count: int, entry_bytes: int) -> Iterator[bytes]:
    """Yield the entries of a header table that lie in the file."""
    if start == 0 or entry_bytes < 32:
        return
    for position in range(start, start + count * entry_bytes, entry_bytes):
        if position + entry_bytes > len(image):
            return
        yield image[position : position + entry_bytes]


def _segment(entry: bytes, is_64: bool, order: str, file_bytes: int) -> Segment:
    if is_64:
        if len(entry) < 56:
            raise SymbolizeError("program headers are too short")
        kind, flags, offset, address, _, size_bytes, _, alignment = struct.unpack_from(order + "2I6Q", entry)
    else:
        kind, offset, address, _, size_bytes, _, flags, alignment = struct.unpack_from(order + "8I", entry)
    size_bytes = max(0, min(size_bytes, file_bytes - offset))
    return Segment(kind, flags, offset, address, size_bytes, alignment)


def _section(entry: bytes, is_64: bool, order: str, file_bytes: int) -> Section:
    if len(entry) < (64 if is_64 else 40):
        raise SymbolizeError("section headers are too short")
    fields = struct.unpack_from(order + ("2I4Q2I2Q" if is_64 else "10I"), entry)
    name_offset, kind, flags, address, offset, memory_bytes, link, _, _, entry_bytes = fields
    is_here = kind != SHT_NOBITS and offset + memory_bytes <= file_bytes
    size_bytes = memory_bytes if is_here else 0
    return Section(name_offset, kind, flags, address, offset, size_bytes, memory_bytes, link, entry_bytes)


def _aligned(size_bytes: int, alignment: int) -> int:
    return -(-size_bytes // alignment) * alignment
