"""The DWARF expressions that are common in call frame information, recognised by their bytes.

    77 08 80 00 3f 1a 3b 2a 33 24 22     .plt: breg7 8; breg16 0; lit15; and; lit11; ge; lit3; shl; plus
    77 a0 01 06                          __restore_rt: breg7 160; deref
    76 78 06                             a function that realigned its stack: breg6 -8; deref
    77 00 06 23 08                       OpenSSL: breg7 0; deref; plus_uconst 8
    76 00                                where a register is saved: breg6 0

Source: DWARF 5, section 2.5 and 7.7.1; binutils bfd/elfxx-x86.c (elf_x86_64_eh_frame_lazy_plt).
"""

import re
from typing import NamedTuple

from pyprof.symbolize.unwind_rule import Cfa

_NUMBER = rb"[\x80-\xff]{0,4}[\x00-\x7f]"  # LEB128, of the sizes that fit 32 bits
_CONSTANT = rb"[\x30-\x4f]|[\x08\x09][\x00-\xff]|[\x0a\x0b][\x00-\xff]{2}|[\x10\x11]" + _NUMBER
_PLT = re.compile(rb"\x77\x08\x80\x00\x3f\x1a([\x30-\x3f])\x2a\x33\x24\x22")
_DEREF = re.compile(
    rb"([\x76\x77])(" + _NUMBER + rb")\x06(?:\x23(" + _NUMBER + rb")|(" + _CONSTANT + rb")\x22)?"
)
_SLOT = re.compile(rb"([\x76\x77])(" + _NUMBER + rb")")
_BREG6 = b"\x76"
_LIMIT = 1 << 31


class CfaExpression(NamedTuple):
    """An expression for the CFA, in the terms of a Rule."""

    cfa: Cfa
    offset: int
    deref: int


class Slot(NamedTuple):
    """Where a register is saved."""

    is_rbp: bool  # relative to rbp, else to rsp
    offset: int


def cfa_expression(block: bytes) -> CfaExpression | None:
    """Return what an expression for the CFA means, None when it is not a common one."""
    if plt := _PLT.fullmatch(block):
        return CfaExpression(Cfa.PLT, plt[1][0] - 0x30, 0)
    deref = _DEREF.fullmatch(block)
    if deref is None:
        return None
    offset, addend = _signed(deref[2]), 0
    if deref[3]:
        addend = _unsigned(deref[3])
    elif deref[4]:
        addend = _constant(deref[4])
    cfa = Cfa.RBP_DEREF if deref[1] == _BREG6 else Cfa.RSP_DEREF
    fits = -_LIMIT <= offset < _LIMIT and -_LIMIT <= addend < _LIMIT
    return CfaExpression(cfa, offset, addend) if fits else None


def slot_expression(block: bytes) -> Slot | None:
    """Return where an expression says that a register is saved, None when it is not a common one."""
    slot = _SLOT.fullmatch(block)
    return Slot(slot[1] == _BREG6, _signed(slot[2])) if slot else None


def _constant(operation: bytes) -> int:
    """Return what lit0 to lit31, const1u to const2s, constu and consts push."""
    opcode, operand = operation[0], operation[1:]
    if opcode >= 0x30:
        return opcode - 0x30
    if opcode >= 0x10:
        return _signed(operand) if opcode == 0x11 else _unsigned(operand)
    return int.from_bytes(operand, "little", signed=opcode % 2 == 1)


def _unsigned(number: bytes) -> int:
    return sum((byte & 0x7F) << 7 * index for index, byte in enumerate(number))


def _signed(number: bytes) -> int:
    return _unsigned(number) - ((1 << 7 * len(number)) if number[-1] & 0x40 else 0)
