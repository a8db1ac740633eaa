"""Write call frame information, so that each corner case is some lines in its test.

    table_of(Cie(), Fde(0x10, 0x20, advance(4) + def_cfa_offset(16)))

The code is that of elfwriter.py: TEXT_BYTES from TEXT_START on; an FDE's start is a place in it.

Source: LSB 5.0 core, section 10.6; DWARF 5, section 6.4.
"""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from elfwriter import TEXT_BYTES, TEXT_OFFSET, TEXT_START, Extra, elf

from pyprof.symbolize.layout import elf_layout
from pyprof.symbolize.unwind_rule import Cfa, Rbp, Rule
from pyprof.symbolize.unwind_table import UnwindTable, lookup, unwind_table

FRAME_START = 0x403000  # virtual offset of .eh_frame
AT_ENTRY = Rule(Cfa.RSP, offset=8)
GAP = Rule(Cfa.NONE)
UNSUPPORTED = Rule(Cfa.UNSUPPORTED)


def uleb(value: int) -> bytes:
    number = bytearray()
    while value >= 0x80:
        number.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*number, value])


def sleb(value: int) -> bytes:
    number = bytearray()
    while not -0x40 <= value < 0x40:
        number.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*number, value & 0x7F])


def advance(distance: int) -> bytes:
    return bytes([0x40 | distance])


def offset(register: int, factored: int) -> bytes:
    return bytes([0x80 | register]) + uleb(factored)


def restore(register: int) -> bytes:
    return bytes([0xC0 | register])


def def_cfa(register: int, distance: int) -> bytes:
    return b"\x0c" + uleb(register) + uleb(distance)


def def_cfa_register(register: int) -> bytes:
    return b"\x0d" + uleb(register)


def def_cfa_offset(distance: int) -> bytes:
    return b"\x0e" + uleb(distance)


def def_cfa_expression(block: bytes) -> bytes:
    return b"\x0f" + uleb(len(block)) + block


def expression(register: int, block: bytes) -> bytes:
    return b"\x10" + uleb(register) + uleb(len(block)) + block


REMEMBER, RESTORE_STATE, NOP = b"\x0a", b"\x0b", b"\0"
USUAL = def_cfa(7, 8) + offset(16, 1)  # what every CIE of x86-64 says


class Cie(NamedTuple):
    program: bytes = USUAL
    augmentation: bytes = b"zR"
    data: bytes | None = b"\x1b"  # None: without its size
    version: int = 1
    code_alignment: int = 1
    data_alignment: int = -8
    column: int = 16  # of the return address


class Fde(NamedTuple):
    start: int  # from the start of the code
    size: int
    program: bytes = b""
    augmentation: bytes | None = b"\0"  # with its size
    cie: int | None = None  # place of its CIE in the section; that before this FDE when None


def frames(records: Sequence[Cie | Fde | bytes], *, is_debug: bool = False, is_long: bool = False) -> bytes:
    """Return the bytes of a section: .eh_frame, or .debug_frame."""
    section, encoding, last_cie = bytearray(), 0, 0
    for record in records:
        if isinstance(record, bytes):
            section += record
            continue
        place = len(section) + (12 if is_long else 4)  # of the id
        if isinstance(record, Cie):
            last_cie = len(section)
            encoding = record.data[-1] if record.data and b"R" in record.augmentation else 0
            body = _cie(record)
        else:
            body = _fde(record, encoding, FRAME_START + place + (8 if is_debug and is_long else 4))
        section += _record(_id(record, last_cie, place, is_debug, is_long) + body, is_long)
    return bytes(section)


def image_of(*records: Cie | Fde | bytes, **options: Any) -> bytes:
    """Return an ELF file with a .eh_frame of these records."""
    return elf(extra=[Extra(".eh_frame", frames(records), FRAME_START)], **options)


def table_of(*records: Cie | Fde | bytes) -> UnwindTable:
    """Return the unwind table of these records."""
    image = image_of(*records)
    return unwind_table(image, elf_layout(image))


def rules_of(table: UnwindTable) -> dict[int, Rule]:
    """Return the place in the code of each change of the rule, and the rule; GAP before the first."""
    rules = {}
    last = GAP
    for place in range(TEXT_BYTES):
        rule = lookup(table, TEXT_OFFSET + place)
        if rule != last:
            rules[place] = last = rule
    return rules


def rules_after(*programs: bytes, cie: Cie = Cie()) -> list[Rule]:  # noqa: B008
    """Return the rules after each of some parts of a program, in a function of its own."""
    size = len(programs) + 1
    program = b"".join(advance(1) + part for part in programs)
    table = table_of(cie, Fde(0x10, size, program))
    assert lookup(table, TEXT_OFFSET + 0x0F) == lookup(table, TEXT_OFFSET + 0x10 + size) == GAP
    return [lookup(table, TEXT_OFFSET + 0x11 + index) for index in range(len(programs))]


def rule_after(program: bytes, cie: Cie = Cie()) -> Rule:  # noqa: B008
    """Return the rule after a program."""
    return rules_after(program, cie=cie)[0]


def rbx_after(program: bytes, cie: Cie = Cie()) -> int:  # noqa: B008
    """Return what becomes of rbx after a program, in a file that has a function with a CFA in rbx."""
    table = table_of(cie, Fde(0x10, 2, advance(1) + program), Cie(), Fde(0x20, 8, def_cfa(3, 8)))
    return lookup(table, TEXT_OFFSET + 0x11).rbx


def saved(rbp: Rbp, rbp_offset: int = 0) -> Rule:
    """Return the rule at a function's entry, but for rbp."""
    return AT_ENTRY._replace(rbp=rbp, rbp_offset=rbp_offset)


def _cie(cie: Cie) -> bytes:
    head = bytes([cie.version]) + cie.augmentation + b"\0" + (b"\x08\0" if cie.version == 4 else b"")
    head += uleb(cie.code_alignment) + sleb(cie.data_alignment)
    head += bytes([cie.column]) if cie.version == 1 else uleb(cie.column)
    if cie.augmentation and cie.data is not None:
        head += uleb(len(cie.data)) + cie.data
    return head + cie.program


def _fde(fde: Fde, encoding: int, place: int) -> bytes:
    form = {0: "<Q", 2: "<H", 3: "<I", 4: "<Q", 0xA: "<h", 0xB: "<i", 0xC: "<q"}.get(encoding & 0xF, "<Q")
    start = TEXT_START + fde.start - (place if encoding & 0x10 else 0)
    start_bytes = (start % (1 << 64)).to_bytes(8, "little")[: struct.calcsize(form)]
    return start_bytes + struct.pack(form.upper(), fde.size) + (fde.augmentation or b"") + fde.program


def _id(record: Cie | Fde, last_cie: int, place: int, is_debug: bool, is_long: bool) -> bytes:
    form = "<Q" if is_debug and is_long else "<I"
    if isinstance(record, Cie):
        value = (1 << 8 * struct.calcsize(form)) - 1 if is_debug else 0
    else:
        cie = last_cie if record.cie is None else record.cie
        value = cie if is_debug else (place - cie) & 0xFFFFFFFF
    return struct.pack(form, value)


def _record(body: bytes, is_long: bool) -> bytes:
    body += NOP * (-len(body) % 4)
    return (
        b"\xff\xff\xff\xff" + struct.pack("<Q", len(body)) if is_long else struct.pack("<I", len(body))
    ) + body
