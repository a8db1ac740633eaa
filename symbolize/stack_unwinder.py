"""Unwinding copied stacks of x86-64 programs with the call frame information of their ELF files.

Every row is found by running the program that the compiler wrote, at the moment that it is needed, and
kept for the next time. No table is made, so it can say of any faster way of unwinding whether it is right.

Source: DWARF 5, 6.4; x86-64 psABI, 3.2.2 (frame pointer) and 3.7; gcc, libgcc/unwind-dw2.c
(uw_frame_state_for, uw_update_context_1).
"""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

from pyprof.symbolize.call_site import CLONE_BYTES, CLONE_CALLS
from pyprof.symbolize.cfi_program import CfaRule, Row, Rule, RuleKind
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.frame_state import FrameState
from pyprof.symbolize.layout import Image
from pyprof.symbolize.stack_copy import NO_BINARY, RAX, RBP, RIP, RSP, CodeRange, StackCopy, Walk, WalkEnd
from pyprof.symbolize.unwind_image import UnwindImage

DEPTH_LIMIT = 127  # frames; what the kernel's own walker has
_PLACE_CACHE = 1 << 14  # places in code
_CUT_LIMIT = 1 << 20  # bytes behind a copy where a frame pointer may still mean the stack
_ARGUMENT_LIMIT = 1 << 20
_STRINGS_LIMIT = 8 << 20  # bytes between argc and the strings of the arguments
_ABOVE_ADDRESSES = 1 << 64
_LEAF_ROW = Row(CfaRule(RSP, 8), ((RIP, Rule(RuleKind.OFFSET, -8)),), RIP, is_signal_frame=False)


