"""Write small ELF files, so that each corner case is some lines in its test.

Every file has one code section: TEXT_BYTES at file offset TEXT_OFFSET, virtual offset TEXT_START.

Source: man 5 elf.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

TEXT_OFFSET, TEXT_START, TEXT_BYTES = 0x1000, 0x401000, 0x1000
NOTYPE, OBJECT, FUNC, GNU_IFUNC = 0, 1, 2, 10
LOCAL, GLOBAL, WEAK = 0, 1, 2
TEXT_SECTION = 1
PROGBITS, SYMTAB, STRTAB, NOTE, NOBITS, DYNSYM = 1, 2, 3, 7, 8, 11


class Sym(NamedTuple):
    name: bytes
    start: int  # from the start of the code
    size: int = 0
    kind: int = FUNC
    bind: int = GLOBAL
    section: int = TEXT_SECTION


class Extra(NamedTuple):
    """A further section, and the kinds (PT_*) of segments that say where it is."""

    name: str
    data: bytes
    start: int  # virtual offset
    segments: tuple[int, ...] = ()
    flags: int = 2  # SHF_ALLOC


class _Section(NamedTuple):
    name: str
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    entsize: int


def elf(
    symbols: Sequence[Sym] = (),
    dynamic: Sequence[Sym] = (),
    *,
    bits: int = 64,
    order: str = "<",
    machine: int = 62,
    build_id: bytes = b"",
    extra: Sequence[Extra] = (),
    has_sections: bool = True,
    has_segments: bool = True,
    note_segment: bool = True,
    overrides: Mapping[str, Mapping[str, int]] | None = None,  # section name -> header field -> value
    header: Mapping[str, int] | None = None,  # e_shnum, e_shoff, e_shstrndx, e_phnum
) -> bytes:
    """Return the bytes of an ELF file."""
    is_64 = bits == 64
    body = bytearray(TEXT_OFFSET + TEXT_BYTES)
    sections = [_Section("", 0, 0, 0, 0, 0, 0, 0)]

    def add(
        name: str, kind: int, data: bytes, *, flags: int = 0, addr: int = 0, link: int = 0, entry: int = 0
    ) -> int:
        body.extend(b"\0" * (-len(body) % 8))
        sections.append(_Section(name, kind, flags, addr, len(body), len(data), link, entry))
        body.extend(data)
        return len(sections) - 1

    sections.append(_Section(".text", PROGBITS, 6, TEXT_START, TEXT_OFFSET, TEXT_BYTES, 0, 0))
    for kind, suffix, entries in ((SYMTAB, "sym", symbols), (DYNSYM, "dyn", dynamic)):
        table, strings = _symbol_table(entries, is_64, order)
        names = {"sym": (".symtab", ".strtab"), "dyn": (".dynsym", ".dynstr")}[suffix]
        add(names[0], kind, table, link=len(sections) + 1, entry=24 if is_64 else 16)
        add(names[1], STRTAB, strings)
    note = struct.pack(order + "3I", 4, len(build_id), 3) + b"GNU\0" + build_id + b"\0" * (-len(build_id) % 4)
    note_offset = 0
    if build_id:
        note_offset = sections[add(".note.gnu.build-id", NOTE, note)].offset
    extra_segments = []
    for name, data, start, kinds, flags in extra:
        offset = sections[add(name, PROGBITS, data, flags=flags, addr=start)].offset
        extra_segments += [(kind, 4, offset, start, len(data)) for kind in kinds]
    names_section = add(
        ".shstrtab", STRTAB, b"\0" + b"\0".join(s.name.encode() for s in sections) + b"\0.shstrtab\0"
    )
    body.extend(b"\0" * (-len(body) % 8))
    section_start = len(body)
    if has_sections:
        for section in sections:
            changed = section._replace(**(overrides or {}).get(section.name, {}))
            body.extend(_section_header(changed, body, sections[names_section].offset, is_64, order))
    segments = [(1, 5, TEXT_OFFSET, TEXT_START, TEXT_BYTES)] if has_segments else []
    if build_id and note_segment and has_segments:
        segments.append((4, 4, note_offset, 0, len(note)))
    segments += extra_segments
    fields = {
        "e_phnum": len(segments),
        "e_shoff": section_start if has_sections else 0,
        "e_shnum": len(sections) if has_sections else 0,
        "e_shstrndx": names_section if has_sections else 0,
        **(header or {}),
    }
    start = _file_header(fields, is_64, order, machine) + b"".join(
        _segment(s, is_64, order) for s in segments
    )
    body[: len(start)] = start
    return bytes(body)


def _symbol_table(entries: Sequence[Sym], is_64: bool, order: str) -> tuple[bytes, bytes]:
    strings = bytearray(b"\0")
    table = bytearray(24 if is_64 else 16)
    for sym in entries:
        info, value = sym.bind << 4 | sym.kind, TEXT_START + sym.start
        if is_64:
            table += struct.pack(order + "IBBHQQ", len(strings), info, 0, sym.section, value, sym.size)
        else:
            table += struct.pack(order + "IIIBBH", len(strings), value, sym.size, info, 0, sym.section)
        strings += sym.name + b"\0"
    return bytes(table), bytes(strings)


def _section_header(s: _Section, body: bytearray, names_offset: int, is_64: bool, order: str) -> bytes:
    name = body.find(b"\0" + s.name.encode() + b"\0", names_offset) + 1 - names_offset if s.name else 0
    form = order + ("2I4Q2I2Q" if is_64 else "10I")
    return struct.pack(form, name, s.type, s.flags, s.addr, s.offset, s.size, s.link, 0, 1, s.entsize)


def _segment(segment: tuple[int, int, int, int, int], is_64: bool, order: str) -> bytes:
    kind, flags, offset, address, size = segment
    if is_64:
        return struct.pack(order + "2I6Q", kind, flags, offset, address, address, size, size, 4)
    return struct.pack(order + "8I", kind, offset, address, address, size, size, flags, 4)


def _file_header(fields: Mapping[str, int], is_64: bool, order: str, machine: int) -> bytes:
    ident = bytes([0x7F, *b"ELF", 2 if is_64 else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    header_bytes, segment_bytes, section_bytes = (64, 56, 64) if is_64 else (52, 32, 40)
    form = order + ("2HI3QI6H" if is_64 else "2HI3II6H")
    counts = segment_bytes, fields["e_phnum"], section_bytes, fields["e_shnum"], fields["e_shstrndx"]
    return ident + struct.pack(
        form, 3, machine, 1, 0, header_bytes, fields["e_shoff"], 0, header_bytes, *counts
    )
