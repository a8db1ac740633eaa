"""What a stack is unwound from, and what comes out: values only.

Source: x86-64 psABI, figure 3.36 (DWARF register numbers); man 5 proc (maps).
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

NO_BINARY = -1
RAX, RDX, RCX, RBX, RSI, RDI, RBP, RSP, RIP = 0, 1, 2, 3, 4, 5, 6, 7, 16  # r8 to r15 are 8 to 15


class CodeRange(NamedTuple):
    """An executable mapping of a process: absolute addresses [start, limit)."""

    start: int
    limit: int
    file_offset: int  # that is mapped at `start`
    binary: int  # index of the file; NO_BINARY for memory that no file backs


class StackCopy(NamedTuple):
    """A thread at one moment."""

    # Values by DWARF number: rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8 to r15, rip.
    registers: tuple[int, ...]
    stack: bytes  # memory from rsp on, as much as was copied
    ranges: Sequence[CodeRange]  # sorted, none overlaps another
    # Of `stack`, below rsp. A function that has popped the rbp of its caller and returns next may have
    # a row that still finds it in memory, of which the psABI keeps 128 bytes unchanged.
    red_zone_bytes: int = 0
    # Bit n: the n-th page of 4 KiB, counted from the one that `stack` begins in, could not be copied.
    holes: int = 0


class WalkEnd(Enum):
    """Why a walk did not go on."""

    COMPLETE = "complete"  # the outermost frame was reached
    GUESSED = "guessed"  # the same, but by a frame pointer that may have skipped a caller
    NO_MAPPING = "no mapping"  # an address that is in no executable mapping
    NO_ROW = "no row"  # code without call frame information, whose frame pointer leads nowhere either
    UNSUPPORTED = "unsupported"  # call frame information that is invalid or needs what is not known
    STACK_CUT = "stack cut"  # memory is needed that was not copied
    NO_PROGRESS = "no progress"  # the caller's frame would not be above this one
    TOO_DEEP = "too deep"


class Walk(NamedTuple):
    """The frames of a stack, leaf first."""

    # (binary, file offset), or (NO_BINARY, absolute address). A caller's is its return address, unchanged.
    frames: tuple[tuple[int, int], ...]
    exact: tuple[int, ...]  # indices of the frames whose address is no return address, rising
    end: WalkEnd
