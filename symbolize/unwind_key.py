"""Rules as numbers of 64 bits, which are quick to compare, sort and count.

    bits 63-34           33-21            20-8      7-5    4-0
         offset          rbp_offset / 8   rbx / 8   rbp    cfa, or 16 + reg

An expression's number takes the place of the offset. -1 as rbx / 8 is RBX_SAME: at CFA - 8 is the return
address. No rule (Cfa.NONE) is 0. A frame of 512 MiB is Cfa.UNSUPPORTED.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyprof.symbolize.arrays import np
from pyprof.symbolize.call_frame_changes import BY_EXPRESSION, BY_REGISTER, RBX, Expressions, Saved, State
from pyprof.symbolize.unwind_rule import RBX_SAME, RBX_UNKNOWN, Cfa, Rbp, Rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RA_USUAL = Saved.AT_CFA | -8 << 8
_SIGNAL_CFA = b"\x77\xa0\x01\x06"  # breg7 160; deref
_SIGNAL_RA, _SIGNAL_RBP, _SIGNAL_RSP = (Saved.AT_RSP | offset << 8 for offset in (168, 120, 160))
_BY_EXPRESSION = (Cfa.PLT, Cfa.RSP_DEREF, Cfa.RBP_DEREF)
_CFA_MASK, _RBP_SHIFT, _RBX_SHIFT, _RBP_OFFSET_SHIFT, _OFFSET_SHIFT = 0x1F, 5, 8, 21, 34
_OFFSET_BITS, _WORD_BITS = 30, 13
_WORD_MASK = (1 << _WORD_BITS) - 1
_RBX_SAME = -1 & _WORD_MASK


def rule_keys(state: State, is_signal: NDArray[np.bool_], expressions: Expressions) -> NDArray[np.uint64]:
    """Return the keys of the rules that states amount to.

    `is_signal` tells which states are of signal frames. What is not expressible is Cfa.UNSUPPORTED.
    """
    by_expression = state.base & BY_EXPRESSION != 0
    value = np.where(by_expression, state.base >> 16, state.offset)
    is_usual = (state.ra == _RA_USUAL) & (state.rsp == Saved.DEFAULT) & ~is_signal
    is_usual &= _fits(value, _OFFSET_BITS)
    is_usual &= state.base != Cfa.UNSUPPORTED
    keys = state.base & _CFA_MASK | _rbp_bits(state.rbp) | value << _OFFSET_SHIFT
    if state.rbx is not None:
        keys |= _rbx_bits(state.rbx)
    keys = np.where(is_usual, keys, int(Cfa.UNSUPPORTED))
    if is_signal.any():
        keys[is_signal & _is_kernel_frame(state, expressions)] = Cfa.SIGNAL
    keys[state.ra == Saved.UNDEFINED] = Cfa.BOTTOM
    return keys.astype(np.uint64)


def key_rule(key: int, expressions: Expressions) -> Rule:
    """Return the rule that a key stands for."""
    base, rbp, rbx = key & _CFA_MASK, Rbp(key >> _RBP_SHIFT & 7), key >> _RBX_SHIFT & _WORD_MASK
    rbx = RBX_SAME if rbx == _RBX_SAME else 8 * _signed(rbx, _WORD_BITS)
    rbp_offset = 8 * _signed(key >> _RBP_OFFSET_SHIFT & _WORD_MASK, _WORD_BITS)
    value = _signed(key >> _OFFSET_SHIFT, _OFFSET_BITS)
    if base & BY_REGISTER:
        return Rule(Cfa.REGISTER, rbp, base ^ BY_REGISTER, rbp_offset, value, 0, rbx)
    if base in _BY_EXPRESSION:
        known = expressions.known[value]
        return Rule(Cfa(base), rbp, 0, rbp_offset, known.offset, known.deref, rbx)
    return Rule(Cfa(base), rbp, 0, rbp_offset, value, 0, rbx)


def is_any_cfa_in_rbx(keys: NDArray[np.uint64]) -> bool:
    """Return whether there is a key of a rule whose CFA is relative to rbx."""
    return bool((keys & np.uint64(_CFA_MASK) == BY_REGISTER | RBX).any())


def _rbp_bits(rbp: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bits of a key for rbp."""
    saved, offset = rbp & 0xFF, rbp >> 8
    kinds = np.where((saved == Saved.AT_RSP) | ~_is_word_offset(offset), int(Rbp.UNSUPPORTED), saved)
    kinds[saved == Saved.SAME] = Rbp.SAME
    has_offset = (kinds == Rbp.AT_CFA) | (kinds == Rbp.AT_RBP)
    return kinds << _RBP_SHIFT | np.where(has_offset, (offset >> 3 & _WORD_MASK) << _RBP_OFFSET_SHIFT, 0)


def _rbx_bits(rbx: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bits of a key for rbx."""
    saved, offset = rbx & 0xFF, rbx >> 8
    is_told = (saved == Saved.AT_CFA) & _is_word_offset(offset) & (offset != -8)
    words = np.where(is_told, offset >> 3 & _WORD_MASK, RBX_UNKNOWN)
    words[(saved == Saved.SAME) | (saved == Saved.DEFAULT)] = _RBX_SAME
    return words << _RBX_SHIFT


def _is_kernel_frame(state: State, expressions: Expressions) -> NDArray[np.bool_]:
    """Return which states find the registers where the kernel puts them for a signal handler."""
    is_known: NDArray[np.bool_] = (state.base == expressions.base(_SIGNAL_CFA)) & (state.ra == _SIGNAL_RA)
    is_known &= (state.rbp == _SIGNAL_RBP) & np.isin(state.rsp, (_SIGNAL_RSP, Saved.DEFAULT))
    return is_known


def _is_word_offset(offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which offsets are multiples of 8 of 16 bits."""
    is_word: NDArray[np.bool_] = (offsets & 7 == 0) & _fits(offsets >> 3, _WORD_BITS)
    return is_word


def _fits(values: NDArray[np.int64], bits: int) -> NDArray[np.bool_]:
    limit = 1 << (bits - 1)
    return (values >= -limit) & (values < limit)


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value
