"""One ELF file as unwinding sees it: rows and code bytes by file offset.

Source: arch/x86/include/uapi/asm/sigcontext.h, ucontext.h; arch/x86/include/asm/sigframe.h (rt_sigframe).
"""

from functools import cached_property

from pyprof.symbolize.call_site import CALL_LIMIT, SIGNAL_RETURN, SIGNAL_RETURN_CALL, ends_in_call
from pyprof.symbolize.cfi_program import CfaRule, Row, Rule, RuleKind, row_at
from pyprof.symbolize.cfi_reader import FrameTable
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.frame_pointers import keeps_frame_pointers
from pyprof.symbolize.layout import Image, Layout, elf_layout, virtual_offset
from pyprof.symbolize.stack_copy import RAX, RBP, RBX, RCX, RDI, RDX, RIP, RSI, RSP

_EM_X86_64 = 62
# Bytes of programs that are run for one file: some ten seconds at worst, and half a million places in code of
# usual files, whose programs have about 30 bytes.
_PROGRAM_BUDGET = 1 << 24
_UNREADABLE = Row(None, (), RIP, is_signal_frame=False)

# What the kernel leaves on the stack for a signal handler is at rsp when the handler has returned:
# flags and link (8 bytes each), stack_t (24), then the registers in this order.
_SIGNAL_REGISTERS_OFFSET = 40
_SIGNAL_REGISTERS = (*range(8, 16), RDI, RSI, RBP, RBX, RDX, RAX, RCX, RSP, RIP)
_SIGNAL_RETURN_ROW = Row(
    CfaRule(RSP, 0),
    tuple(
        (column, Rule(RuleKind.OFFSET, _SIGNAL_REGISTERS_OFFSET + 8 * index))
        for index, column in enumerate(_SIGNAL_REGISTERS)
    ),
    RIP,
    is_signal_frame=True,
)


class UnwindImage:
    """An ELF file, parsed where and when it is asked for."""

    def __init__(self, image: Image | None) -> None:
        """image: the whole file; None when it cannot be read, and then it has no rows and no code."""
        self._image = b"" if image is None else image
        self._program_budget = _PROGRAM_BUDGET

    def row_at(self, file_offset: int, is_exact: bool) -> Row | None:
        """Return what the call frame information says about a place in the code; None when it says nothing.

        is_exact: whether the thread was at this place; otherwise it will return to it, and is in the call
        before. The row has no CFA when the information cannot be read, or too much of it was.
        """
        row = self._program_row(file_offset if is_exact else file_offset - 1)
        if (row is None or not row.is_signal_frame) and self._is_signal_return(file_offset, is_exact):
            return _SIGNAL_RETURN_ROW
        return row

    @cached_property
    def keeps_pointers(self) -> bool:
        """Return whether the functions of the file keep frame pointers."""
        return self._layout is not None and keeps_frame_pointers(self._image, self._layout)

    def code(self, file_offset: int, size_bytes: int) -> bytes:
        """Return bytes of the file, fewer at its end."""
        return self._image[max(file_offset, 0) : max(file_offset, 0) + size_bytes]

    def is_after_call(self, file_offset: int) -> bool:
        """Return whether the bytes before a place in the code may be a call."""
        return ends_in_call(self._image[max(file_offset - CALL_LIMIT, 0) : max(file_offset, 0)])

    def _program_row(self, file_offset: int) -> Row | None:
        if self._layout is None or self._frames is None:
            return None
        target = virtual_offset(self._layout, file_offset)
        if target is None:
            return None
        try:
            entry = self._frames.entry_at(target)
            self._program_budget -= len(entry.program) if entry else 0
            if self._program_budget < 0:
                return _UNREADABLE
            return row_at(entry, target) if entry else None
        except SymbolizeError:
            return _UNREADABLE

    def _is_signal_return(self, file_offset: int, is_exact: bool) -> bool:
        """Return whether the code here asks the kernel to end a signal handler."""
        starts = (file_offset, file_offset - SIGNAL_RETURN_CALL) if is_exact else (file_offset,)
        return any(
            start >= 0 and self._image[start : start + len(SIGNAL_RETURN)] == SIGNAL_RETURN
            for start in starts
        )

    @cached_property
    def _layout(self) -> Layout | None:
        try:
            layout = elf_layout(self._image)
        except SymbolizeError:
            return None
        is_known = layout.machine == _EM_X86_64 and layout.is_64 and layout.order == "<"
        return layout if is_known else None

    @cached_property
    def _frames(self) -> FrameTable | None:
        return FrameTable(self._image, self._layout) if self._layout else None