class StackUnwinder:
    """Unwinds the stacks of processes that use the same binaries."""

    def __init__(self, binaries: Sequence[Image | None]) -> None:
        """binaries: what CodeRange.binary counts, whole files; None for one that cannot be read."""
        self._images = [UnwindImage(image) for image in binaries]
        self._row = lru_cache(_PLACE_CACHE)(self._row_at)
        self._is_after_call = lru_cache(_PLACE_CACHE)(self._is_call_before)

    def walk(self, copy: StackCopy, max_depth: int = DEPTH_LIMIT) -> Walk:
        """Return the frames of a stack, at most `max_depth`.

        Raises: SymbolizeError when the copy does not have 17 registers.
        """
        state = FrameState(copy)
        ranges = copy.ranges
        frames: list[tuple[int, int]] = []
        exact: list[int] = []
        end: WalkEnd | None = None
        while end is None and len(frames) < max_depth:
            place = code_range(ranges, state.rip if state.is_exact else state.rip - 1)
            if state.is_exact:
                exact.append(len(frames))
            elif place is None:
                return Walk(tuple(frames), tuple(exact), WalkEnd.NO_MAPPING)
            frame = _frame(place, state.rip)
            frames.append(frame)
            end = self._enter_caller(state, frame, ranges) if place else WalkEnd.NO_MAPPING
        if end is WalkEnd.COMPLETE and state.is_guessed:
            end = WalkEnd.GUESSED
        return Walk(tuple(frames), tuple(exact), end or WalkEnd.TOO_DEEP)

    def _enter_caller(
        self, state: FrameState, frame: tuple[int, int], ranges: Sequence[CodeRange]
    ) -> WalkEnd | None:
        """Go to the caller of the frame that `state` is at; return the reason when that cannot be."""
        binary, address = frame
        row = self._row(binary, address, state.is_exact)
        if row is None:
            return self._enter_without_row(state, binary, ranges)
        try:
            return state.enter_caller(row)
        except SymbolizeError:
            return WalkEnd.UNSUPPORTED

    def _enter_without_row(
        self, state: FrameState, binary: int, ranges: Sequence[CodeRange]
    ) -> WalkEnd | None:
        """Go to the caller where nothing describes the code: by [rsp] in a leaf, or by the frame pointer."""
        keeps_pointers = self._keeps_pointers(binary)
        if state.is_exact:
            top = state.word(state.rsp)
            if top is not None and self._is_return_address(ranges, top, accepts_any_memory=False):
                state.is_guessed |= not keeps_pointers
                return state.enter_caller(_LEAF_ROW)
            if state.registers[RAX] == 0 and self._is_thread_start(ranges, state.rip):
                return WalkEnd.COMPLETE
        elif keeps_pointers and state.registers[RBP] == 0:
            return WalkEnd.COMPLETE
        if _is_program_start(state, state.rsp) or _is_program_start(state, state.rsp + 8):
            return WalkEnd.COMPLETE
        return self._enter_by_frame_pointer(state, ranges, keeps_pointers)

    def _enter_by_frame_pointer(
        self, state: FrameState, ranges: Sequence[CodeRange], keeps_pointers: bool
    ) -> WalkEnd | None:
        rbp = state.registers[RBP]
        if not rbp or rbp % 8 or rbp < state.rsp:
            return WalkEnd.NO_ROW
        caller_rbp, rip = state.word(rbp), state.word(rbp + 8)
        if caller_rbp is None or rip is None:
            return WalkEnd.STACK_CUT if rbp < state.stack_limit + _CUT_LIMIT else WalkEnd.NO_ROW
        # A caller that keeps no frame pointer may have had any number in rbp. Then let it lie where a
        # prologue leaves it, at a multiple of 16.
        is_chain = not 0 < caller_rbp <= rbp
        is_saved = is_chain or rbp % 16 == 0
        if is_saved and self._is_return_address(ranges, rip, accepts_any_memory=is_chain):
            state.is_guessed |= not keeps_pointers
            state.enter(rip, rbp + 16, caller_rbp)
            return None
        is_outermost = (keeps_pointers and rip == 0) or self._is_goexit(ranges, rip)
        return WalkEnd.COMPLETE if caller_rbp == 0 and is_outermost else WalkEnd.NO_ROW

    def _keeps_pointers(self, binary: int) -> bool:
        """Return whether code is of a kind that has frame pointers, so that 0 in rbp is the outermost's."""
        if binary < 0:
            return True
        image = self._image(binary)
        return image is not None and image.keeps_pointers

    def _is_thread_start(self, ranges: Sequence[CodeRange], address: int) -> bool:
        """Return whether clone or clone3 returns there, where libc's code has no rules on purpose."""
        binary, offset = _frame(code_range(ranges, address), address)
        image = self._image(binary) if binary >= 0 else None
        return image is not None and image.code(offset - CLONE_BYTES, CLONE_BYTES) in CLONE_CALLS

    def _is_goexit(self, ranges: Sequence[CodeRange], address: int) -> bool:
        """Return whether a goroutine ends there: behind the first byte of runtime.goexit."""
        place = code_range(ranges, address)
        binary, offset = _frame(place, address)
        image = self._image(binary) if binary >= 0 else None
        return image is not None and image.code(offset - 1, 2) == b"\x90\xe8"

    def _is_return_address(
        self, ranges: Sequence[CodeRange], address: int, *, accepts_any_memory: bool
    ) -> bool:
        """Return whether an address may be one that a call left: in a file, right behind a call.

        accepts_any_memory: whether executable memory without a file, where calls cannot be seen, is enough.
        """
        place = code_range(ranges, address - 1)
        if place is None:
            return False
        binary, place_address = _frame(place, address)
        return accepts_any_memory if binary < 0 else self._is_after_call(binary, place_address)

    def _row_at(self, binary: int, address: int, is_exact: bool) -> Row | None:
        image = self._image(binary)
        return image.row_at(address, is_exact) if image else None

    def _is_call_before(self, binary: int, address: int) -> bool:
        image = self._image(binary)
        return image is not None and image.is_after_call(address)

    def _image(self, binary: int) -> UnwindImage | None:
        return self._images[binary] if 0 <= binary < len(self._images) else None


def _is_program_start(state: FrameState, rsp: int) -> bool:
    """Return whether rsp is what a new program finds: argc, and argv[0] in the strings above."""
    if state.registers[RBP] != 0:
        return False
    argc, name = state.word(rsp), state.word(rsp + 8)
    if argc is None or name is None:
        return False
    return 0 < argc <= _ARGUMENT_LIMIT and 0 < name - rsp < _STRINGS_LIMIT


def code_range(ranges: Sequence[CodeRange], address: int) -> CodeRange | None:
    """Return the mapping that an absolute address is in."""
    # No range starts at an address with a limit as high, so this one sorts behind the one that is meant.
    index = bisect_right(ranges, (address, _ABOVE_ADDRESSES)) - 1
    if index >= 0 and address < ranges[index].limit:
        return ranges[index]
    return None


def _frame(place: CodeRange | None, address: int) -> tuple[int, int]:
    """Return an absolute address in the form of Walk.frames."""
    if place is None or place.binary < 0:
        return NO_BINARY, address
    return place.binary, address - place.start + place.file_offset
