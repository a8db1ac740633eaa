"""Write call frame information, and ELF files that hold little else, byte by byte.

Every file has 4 kB of code at CODE_START (file offset CODE_OFFSET); .eh_frame_hdr and .eh_frame are loaded at
FRAMES_START (file offset FRAMES_OFFSET), and .debug_frame follows.

Source: Linux Standard Base Core 5.0, 10.6; DWARF 5, 6.4.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

CODE_OFFSET, CODE_START, CODE_BYTES = 0x1000, 0x401000, 0x1000
FRAMES_OFFSET, FRAMES_START = 0x2000, 0x402000
PCREL_SDATA4, ABSOLUTE = 0x1B, 0x00
# DW_CFA_def_cfa rsp+8, DW_CFA_offset rip at cfa-8: the state at the entry of a function
ENTRY = bytes([0x0C, 7, 8, 0x80 | 16, 1])
RAX, RDX, RCX, RBX, RSI, RDI, RBP, RSP, RIP = 0, 1, 2, 3, 4, 5, 6, 7, 16
_FORMS = {0x00: "<Q", 0x02: "<H", 0x03: "<I", 0x04: "<Q", 0x0A: "<h", 0x0B: "<i", 0x0C: "<q"}


class Cie(NamedTuple):
    program: bytes = ENTRY
    augmentation: bytes = b"zR"
    encoding: int = PCREL_SDATA4
    version: int = 1
    code_factor: int = 1
    data_factor: int = -8
    return_column: int = 16
    data: bytes | None = None  # of the augmentation, instead of the encoding alone


class Fde(NamedTuple):
    start: int  # from the start of the code
    size: int
    program: bytes = b""
    cie: Cie = Cie()


def uleb(value: int) -> bytes:
    """Return a number as ULEB128."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def sleb(value: int) -> bytes:
    """Return a number as SLEB128."""
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value & 0x7F])


def block(data: bytes) -> bytes:
    """Return bytes with their number before them, as an expression in a program."""
    return uleb(len(data)) + data


def pointer(value: int, encoding: int, place: int) -> bytes:
    """Return an encoded pointer. place: virtual offset where it will be."""
    if encoding & 0x70 == 0x10:
        value -= place
    return struct.pack(_FORMS[encoding & 0x0F], value)


def cie_bytes(cie: Cie, *, is_debug: bool = False) -> bytes:
    """Return an entry with its length."""
    body = bytes([cie.version]) + cie.augmentation + b"\0"
    body += bytes([8, 0]) if cie.version == 4 else b""
    body += bytes(8) if cie.augmentation == b"eh" else b""
    body += uleb(cie.code_factor) + sleb(cie.data_factor) + bytes([cie.return_column])
    if cie.augmentation[:1] == b"z":
        body += block(bytes([cie.encoding]) if cie.data is None else cie.data)
    return _entry(b"\xff" * 4 if is_debug else bytes(4), body + cie.program)


def fde_bytes(fde: Fde, identity: int, place: int) -> bytes:
    """Return an entry with its length. identity: the CIE pointer; place: virtual offset of the entry."""
    encoding = fde.cie.encoding if fde.cie.augmentation[:1] == b"z" else ABSOLUTE
    body = pointer(CODE_START + fde.start, encoding, place + 8) + pointer(fde.size, encoding & 0x0F, 0)
    body += b"\0" if fde.cie.augmentation[:1] == b"z" else b""
    return _entry(struct.pack("<I", identity), body + fde.program)


def frames(fdes: Sequence[Fde], place: int, *, is_debug: bool = False) -> tuple[bytes, list[int]]:
    """Return a section that starts at a virtual offset, and where in it each FDE is."""
    out = bytearray()
    cies: dict[Cie, int] = {}
    positions = []
    for fde in fdes:
        if fde.cie not in cies:
            cies[fde.cie] = len(out)
            out += cie_bytes(fde.cie, is_debug=is_debug)
        positions.append(len(out))
        identity = cies[fde.cie] if is_debug else len(out) + 4 - cies[fde.cie]
        out += fde_bytes(fde, identity, place + len(out))
    return bytes(out) + (b"" if is_debug else bytes(4)), positions


def search_table(fdes: Sequence[Fde], positions: Sequence[int], place: int) -> bytes:
    """Return .eh_frame_hdr for a section that is right behind it. place: its own virtual offset."""
    size = 12 + 8 * len(fdes)
    rows = sorted(
        (CODE_START + fde.start - place, size + position)
        for fde, position in zip(fdes, positions, strict=True)
    )
    header = bytes([1, 0x1B, 3, 0x3B]) + struct.pack("<iI", size - 4, len(fdes))
    return header + b"".join(struct.pack("<ii", *row) for row in rows)


def elf_with_frames(
    fdes: Sequence[Fde] = (),
    *,
    debug: Sequence[Fde] = (),
    code: Mapping[int, bytes] | None = None,  # by distance from the start of the code
    has_table: bool = True,
    has_sections: bool = True,
    machine: int = 62,
) -> bytes:
    """Return an ELF file. Without has_table it still has .eh_frame_hdr, but with no row."""
    start = FRAMES_START + 12 + 8 * len(fdes) * has_table
    section, positions = frames(fdes, start)
    table = search_table(*((fdes, positions) if has_table else ((), ())), FRAMES_START)
    debug_section, _ = frames(debug, 0, is_debug=True)
    body = bytearray(FRAMES_OFFSET) + table + section + debug_section
    for distance, data in (code or {}).items():
        body[CODE_OFFSET + distance : CODE_OFFSET + distance + len(data)] = data
    loaded = len(table) + len(section)
    segments = (
        _segment(1, 5, CODE_OFFSET, CODE_START, CODE_BYTES),
        _segment(1, 4, FRAMES_OFFSET, FRAMES_START, loaded),
        _segment(0x6474E550, 4, FRAMES_OFFSET, FRAMES_START, len(table)),
    )
    names = b"\0.eh_frame\0.debug_frame\0.shstrtab\0"
    frames_offset = FRAMES_OFFSET + len(table)
    sections = (
        bytes(64),
        _section(1, 2, start, frames_offset, len(section)),
        _section(11, 0, 0, FRAMES_OFFSET + loaded, len(debug_section)),
        _section(24, 0, 0, len(body), len(names), kind=3),
    )
    body += names
    counts = (
        (64, 56, len(segments), 64, len(sections), 3) if has_sections else (64, 56, len(segments), 64, 0, 0)
    )
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = ident + struct.pack("<2HI3QI6H", 3, machine, 1, 0, 64, len(body) * has_sections, 0, *counts)
    body[: 64 + 56 * len(segments)] = header + b"".join(segments)
    return bytes(body + b"".join(sections))


def _entry(identity: bytes, body: bytes) -> bytes:
    body += bytes(-(len(identity) + len(body) + 4) % 8)  # DW_CFA_nop
    return struct.pack("<I", len(identity) + len(body)) + identity + body


def _segment(kind: int, flags: int, offset: int, start: int, size: int) -> bytes:
    return struct.pack("<2I6Q", kind, flags, offset, start, start, size, size, 4)


def _section(name: int, flags: int, start: int, offset: int, size: int, *, kind: int = 1) -> bytes:
    return struct.pack("<2I4Q2I2Q", name, kind, flags, start, offset, size, 0, 0, 8, 0)
