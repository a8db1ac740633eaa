"""Write copies of stacks by hand: one file at CODE, memory without a file at JIT, the stack at STACK."""

import struct

from cfiwriter import CODE_BYTES, CODE_OFFSET

from pyprof.symbolize.stack_copy import NO_BINARY, CodeRange, StackCopy

JIT, CODE, STACK = 0x10000000, 0x555555000000, 0x7FFF00001000
RANGES = (
    CodeRange(JIT, JIT + 0x1000, 0, NO_BINARY),
    CodeRange(CODE, CODE + CODE_BYTES, CODE_OFFSET, 0),
)
NAMES = ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)), "rip")


def stack_copy(*words: int, red_zone_bytes: int = 0, **registers: int) -> StackCopy:
    """Return a copy. words: from rsp on, or from below it; registers: 0 unless named, rsp at STACK."""
    values = {"rsp": STACK, **registers}
    stack = struct.pack(f"<{len(words)}Q", *words)
    return StackCopy(tuple(values.get(name, 0) for name in NAMES), stack, RANGES, red_zone_bytes)
