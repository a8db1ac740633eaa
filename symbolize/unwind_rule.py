"""How to get from a frame to its caller's: the rule for a range of code.

    CFA = rsp + 16, rbp saved at CFA - 16       Rule(Cfa.RSP, Rbp.AT_CFA, 0, -16, 16, 0)

The CFA (canonical frame address) is the caller's rsp; the return address is at CFA - 8.

As 16 bytes, little-endian, for the walker in the kernel:

    byte   0    1    2    3    4 5         6 7    8 9 10 11   12 13 14 15
           cfa  rbp  reg  0    rbp_offset  rbx    offset      deref

Source: x86-64 psABI, section 3.2.2 (the stack frame) and figure 3.36 (DWARF register numbers).
"""

import struct
from enum import IntEnum
from typing import NamedTuple

RULE_BYTES = 16
RBX_UNKNOWN, RBX_SAME = 0, 1  # of Rule.rbx

_RECORD = struct.Struct("<BBBBhhii")


class Cfa(IntEnum):
    """How the CFA is computed, and what else a frame can be."""

    NONE = 0  # a gap: no unwind information for this code
    RSP = 1  # rsp + offset
    RBP = 2  # rbp + offset
    PLT = 3  # rsp + 8 + ((rip & 15) >= offset) * 8
    BOTTOM = 4  # no caller: the return address is undefined
    SIGNAL = 5  # the kernel's signal frame: rip at rsp + 168, rsp at rsp + 160, rbp at rsp + 120
    UNSUPPORTED = 6  # there is a rule, but not in these terms
    RSP_DEREF = 7  # *(rsp + offset) + deref
    RBP_DEREF = 8  # *(rbp + offset) + deref
    REGISTER = 9  # register `reg` + offset; known in the leaf frame only, but for rbx


class Rbp(IntEnum):
    """Where the caller's rbp is."""

    SAME = 0  # not saved yet
    AT_CFA = 1  # at CFA + rbp_offset
    UNDEFINED = 2  # lost
    AT_RBP = 3  # at rbp + rbp_offset
    UNSUPPORTED = 4  # somewhere, but not in these terms


_CFA, _RBP = frozenset(map(int, Cfa)), frozenset(map(int, Rbp))


class Rule(NamedTuple):
    """The rule in force at some place of the code."""

    cfa: Cfa
    rbp: Rbp = Rbp.SAME
    reg: int = 0  # DWARF number, with Cfa.REGISTER only
    rbp_offset: int = 0
    offset: int = 0
    deref: int = 0
    # Saved at CFA + rbx, a multiple of 8; RBX_SAME: not saved yet; RBX_UNKNOWN: lost, or nobody needs it.
    # It is told in the tables in which the CFA of some frame is relative to rbx.
    rbx: int = RBX_UNKNOWN


def rule_bytes(rule: Rule) -> bytes:
    """Return the 16 bytes of a rule. Raises: struct.error when a number does not fit."""
    return _RECORD.pack(rule.cfa, rule.rbp, rule.reg, 0, rule.rbp_offset, rule.rbx, rule.offset, rule.deref)


def rule_at(rules: bytes, index: int) -> Rule:
    """Return a rule of a table. Raises: ValueError, struct.error when it is not there or not a rule."""
    cfa, rbp, reg, _, rbp_offset, rbx, offset, deref = _RECORD.unpack_from(rules, index * RULE_BYTES)
    return Rule(Cfa(cfa), Rbp(rbp), reg, rbp_offset, offset, deref, rbx)


def are_rules(rules: bytes) -> bool:
    """Return whether bytes are rules of which the first is Cfa.NONE."""
    return rules[:RULE_BYTES] == bytes(RULE_BYTES) and all(
        cfa in _CFA and rbp in _RBP and reg < 16 and not zero and (rbx == RBX_SAME or rbx % 8 == 0)
        for cfa, rbp, reg, zero, _, rbx, _, _ in _RECORD.iter_unpack(rules)
    )
