"""Names for the stubs of a procedure linkage table, which no symbol names: `malloc@plt`.

A stub jumps through a slot that a relocation fills, and the relocation names the function. Stubs are told
by that jump, not by counting entries, so it does not matter how the linker ordered them:

    f3 0f 1e fa                 endbr64                      .plt.sec of a binary built with -fcf-protection
    f2 ff 25 a5 2f 00 00        bnd jmp *0x2fa5(%rip)
    ff 25 e2 2f 00 00           jmp *0x2fe2(%rip)            .plt, .plt.got
    68 00 00 00 00              push $0x0
    e9 e0 ff ff ff              jmp .plt

Only x86-64 is read so; elsewhere the stubs stay without a name.

Source: x86-64 psABI, section "Procedure Linkage Table"; man 5 elf (Rela).
"""

import struct

from pyprof.symbolize.layout import SHF_EXECINSTR, SHT_RELA, Image, Layout, Section, section_name, string

_EM_X86_64 = 62
_PLT_NAMES = (b".plt", b".plt.sec", b".plt.got")
_JUMP = b"\xff\x25"
_RELOCATION_BYTES = 24  # Elf64_Rela: offset, info (symbol index << 32 | type), addend
_SYMBOL_BYTES = 24  # Elf64_Sym: name is its first word


def plt_target(image: Image, layout: Layout, target: int) -> tuple[bytes, int] | None:
    """Return the name of the function that the stub at a virtual offset calls, and the stub's start."""
    if layout.machine != _EM_X86_64 or not layout.is_64 or layout.order != "<":
        return None
    for section in layout.sections:
        distance = target - section.virtual_offset
        if section.flags & SHF_EXECINSTR and 0 <= distance < section.size_bytes:
            if section_name(image, layout, section) not in _PLT_NAMES:
                return None
            stub_bytes = 8 if section.entry_bytes == 8 else 16
            start = distance - distance % stub_bytes
            slot = _slot(image, section, start, min(start + stub_bytes, section.size_bytes))
            name = _slot_name(image, layout, slot)
            return (name, section.virtual_offset + start) if name else None
    return None


def _slot(image: Image, section: Section, start: int, limit: int) -> int:
    """Return the virtual offset of the slot that a stub jumps through, 0 when it holds no such jump."""
    stub = image[section.file_offset + start : section.file_offset + limit]
    jump = stub.find(_JUMP)
    if jump < 0 or jump + 6 > len(stub):
        return 0
    (displacement,) = struct.unpack_from("<i", stub, jump + 2)
    return int(section.virtual_offset + start + jump + 6 + displacement)


def _slot_name(image: Image, layout: Layout, slot: int) -> bytes:
    """Return the name of the symbol whose address a relocation puts into a slot; empty when none does."""
    if not 0 < slot < 1 << 64:
        return b""
    wanted = struct.pack("<Q", slot)
    for section in layout.sections:
        if section.kind == SHT_RELA and section.link < len(layout.sections):
            limit = section.file_offset + section.size_bytes
            position = image.find(wanted, section.file_offset, limit)
            is_entry = position >= 0 and (position - section.file_offset) % _RELOCATION_BYTES == 0
            if is_entry and position + _RELOCATION_BYTES <= limit:
                (info,) = struct.unpack_from("<Q", image, position + 8)
                return _symbol_name(image, layout, layout.sections[section.link], info >> 32)
    return b""


def _symbol_name(image: Image, layout: Layout, table: Section, index: int) -> bytes:
    start = index * _SYMBOL_BYTES
    if index == 0 or start + _SYMBOL_BYTES > table.size_bytes or table.link >= len(layout.sections):
        return b""
    (position,) = struct.unpack_from("<I", image, table.file_offset + start)
    return string(image, layout.sections[table.link], position)
