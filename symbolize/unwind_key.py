"""Rules as numbers of 64 bits, which are quick to compare, sort and count.

    bits 63-32           31-16        15-11   10-8   7-4   3-0
         offset          rbp_offset   0       rbp    reg   cfa

An expression's number takes the place of the offset. No rule (Cfa.NONE) is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyprof.symbolize.arrays import np
from pyprof.symbolize.call_frame_changes import BY_EXPRESSION, Expressions, Saved, State
from pyprof.symbolize.unwind_rule import Cfa, Rbp, Rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RA_USUAL = Saved.AT_CFA | -8 << 8
_SIGNAL_CFA = b"\x77\xa0\x01\x06"  # breg7 160; deref
_SIGNAL_RA, _SIGNAL_RBP, _SIGNAL_RSP = (Saved.AT_RSP | offset << 8 for offset in (168, 120, 160))
_BY_EXPRESSION = (Cfa.PLT, Cfa.RSP_DEREF, Cfa.RBP_DEREF)


def rule_keys(state: State, is_signal: NDArray[np.bool_], expressions: Expressions) -> NDArray[np.uint64]:
    """Return the keys of the rules that states amount to.

    `is_signal` tells which states are of signal frames. What is not expressible is Cfa.UNSUPPORTED.
    """
    by_expression = state.base & BY_EXPRESSION != 0
    value = np.where(by_expression, state.base >> 16, state.offset)
    is_usual = (state.ra == _RA_USUAL) & (state.rsp == Saved.DEFAULT) & ~is_signal & _fits(value, 32)
    is_usual &= state.base != Cfa.UNSUPPORTED
    keys = state.base & 0xFF | _rbp_bits(state.rbp) | value << 32
    keys = np.where(is_usual, keys, int(Cfa.UNSUPPORTED))
    if is_signal.any():
        keys[is_signal & _is_kernel_frame(state, expressions)] = Cfa.SIGNAL
    keys[state.ra == Saved.UNDEFINED] = Cfa.BOTTOM
    return keys.astype(np.uint64)


def key_rule(key: int, expressions: Expressions) -> Rule:
    """Return the rule that a key stands for."""
    cfa, rbp, reg = Cfa(key & 0xF), Rbp(key >> 8 & 7), key >> 4 & 0xF
    rbp_offset, value = _signed(key >> 16 & 0xFFFF, 16), _signed(key >> 32, 32)
    if cfa in _BY_EXPRESSION:
        return Rule(cfa, rbp, 0, rbp_offset, expressions.known[value].offset, expressions.known[value].deref)
    return Rule(cfa, rbp, reg, rbp_offset, value)


def _rbp_bits(rbp: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bits of a key for rbp."""
    saved, offset = rbp & 0xFF, rbp >> 8
    kinds = np.where((saved == Saved.AT_RSP) | ~_fits(offset, 16), int(Rbp.UNSUPPORTED), saved)
    kinds[saved == Saved.SAME] = Rbp.SAME
    has_offset = (kinds == Rbp.AT_CFA) | (kinds == Rbp.AT_RBP)
    return kinds << 8 | np.where(has_offset, (offset & 0xFFFF) << 16, 0)


def _is_kernel_frame(state: State, expressions: Expressions) -> NDArray[np.bool_]:
    """Return which states find the registers where the kernel puts them for a signal handler."""
    is_known: NDArray[np.bool_] = (state.base == expressions.base(_SIGNAL_CFA)) & (state.ra == _SIGNAL_RA)
    is_known &= (state.rbp == _SIGNAL_RBP) & np.isin(state.rsp, (_SIGNAL_RSP, Saved.DEFAULT))
    return is_known


def _fits(values: NDArray[np.int64], bits: int) -> NDArray[np.bool_]:
    limit = 1 << (bits - 1)
    return (values >= -limit) & (values < limit)


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value
