"""Running call frame programs: how the registers of the caller are found when the pc is at a given place.

A program is a list of changes to a row, with advances of the location between them. The row for a pc is
what stands when the next advance would go beyond it:

    DW_CFA_def_cfa: r7 (rsp) ofs 8       from the CIE
    DW_CFA_offset: r16 (rip) at cfa-8
    DW_CFA_advance_loc: 1                push %rbp
    DW_CFA_def_cfa_offset: 16
    DW_CFA_offset: r6 (rbp) at cfa-16

Source: DWARF 5, 6.4.2; gcc, libgcc/unwind-dw2.c (execute_cfa_program), whose behaviour decides where the
standard is silent.
"""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from pyprof.symbolize.cfi_entry import CommonEntry, FrameEntry
from pyprof.symbolize.dwarf_cursor import WORD_MASK, DwarfCursor
from pyprof.symbolize.error import SymbolizeError

COLUMN_COUNT = 17  # rax to r15 and rip; vector registers never lead to a caller
EXPRESSION_LIMIT = 1024  # bytes
_STEP_LIMIT = 1 << 16  # instructions for one row; the most in cc1, an extreme, are 13,365
_SAVED_LIMIT = 64  # rows that DW_CFA_remember_state may hold


class RuleKind(Enum):
    """How the caller's value of a register is found."""

    SAME = "same"  # it is unchanged
    UNDEFINED = "undefined"  # it cannot be; for the return address: there is no caller
    OFFSET = "offset"  # in memory at CFA + value
    VAL_OFFSET = "val_offset"  # it is CFA + value
    REGISTER = "register"  # it is in another register: value
    EXPRESSION = "expression"  # in memory where the expression says, which starts with the CFA
    VAL_EXPRESSION = "val_expression"  # it is what the expression says


class Rule(NamedTuple):
    """How the caller's value of one register is found."""

    kind: RuleKind
    value: int = 0
    expression: bytes = b""


class CfaRule(NamedTuple):
    """How the canonical frame address is found: rsp as it was before the call."""

    register: int
    offset: int
    expression: bytes | None = None  # instead of the other two


class Row(NamedTuple):
    """What call frame information says about one place in the code."""

    cfa: CfaRule | None  # None when the program never said
    rules: tuple[tuple[int, Rule], ...]  # by DWARF register, sorted; a register without one has no rule
    return_column: int  # register whose caller's value is the return address
    is_signal_frame: bool  # the caller was interrupted here, it did not call


def row_at(entry: FrameEntry, target: int) -> Row:
    """Return the row of an FDE for a virtual offset that it covers.

    Raises: SymbolizeError for a program that is invalid or longer than any real one.
    """
    common = entry.common
    machine = _Machine(common, entry.start, target)
    machine.run(common.program, common.program_start)
    machine.initial_rules = dict(machine.rules)
    machine.location = entry.start
    machine.run(entry.program, entry.program_start)
    return Row(
        machine.cfa, tuple(sorted(machine.rules.items())), common.return_column, common.is_signal_frame
    )


