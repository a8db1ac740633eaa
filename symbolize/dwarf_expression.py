"""The stack machine of DWARF expressions, as far as call frame information uses it.

    77 08 80 00 3f 1a 3b 2a 33 24 22      DW_OP_breg7 8; breg16 0; lit15; and; lit11; ge; lit3; shl; plus:
                                          the CFA in a procedure linkage table, which pushes at byte 11 of 16
    76 78 06                              DW_OP_breg6 -8; deref: the CFA of a function that aligned its stack

Source: DWARF 5, 2.5.1 and 6.4.2; gcc, libgcc/unwind-dw2.c (execute_stack_op).
"""

import operator
from collections.abc import Callable, Sequence

from pyprof.symbolize.dwarf_cursor import WORD_MASK, DwarfCursor, to_signed
from pyprof.symbolize.error import SymbolizeError

ReadMemory = Callable[
    [int, int], int | None
]  # (absolute address, bytes) -> little-endian value, None: absent
_STEP_LIMIT = 128  # operations; real expressions have up to about ten
_DEPTH_LIMIT = 64  # values on the stack


def expression_value(
    program: bytes, registers: Sequence[int | None], read: ReadMemory, initial: Sequence[int] = ()
) -> int | None:
    """Return what is on top of the stack in the end: 0 <= value < 2**64. None when memory is absent.

    registers: by DWARF number; None when unknown. initial: what is on the stack before, the top last.

    Raises: SymbolizeError for an expression that is invalid, endless, or needs an unknown register.
    """
    machine = _Machine(program, registers, read, initial)
    steps = 0
    while machine.cursor.position < len(program):
        steps += 1
        if steps > _STEP_LIMIT or len(machine.stack) > _DEPTH_LIMIT:
            raise SymbolizeError("DWARF expression goes on and on")
        machine.run(machine.cursor.byte())
        if machine.is_memory_absent:
            return None
    return machine.pop()


class _Machine:
    def __init__(
        self, program: bytes, registers: Sequence[int | None], read: ReadMemory, initial: Sequence[int]
    ) -> None:
        self.cursor = DwarfCursor(program)
        self.registers = registers
        self.read = read
        self.stack = [value & WORD_MASK for value in initial]
        self.is_memory_absent = False

    def run(self, opcode: int) -> None:
        """Run one operation, whose operands are next."""
        if 0x30 <= opcode <= 0x4F:  # DW_OP_lit0 to lit31
            self.push(opcode - 0x30)
        elif 0x70 <= opcode <= 0x8F:  # DW_OP_breg0 to breg31
            self.push(self.register(opcode - 0x70) + self.cursor.sleb128())
        elif compute := _BINARY.get(opcode):
            top = self.pop()
            self.push(compute(self.pop(), top))
        elif operation := _OPERATIONS.get(opcode):
            operation(self)
        else:
            raise SymbolizeError(f"DWARF operation {opcode:#04x}")

    def push(self, value: int) -> None:
        self.stack.append(value & WORD_MASK)

    def pop(self) -> int:
        if not self.stack:
            raise SymbolizeError("DWARF expression takes from an empty stack")
        return self.stack.pop()

    def pick(self, depth: int) -> int:
        if depth >= len(self.stack):
            raise SymbolizeError("DWARF expression takes from below its stack")
        return self.stack[-1 - depth]

    def register(self, number: int) -> int:
        value = self.registers[number] if number < len(self.registers) else None
        if value is None:
            raise SymbolizeError(f"the value of register {number} is not known")
        return value

    def base_register(self) -> None:
        self.push(self.register(self.cursor.uleb128()) + self.cursor.sleb128())

    def dereference(self, size_bytes: int) -> None:
        if not 1 <= size_bytes <= 8:
            raise SymbolizeError(f"DWARF expression reads {size_bytes} bytes at once")
        value = self.read(self.pop(), size_bytes)
        self.is_memory_absent = value is None
        self.push(value or 0)

    def swap(self) -> None:
        top, second = self.pop(), self.pop()
        self.stack += [top, second]

    def rotate(self) -> None:
        top, second, third = self.pop(), self.pop(), self.pop()
        self.stack += [top, third, second]

    def skip(self, is_taken: bool) -> None:
        """Go as far as the next two bytes say, counted from behind them."""
        target = self.cursor.signed(2) + self.cursor.position
        if not 0 <= target <= len(self.cursor.data):
            raise SymbolizeError("DWARF expression jumps outside of itself")
        if is_taken:
            self.cursor.position = target


