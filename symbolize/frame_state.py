"""The registers of one frame, and finding those of its caller.

A register that a called function may change is not known any more in the caller, unless a rule brings it
back: where the caller's CFA needs it, the walk ends, for its value would be another function's.

Source: DWARF 5, 6.4.3; x86-64 psABI, figure 3.4 (preserved registers).
"""

import struct

from pyprof.symbolize.cfi_program import COLUMN_COUNT, Row, Rule, RuleKind
from pyprof.symbolize.dwarf_cursor import WORD_MASK
from pyprof.symbolize.dwarf_expression import expression_value
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.stack_copy import RBP, RBX, RIP, RSP, StackCopy, WalkEnd

_WORD = struct.Struct("<Q")


class FrameState:
    """The registers of one frame, None for those that are not known, and the copied stack."""

    __slots__ = (
        "_base",
        "_holes",
        "_is_cut",
        "_stack",
        "_stack_bytes",
        "is_exact",
        "is_guessed",
        "registers",
        "rip",
        "rsp",
    )

    def __init__(self, copy: StackCopy) -> None:
        """Start at the leaf. Raises: SymbolizeError when the copy does not have 17 registers."""
        if len(copy.registers) != COLUMN_COUNT:
            raise SymbolizeError(f"{len(copy.registers)} registers instead of {COLUMN_COUNT}")
        self.registers: list[int | None] = [value & WORD_MASK for value in copy.registers]
        self.rsp = copy.registers[RSP] & WORD_MASK
        self.rip = copy.registers[RIP] & WORD_MASK
        self.is_guessed = False  # whether a caller may have been skipped
        self.is_exact = True  # the thread was at rip; otherwise it will return to it
        self._stack = copy.stack
        self._stack_bytes = len(copy.stack)
        self._base = self.rsp - copy.red_zone_bytes
        self._holes = copy.holes
        self._is_cut = False  # whether memory was needed that was not copied

    @property
    def stack_limit(self) -> int:
        """Return the address behind the copied memory."""
        return self._base + self._stack_bytes

    def word(self, address: int) -> int | None:
        """Return the eight bytes at an address, None when they were not copied."""
        offset = address - self._base
        if 0 <= offset <= self._stack_bytes - 8 and not self._is_hole(address):
            return int(_WORD.unpack_from(self._stack, offset)[0])
        self._is_cut = True
        return None

    def read(self, address: int, size_bytes: int) -> int | None:
        """Return up to eight bytes at an address as a number, None when they were not copied."""
        offset = address - self._base
        if 0 <= offset <= self._stack_bytes - size_bytes and not self._is_hole(address):
            return int.from_bytes(self._stack[offset : offset + size_bytes], "little")
        self._is_cut = True
        return None

    def _is_hole(self, address: int) -> bool:
        return bool(self._holes and self._holes >> (address >> 12) - (self._base >> 12) & 1)

    def enter_caller(self, row: Row) -> WalkEnd | None:
        """Go to the caller by the row for rip; return the reason when that cannot be.

        Raises: SymbolizeError when the row is invalid or needs what is not known.
        """
        cfa = self._cfa(row)
        if cfa is None:
            return WalkEnd.STACK_CUT
        # A signal handler may have had a stack of its own, below or above; a leaf may have no frame at all.
        is_above = cfa > self.rsp or (cfa == self.rsp and self.is_exact)
        if not is_above and not row.is_signal_frame:
            return WalkEnd.NO_PROGRESS
        caller = self._kept(row.is_signal_frame)
        caller[RSP] = cfa
        for column, rule in row.rules:
            if rule.kind is RuleKind.OFFSET:
                caller[column] = self.word(cfa + rule.value & WORD_MASK)
            else:
                caller[column] = self._value(rule, column, cfa)
        return self._enter(caller, row)

    def enter(self, rip: int, rsp: int, rbp: int | None) -> None:
        """Go to a caller of which only these registers are known."""
        self.registers = [None] * COLUMN_COUNT
        self.registers[RSP], self.registers[RIP] = rsp, rip
        self.registers[RBP] = rbp
        self.rip, self.rsp, self.is_exact = rip, rsp, False

    def _cfa(self, row: Row) -> int | None:
        """Return the canonical frame address, None when memory for it was not copied.

        Where a register is not known and memory was missing before, it is taken to be for that.
        """
        rule = row.cfa
        if rule is None:
            raise SymbolizeError("call frame information without a CFA")
        if rule.expression is not None:
            return expression_value(rule.expression, self.registers, self.read)
        base = self.registers[rule.register] if rule.register < COLUMN_COUNT else None
        if base is None and self._is_cut:
            return None
        if base is None:
            raise SymbolizeError(f"the value of register {rule.register} is not known")
        return base + rule.offset & WORD_MASK

    def _kept(self, is_signal_frame: bool) -> list[int | None]:
        """Return the caller's registers where no rule says otherwise."""
        r = self.registers
        if is_signal_frame:
            return [*r[:RIP], None]
        # fmt: off
        return [None, None, None, r[RBX], None, None, r[RBP], None,
                None, None, None, None, r[12], r[13], r[14], r[15], None]
        # fmt: on

    def _value(self, rule: Rule, column: int, cfa: int) -> int | None:
        """Return the caller's value of a register; None when there is none or it was not copied."""
        kind = rule.kind
        if kind is RuleKind.SAME:
            return self.registers[column]
        if kind is RuleKind.VAL_OFFSET:
            return cfa + rule.value & WORD_MASK
        if kind is RuleKind.REGISTER:
            return self.registers[rule.value] if rule.value < COLUMN_COUNT else None
        if kind is RuleKind.UNDEFINED:
            return None
        value = expression_value(rule.expression, self.registers, self.read, (cfa,))
        if kind is RuleKind.VAL_EXPRESSION or value is None:
            return value
        return self.word(value)

    def _enter(self, caller: list[int | None], row: Row) -> WalkEnd | None:
        rip = caller[row.return_column] if row.return_column < COLUMN_COUNT else None
        rsp = caller[RSP]
        if rip is None:
            return _reason_for_no_return_address(row)
        if rsp is None:
            return WalkEnd.STACK_CUT
        if rip == 0 and not row.is_signal_frame:
            return WalkEnd.COMPLETE
        caller[RIP] = rip
        self.registers, self.rip, self.rsp = caller, rip, rsp
        self.is_exact = row.is_signal_frame
        return None


def _reason_for_no_return_address(row: Row) -> WalkEnd:
    kind = next((rule.kind for column, rule in row.rules if column == row.return_column), None)
    if kind is RuleKind.UNDEFINED:
        return WalkEnd.COMPLETE
    is_in_memory = kind in (RuleKind.OFFSET, RuleKind.EXPRESSION, RuleKind.VAL_EXPRESSION)
    return WalkEnd.STACK_CUT if is_in_memory else WalkEnd.UNSUPPORTED