class _Machine:
    """The state of running a program."""

    def __init__(self, common: CommonEntry, location: int, target: int) -> None:
        self.common = common
        self.cursor = DwarfCursor(b"")
        self.location = location
        self.target = target
        self.cfa: CfaRule | None = None
        self.rules: dict[int, Rule] = {}
        self.initial_rules: dict[int, Rule] = {}
        self.saved: list[tuple[CfaRule | None, dict[int, Rule]]] = []
        self.steps = _STEP_LIMIT

    def run(self, program: bytes, start: int) -> None:
        """Run up to the end of a program or until the location is beyond the target."""
        self.cursor = cursor = DwarfCursor(program, start)
        while cursor.position < len(program) and self.location <= self.target:
            self.steps -= 1
            if self.steps < 0:
                raise SymbolizeError(f"call frame program of more than {_STEP_LIMIT} instructions")
            opcode = cursor.byte()
            primary, operand = opcode & 0xC0, opcode & 0x3F
            if primary == 0x40:
                self.advance(operand)
            elif primary == 0x80:
                self.set_rule(operand, RuleKind.OFFSET, self.factored())
            elif primary == 0xC0:
                self.restore(operand)
            elif operation := _OPERATIONS.get(opcode):
                operation(self)
            else:
                raise SymbolizeError(f"call frame instruction {opcode:#04x}")

    def number(self) -> int:
        return self.cursor.uleb128()

    def factored(self) -> int:
        return self.cursor.uleb128() * self.common.data_factor

    def signed_factored(self) -> int:
        return self.cursor.sleb128() * self.common.data_factor

    def expression(self) -> bytes:
        size_bytes = self.cursor.uleb128()
        if size_bytes > EXPRESSION_LIMIT:
            raise SymbolizeError(f"DWARF expression of {size_bytes} bytes")
        return self.cursor.take(size_bytes)

    def advance(self, delta: int) -> None:
        self.location = (self.location + delta * self.common.code_factor) & WORD_MASK

    def set_location(self) -> None:
        self.location = self.cursor.pointer(self.common.pointer_encoding)

    def define_cfa(self, register: int, offset: int) -> None:
        self.cfa = CfaRule(register, offset)

    def set_cfa_register(self, register: int) -> None:
        self.cfa = CfaRule(register, self.defined_cfa().offset)

    def set_cfa_offset(self, offset: int) -> None:
        """Set the offset; where an expression stands, it waits for the next DW_CFA_def_cfa_register."""
        self.cfa = self.defined_cfa()._replace(offset=offset)

    def defined_cfa(self) -> CfaRule:
        if self.cfa is None:
            raise SymbolizeError("call frame program changes a CFA that it did not define")
        return self.cfa

    def set_cfa_expression(self) -> None:
        self.cfa = CfaRule(0, 0, self.expression())

    def set_rule(self, column: int, kind: RuleKind, value: int = 0, expression: bytes = b"") -> None:
        if column < COLUMN_COUNT:
            self.rules[column] = Rule(kind, value, expression)

    def restore(self, column: int) -> None:
        if column in self.initial_rules:
            self.rules[column] = self.initial_rules[column]
        else:
            self.rules.pop(column, None)

    def remember_state(self) -> None:
        if len(self.saved) >= _SAVED_LIMIT:
            raise SymbolizeError(f"more than {_SAVED_LIMIT} remembered rows")
        self.saved.append((self.cfa, dict(self.rules)))

    def restore_state(self) -> None:
        if not self.saved:
            raise SymbolizeError("a row is restored that was not remembered")
        self.cfa, self.rules = self.saved.pop()


# DW_CFA_*; operands are read in the order of the arguments.
_OPERATIONS: dict[int, Callable[[_Machine], object]] = {
    0x00: lambda m: None,  # nop
    0x01: lambda m: m.set_location(),
    0x02: lambda m: m.advance(m.cursor.unsigned(1)),
    0x03: lambda m: m.advance(m.cursor.unsigned(2)),
    0x04: lambda m: m.advance(m.cursor.unsigned(4)),
    0x05: lambda m: m.set_rule(m.number(), RuleKind.OFFSET, m.factored()),
    0x06: lambda m: m.restore(m.number()),
    0x07: lambda m: m.set_rule(m.number(), RuleKind.UNDEFINED),
    0x08: lambda m: m.set_rule(m.number(), RuleKind.SAME),
    0x09: lambda m: m.set_rule(m.number(), RuleKind.REGISTER, m.number()),
    0x0A: lambda m: m.remember_state(),
    0x0B: lambda m: m.restore_state(),
    0x0C: lambda m: m.define_cfa(m.number(), m.number()),
    0x0D: lambda m: m.set_cfa_register(m.number()),
    0x0E: lambda m: m.set_cfa_offset(m.number()),
    0x0F: lambda m: m.set_cfa_expression(),
    0x10: lambda m: m.set_rule(m.number(), RuleKind.EXPRESSION, 0, m.expression()),
    0x11: lambda m: m.set_rule(m.number(), RuleKind.OFFSET, m.signed_factored()),
    0x12: lambda m: m.define_cfa(m.number(), m.signed_factored()),
    0x13: lambda m: m.set_cfa_offset(m.signed_factored()),
    0x14: lambda m: m.set_rule(m.number(), RuleKind.VAL_OFFSET, m.factored()),
    0x15: lambda m: m.set_rule(m.number(), RuleKind.VAL_OFFSET, m.signed_factored()),
    0x16: lambda m: m.set_rule(m.number(), RuleKind.VAL_EXPRESSION, 0, m.expression()),
    0x1D: lambda m: m.advance(m.cursor.unsigned(8)),  # MIPS_advance_loc8
    0x2E: lambda m: m.number(),  # GNU_args_size, for exceptions only
    0x2F: lambda m: m.set_rule(m.number(), RuleKind.OFFSET, -m.factored()),  # GNU_negative_offset_extended
}