def _divided(dividend: int, divisor: int) -> int:
    """Return the signed quotient, rounded towards zero."""
    dividend, divisor = to_signed(dividend), to_signed(divisor)
    if divisor == 0:
        raise SymbolizeError("DWARF expression divides by zero")
    quotient = abs(dividend) // abs(divisor)
    return quotient if (dividend < 0) == (divisor < 0) else -quotient


def _remainder(dividend: int, divisor: int) -> int:
    if divisor == 0:
        raise SymbolizeError("DWARF expression divides by zero")
    return dividend % divisor


def _compared(compare: Callable[[int, int], bool]) -> Callable[[int, int], int]:
    return lambda second, top: int(compare(to_signed(second), to_signed(top)))


# DW_OP_* that take two values, the top of the stack as the second argument.
_BINARY: dict[int, Callable[[int, int], int]] = {
    0x1A: operator.and_,
    0x1B: _divided,
    0x1C: operator.sub,
    0x1D: _remainder,
    0x1E: operator.mul,
    0x21: operator.or_,
    0x22: operator.add,
    0x24: lambda value, count: value << min(count, 64),
    0x25: lambda value, count: value >> min(count, 64),
    0x26: lambda value, count: to_signed(value) >> min(count, 64),
    0x27: operator.xor,
    0x29: _compared(operator.eq),
    0x2A: _compared(operator.ge),
    0x2B: _compared(operator.gt),
    0x2C: _compared(operator.le),
    0x2D: _compared(operator.lt),
    0x2E: _compared(operator.ne),
}

# DW_OP_* with operands, or that take another number of values.
_OPERATIONS: dict[int, Callable[[_Machine], object]] = {
    0x06: lambda m: m.dereference(8),
    0x08: lambda m: m.push(m.cursor.unsigned(1)),
    0x09: lambda m: m.push(m.cursor.signed(1)),
    0x0A: lambda m: m.push(m.cursor.unsigned(2)),
    0x0B: lambda m: m.push(m.cursor.signed(2)),
    0x0C: lambda m: m.push(m.cursor.unsigned(4)),
    0x0D: lambda m: m.push(m.cursor.signed(4)),
    0x0E: lambda m: m.push(m.cursor.unsigned(8)),
    0x0F: lambda m: m.push(m.cursor.signed(8)),
    0x10: lambda m: m.push(m.cursor.uleb128()),
    0x11: lambda m: m.push(m.cursor.sleb128()),
    0x12: lambda m: m.push(m.pick(0)),  # dup
    0x13: lambda m: m.pop(),  # drop
    0x14: lambda m: m.push(m.pick(1)),  # over
    0x15: lambda m: m.push(m.pick(m.cursor.byte())),
    0x16: lambda m: m.swap(),
    0x17: lambda m: m.rotate(),
    0x19: lambda m: m.push(abs(to_signed(m.pop()))),
    0x1F: lambda m: m.push(-m.pop()),
    0x20: lambda m: m.push(~m.pop()),
    0x23: lambda m: m.push(m.pop() + m.cursor.uleb128()),  # plus_uconst
    0x28: lambda m: m.skip(m.pop() != 0),  # bra
    0x2F: lambda m: m.skip(True),
    0x92: lambda m: m.base_register(),
    0x94: lambda m: m.dereference(m.cursor.byte()),
    0x96: lambda m: None,  # nop
}
