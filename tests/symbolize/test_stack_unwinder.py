"""Walks over stacks written by hand, one for each way that a frame is found or not."""

import random
import struct

import pytest
from cfiwriter import CODE_BYTES, CODE_OFFSET, RBP, RSP, Cie, Fde, block, elf_with_frames
from stackwriter import CODE, JIT, RANGES, STACK, stack_copy

from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.stack_copy import NO_BINARY, CodeRange, StackCopy, Walk, WalkEnd
from pyprof.symbolize.stack_unwinder import StackUnwinder, code_range

CALL, SIGNAL_RETURN = bytes.fromhex("e800000000"), bytes.fromhex("48c7c00f0000000f05")
UNDEFINED = b"\x07\x10"  # the return address: the outermost function
FRAME_32 = b"\x0e\x20"
FRAME_POINTER = b"\x0c\x06\x10\x86\x02"  # CFA rbp+16, rbp at cfa-16
# By distance: an outermost function, a leaf, one with 32 bytes of frame, one with a frame pointer, and code
# without any entry from 0x80 on, with a call before 0xA5.
FDES = (Fde(0, 0x10, UNDEFINED), Fde(0x10, 0x10), Fde(0x20, 0x20, FRAME_32), Fde(0x40, 0x20, FRAME_POINTER))
MAIN, LEAF, MIDDLE, FRAMED, BARE, AFTER_CALL = (CODE + d for d in (0x08, 0x18, 0x30, 0x50, 0x90, 0xA5))


GO_SECTION = (b".debug_frame\0", b".gopclntab\0\0\0")


def walk(copy: StackCopy, fdes: tuple[Fde, ...] = FDES, **code: bytes) -> Walk:
    """Return a walk. code: by "at_90", the distance in hexadecimal."""
    places = {int(name[3:], 16): data for name, data in {"at_a0": CALL, **code}.items()}
    return StackUnwinder([elf_with_frames(fdes, code=places)]).walk(copy)


def offsets(walk: Walk) -> list[int]:
    """Return the distances of a walk's frames from the start of the code or of the memory without a file."""
    return [address - (CODE_OFFSET if binary >= 0 else JIT) for binary, address in walk.frames]


def test_frames_are_file_offsets_leaf_first() -> None:
    found = walk(stack_copy(MIDDLE, 0, 0, 0, MAIN, rip=LEAF))
    assert found == Walk(
        ((0, CODE_OFFSET + 0x18), (0, CODE_OFFSET + 0x30), (0, CODE_OFFSET + 0x08)), (0,), WalkEnd.COMPLETE
    )


def test_return_address_of_zero_is_the_end() -> None:
    assert walk(stack_copy(MIDDLE, 0, 0, 0, 0, rip=LEAF)).end is WalkEnd.COMPLETE


def test_caller_that_ends_in_its_call_is_not_the_next_function() -> None:
    # The return address 0x40 is the first byte behind the function with 32 bytes of frame.
    found = walk(stack_copy(CODE + 0x40, 0, 0, 0, MAIN, rip=LEAF))
    assert (offsets(found), found.end) == ([0x18, 0x40, 0x08], WalkEnd.COMPLETE)


def test_leaf_is_looked_up_where_it_is() -> None:
    found = walk(stack_copy(0, 0, 0, MAIN, rip=CODE + 0x20))
    assert (offsets(found), found.end) == ([0x20, 0x08], WalkEnd.COMPLETE)


def test_caller_at_the_limit_of_its_mapping_is_in_it() -> None:
    fdes = (*FDES, Fde(CODE_BYTES - 0x10, 0x10, UNDEFINED))
    found = walk(stack_copy(CODE + CODE_BYTES, rip=LEAF), fdes)
    assert (offsets(found), found.end) == ([0x18, CODE_BYTES], WalkEnd.COMPLETE)


def test_frame_of_variable_size_is_found_by_its_frame_pointer() -> None:
    found = walk(stack_copy(FRAMED, *[0xBAD] * 9, STACK + 0x90, MAIN, rip=LEAF, rbp=STACK + 80))
    assert (offsets(found), found.end) == ([0x18, 0x50, 0x08], WalkEnd.COMPLETE)


def test_aligned_frame_is_found_by_its_saved_address() -> None:
    # CFA: what is at rbp-8
    program = b"\x0f" + block(bytes([0x70 + RBP, 0x78, 0x06])) + b"\x10\x06" + block(bytes([0x70 + RBP, 0]))
    found = walk(
        stack_copy(0, 0, STACK + 0x40, 0, 0, 0, 0, MAIN, rip=LEAF, rbp=STACK + 24),
        (FDES[0], Fde(0x10, 0x10, program)),
    )
    assert (offsets(found), found.end) == ([0x18, 0x08], WalkEnd.COMPLETE)


@pytest.mark.parametrize(("distance", "words"), [(0x36, [MAIN]), (0x3B, [0, MAIN])])
def test_linkage_table_is_found_by_its_expression(distance: int, words: list[int]) -> None:
    program = b"\x0f" + block(bytes.fromhex("7708 8000 3f 1a 3b 2a 33 24 22"))
    found = walk(stack_copy(*words, rip=CODE + distance), (FDES[0], Fde(0x30, 0x10, program)))
    assert (offsets(found), found.end) == ([distance, 0x08], WalkEnd.COMPLETE)


def signal_frame(rip: int, rsp: int, **registers: int) -> list[int]:
    """Return what the kernel puts on the stack, from rsp in the code that ends the handler on."""
    order = "r8 r9 r10 r11 r12 r13 r14 r15 rdi rsi rbp rbx rdx rax rcx rsp rip"
    values = {"rip": rip, "rsp": rsp, **registers}
    return [0] * 5 + [values.get(name, 0) for name in order.split(" ")]


def test_interrupted_function_is_looked_up_where_it_is() -> None:
    # The handler returns to 0x90; the interrupted function is at its first byte and has all its registers.
    words = [BARE, *signal_frame(CODE + 0x10, STACK + 8 * 30)]
    words += [0] * (30 - len(words)) + [MAIN]
    found = walk(stack_copy(*words, rip=LEAF), at_90=SIGNAL_RETURN)
    assert (offsets(found), found.exact, found.end) == ([0x18, 0x90, 0x10, 0x08], (0, 2), WalkEnd.COMPLETE)


def test_signal_frame_by_its_entry() -> None:
    # As in glibc: the entry starts a byte early; CFA is the interrupted rsp, each register's place a distance
    # from the handler's.
    rules = b"".join(
        b"\x10" + bytes([column]) + block(bytes([0x70 + RSP]) + place)
        for column, place in ((6, b"\xf8\x00"), (7, b"\xa0\x01"), (16, b"\xa8\x01"))
    )
    program = b"\x0f" + block(bytes([0x70 + RSP]) + b"\xa0\x01\x06") + rules
    fdes = (*FDES, Fde(0x8F, 0x10, program, Cie(augmentation=b"zRS")))
    words = [BARE, *signal_frame(CODE + 0x50, STACK + 8 * 30, rbp=STACK + 8 * 32)]
    words += [0] * (32 - len(words)) + [0, MAIN]
    found = walk(stack_copy(*words, rip=LEAF), fdes)
    assert (offsets(found), found.exact, found.end) == ([0x18, 0x90, 0x50, 0x08], (0, 2), WalkEnd.COMPLETE)


@pytest.mark.parametrize("rsp", [STACK - 0x10000, STACK + 0x100000])
def test_signal_on_a_stack_of_its_own_ends_where_the_copy_does(rsp: int) -> None:
    found = walk(stack_copy(BARE, *signal_frame(CODE + 0x18, rsp), rip=LEAF), at_90=SIGNAL_RETURN)
    assert (offsets(found), found.exact, found.end) == ([0x18, 0x90, 0x18], (0, 2), WalkEnd.STACK_CUT)


def test_interrupted_jump_to_nowhere_is_a_frame() -> None:
    found = walk(stack_copy(BARE, *signal_frame(0x33, STACK), rip=LEAF), at_90=SIGNAL_RETURN)
    assert (found.frames[-1], found.exact, found.end) == ((NO_BINARY, 0x33), (0, 2), WalkEnd.NO_MAPPING)


def test_leaf_outside_of_all_mappings_is_a_frame_and_a_caller_is_not() -> None:
    assert walk(stack_copy(MAIN, rip=0x1234)) == Walk(((NO_BINARY, 0x1234),), (0,), WalkEnd.NO_MAPPING)
    assert walk(stack_copy(0x1234, rip=LEAF)) == Walk(((0, CODE_OFFSET + 0x18),), (0,), WalkEnd.NO_MAPPING)


@pytest.mark.parametrize("words", [[], [MIDDLE], [MIDDLE, 0, 0, 0]])
def test_copy_that_ends_is_a_cut_stack(words: list[int]) -> None:
    found = walk(stack_copy(*words, rip=LEAF))
    assert (len(found.frames), found.end) == (min(len(words), 1) + 1, WalkEnd.STACK_CUT)


def test_word_cut_in_the_middle_is_not_read() -> None:
    copy = stack_copy(MIDDLE, rip=LEAF)
    assert walk(copy._replace(stack=copy.stack[:7])).end is WalkEnd.STACK_CUT


def test_caller_that_is_not_above_is_no_progress() -> None:
    below = Fde(0x20, 0x20, b"\x0e\x00")
    assert walk(stack_copy(MIDDLE, 0, 0, rip=LEAF), (FDES[1], below)).end is WalkEnd.NO_PROGRESS


def test_invalid_information_is_unsupported() -> None:
    assert walk(stack_copy(MIDDLE, rip=LEAF), (FDES[1], Fde(0x20, 0x20, b"\x3f"))).end is WalkEnd.UNSUPPORTED


def test_changed_register_is_not_used_in_a_caller() -> None:
    by_rax = Fde(0x20, 0x20, b"\x0c\x00\x08")
    assert (
        walk(stack_copy(MIDDLE, MAIN, rip=LEAF, rax=STACK + 8), (*FDES[:2], by_rax)).end
        is WalkEnd.UNSUPPORTED
    )
    found = walk(stack_copy(0, MAIN, rip=MIDDLE, rax=STACK + 8), (FDES[0], by_rax))
    assert (offsets(found), found.end) == ([0x30, 0x08], WalkEnd.COMPLETE)


def test_deep_stack_ends_at_the_limit() -> None:
    copy = stack_copy(*[LEAF] * 500, rip=LEAF)
    assert (len(walk(copy).frames), walk(copy).end) == (127, WalkEnd.TOO_DEEP)
    unwinder = StackUnwinder([elf_with_frames(FDES)])
    assert unwinder.walk(copy, max_depth=3).frames == ((0, CODE_OFFSET + 0x18),) * 3
    assert unwinder.walk(stack_copy(MAIN, rip=LEAF), max_depth=2).end is WalkEnd.COMPLETE


def test_leaf_without_an_entry_returns_behind_a_call() -> None:
    fdes = (*FDES, Fde(0xA0, 0x10, UNDEFINED))
    found = walk(stack_copy(AFTER_CALL, rip=BARE), fdes)
    # It may as well have pushed something and kept its return address above.
    assert (offsets(found), found.end) == ([0x90, 0xA5], WalkEnd.GUESSED)


def test_leaf_without_an_entry_does_not_return_elsewhere() -> None:
    for word in (CODE + 0xA4, JIT + 8, 0x1234, 0):
        assert offsets(walk(stack_copy(word, 0, rip=BARE, rbp=1))) == [0x90]


def test_frame_pointer_leads_on_without_an_entry() -> None:
    words = [7, STACK + 24, AFTER_CALL, 0, 0]
    found = walk(stack_copy(*words, rip=BARE, rbp=STACK + 8))
    # Where other functions have entries, this code may use rbp for anything: 0 is no proof of the end.
    assert (offsets(found), found.end) == ([0x90, 0xA5], WalkEnd.NO_ROW)


def test_frame_pointer_leads_through_memory_without_a_file() -> None:
    words = [0, STACK + 24, JIT + 0x20, STACK + 48, AFTER_CALL, 0, 0, JIT + 0x30]
    found = walk(stack_copy(*words, rip=JIT + 0x10, rbp=STACK + 8))
    assert offsets(found) == [0x10, 0x20, 0xA5, 0x30]
    assert found.frames[0] == (NO_BINARY, JIT + 0x10)
    # rbp is 0; but the third frame is of a file whose functions may have used rbp for anything
    assert found.end is WalkEnd.GUESSED


def test_frame_pointer_through_memory_without_a_file_is_no_guess() -> None:
    words = [0, STACK + 24, JIT + 0x20, STACK + 40, MIDDLE, 0, 0, 0, MAIN]
    found = walk(stack_copy(*words, rip=JIT + 0x10, rbp=STACK + 8), at_2b=CALL)
    assert (offsets(found), found.end) == ([0x10, 0x20, 0x30, 0x08], WalkEnd.COMPLETE)
    leaf = walk(stack_copy(AFTER_CALL, rip=JIT + 0x10), (*FDES, Fde(0xA0, 0x10, UNDEFINED)))
    assert (offsets(leaf), leaf.end) == ([0x10, 0xA5], WalkEnd.COMPLETE)  # by [rsp]


@pytest.mark.parametrize(
    "copy",
    [
        stack_copy(AFTER_CALL, rip=BARE),
        stack_copy(7, STACK + 24, AFTER_CALL, rip=BARE, rbp=STACK + 8),
        stack_copy(BARE, 7, 0, AFTER_CALL, rip=LEAF, rbp=STACK + 16),
    ],
    ids=["by [rsp]", "by rbp", "caller"],
)
def test_way_out_of_code_without_an_entry_is_a_guess_but_where_the_file_keeps_pointers(
    copy: StackCopy,
) -> None:
    image = elf_with_frames((*FDES, Fde(0xA0, 0x10, UNDEFINED)), code={0xA0: CALL, 0x8B: CALL})
    guessed = StackUnwinder([image]).walk(copy)
    assert image.count(GO_SECTION[0]) == 1
    sure = StackUnwinder([image.replace(*GO_SECTION)]).walk(copy)
    assert (guessed.end, sure.end) == (WalkEnd.GUESSED, WalkEnd.COMPLETE)
    assert offsets(guessed)[-2:] == [0x90, 0xA5]
    assert guessed.frames == sure.frames


def test_walk_that_was_guessed_ends_for_its_own_reason_where_that_is_no_end_of_the_stack() -> None:
    def end(*words: int, max_depth: int = 127) -> WalkEnd:
        image = elf_with_frames(FDES, code={0xA0: CALL})
        copy = stack_copy(7, STACK + 24, AFTER_CALL, *words, rip=BARE, rbp=STACK + 8)
        return StackUnwinder([image]).walk(copy, max_depth).end

    assert end(0, 0) is WalkEnd.NO_ROW
    assert end() is WalkEnd.STACK_CUT
    assert end(STACK + 40, AFTER_CALL, max_depth=2) is WalkEnd.TOO_DEEP


def test_memory_without_a_file_ends_where_the_frame_pointer_is_zero() -> None:
    found = walk(stack_copy(0, 0, JIT + 0x20, rip=JIT + 0x10, rbp=STACK + 8))
    assert (offsets(found), found.end) == ([0x10, 0x20], WalkEnd.COMPLETE)


def test_go_code_ends_where_the_frame_pointer_or_the_return_address_is_zero() -> None:
    image = elf_with_frames(FDES, code={0xA0: CALL}).replace(*GO_SECTION)
    by_rbp = StackUnwinder([image]).walk(stack_copy(7, 0, AFTER_CALL, rip=BARE, rbp=STACK + 8))
    assert (offsets(by_rbp), by_rbp.end) == ([0x90, 0xA5], WalkEnd.COMPLETE)
    by_zero = StackUnwinder([image]).walk(stack_copy(7, 0, 0, rip=BARE, rbp=STACK + 8))
    assert (offsets(by_zero), by_zero.end) == ([0x90], WalkEnd.COMPLETE)
    assert walk(stack_copy(7, 0, 0, rip=BARE, rbp=STACK + 8)).end is WalkEnd.NO_ROW


@pytest.mark.parametrize("number", [56, 435])
def test_start_of_a_thread_is_complete(number: int) -> None:
    code = {"at_89": b"\xb8" + number.to_bytes(4, "little") + b"\x0f\x05"}  # mov $number, %eax; syscall
    assert walk(stack_copy(7, rip=BARE, rbp=1), **code).end is WalkEnd.COMPLETE
    assert walk(stack_copy(7, rip=BARE, rbp=1, rax=4711), **code).end is WalkEnd.NO_ROW  # the parent
    assert walk(stack_copy(7, rip=BARE, rbp=1)).end is WalkEnd.NO_ROW


def test_end_of_a_goroutine_is_complete() -> None:
    goexit = b"\x90\xe8"  # nop; call
    copy = stack_copy(0, 0, CODE + 0xC1, rip=BARE, rbp=STACK + 8)
    assert walk(copy, at_c0=goexit).end is WalkEnd.COMPLETE  # nobody was skipped: the frame is its first
    assert walk(copy).end is WalkEnd.NO_ROW
    caller = stack_copy(0, STACK + 24, AFTER_CALL, 0, CODE + 0xC1, rip=BARE, rbp=STACK + 8)
    assert walk(caller, at_c0=goexit).end is WalkEnd.GUESSED


@pytest.mark.parametrize(("depth", "words"), [(1, ()), (2, ()), (2, (7,))])
def test_start_of_a_program_is_complete(depth: int, words: tuple[int, ...]) -> None:
    start = [*words, 2, STACK + 4096, STACK + 4128, 0]  # argc, argv; words below where it aligned rsp
    copy = stack_copy(*start, rip=BARE) if depth == 1 else stack_copy(AFTER_CALL, *start, rip=LEAF)
    assert walk(copy).end is WalkEnd.COMPLETE  # what the kernel put there is no guess
    assert walk(stack_copy(AFTER_CALL, *start, rip=BARE)).end is WalkEnd.GUESSED  # what led there is
    assert walk(copy._replace(registers=(*copy.registers[:RBP], 1, *copy.registers[RBP + 1 :]))).end is (
        WalkEnd.NO_ROW
    )


@pytest.mark.parametrize(
    ("words", "rbp", "end"),
    [
        ([7, 0, AFTER_CALL], STACK + 9, WalkEnd.NO_ROW),  # not aligned
        ([7, 0, AFTER_CALL], STACK - 8, WalkEnd.NO_ROW),  # below the stack
        ([7, 0, AFTER_CALL], 0, WalkEnd.NO_ROW),  # in a leaf rbp may be anything
        ([7, 0, AFTER_CALL], STACK + 16, WalkEnd.STACK_CUT),
        ([7, 0, AFTER_CALL], STACK + (1 << 21), WalkEnd.NO_ROW),
        ([7, STACK + 8, AFTER_CALL], STACK + 8, WalkEnd.NO_ROW),  # to itself
        ([7, STACK, AFTER_CALL], STACK + 8, WalkEnd.NO_ROW),  # downwards
        ([7, STACK + 64, CODE + 0xA4], STACK + 8, WalkEnd.NO_ROW),  # no call before
        ([7, STACK + 64, 0x1234], STACK + 8, WalkEnd.NO_ROW),
        ([7, 0, 0x1234], STACK + 8, WalkEnd.NO_ROW),
        ([7, 0, 0], STACK + 8, WalkEnd.NO_ROW),
    ],
)
def test_frame_pointer_is_not_believed(words: list[int], rbp: int, end: WalkEnd) -> None:
    found = walk(stack_copy(*words, rip=BARE, rbp=rbp))
    assert (offsets(found), found.end) == ([0x90], end)


@pytest.mark.parametrize("binaries", [[None], [], [b"\x7fELF"]])
def test_unreadable_file_still_has_frames(binaries: list[bytes | None]) -> None:
    found = StackUnwinder(binaries).walk(stack_copy(7, 0, JIT + 8, rip=LEAF, rbp=STACK + 8))
    assert (offsets(found), found.end) == ([0x18, 0x08], WalkEnd.GUESSED)


def test_mapping_is_half_open() -> None:
    assert code_range(RANGES, CODE) == RANGES[1]
    assert code_range(RANGES, CODE + CODE_BYTES - 1) == RANGES[1]
    for address in (CODE - 1, CODE + CODE_BYTES, 0, JIT - 1, (1 << 64) - 1):
        assert code_range(RANGES, address) is None
    assert code_range((), CODE) is None


def test_copy_without_all_registers_is_refused() -> None:
    with pytest.raises(SymbolizeError):
        StackUnwinder([]).walk(StackCopy((), b"", ()))


def test_stacks_and_programs_of_chance_end_with_a_reason() -> None:
    chance = random.Random(11)  # noqa: S311
    pool = [CODE + chance.randrange(CODE_BYTES) for _ in range(50)] + [STACK + 8 * n for n in range(60)]
    for _ in range(300):
        fdes = [Fde(d, 0x40, chance.randbytes(chance.randrange(40))) for d in range(0, CODE_BYTES, 0x40)]
        unwinder = StackUnwinder([elf_with_frames(fdes, code={0: chance.randbytes(CODE_BYTES)})])
        words = [chance.choice(pool) for _ in range(60)]
        registers = {name: chance.choice(pool) for name in ("rbx", "rbp", "rax", "r12", "rip")}
        found = unwinder.walk(stack_copy(*words, **registers))
        assert found.end in WalkEnd
        assert 1 <= len(found.frames) <= 127


def test_mutated_files_end_with_a_reason() -> None:
    chance = random.Random(13)  # noqa: S311
    image = elf_with_frames(FDES, debug=[fde._replace(cie=Cie(augmentation=b"")) for fde in FDES])
    copy = stack_copy(MIDDLE, 0, 0, 0, CODE + 0x40, 0, 0, 0, MAIN, rip=LEAF, rbp=STACK + 16)
    for _ in range(1500):
        mutated = bytearray(image)
        for _ in range(chance.randrange(1, 12)):
            place = chance.randrange(0xE8) if chance.random() < 0.2 else chance.randrange(0x2000, len(image))
            mutated[place] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
        assert StackUnwinder([bytes(mutated)]).walk(copy).end in WalkEnd


def test_large_copy_is_walked_without_reading_it_all() -> None:
    stack = struct.pack("<Q", LEAF) * 2_000_000
    copy = stack_copy(rip=LEAF)._replace(stack=stack)
    assert walk(copy).end is WalkEnd.TOO_DEEP


def test_mapping_beyond_the_file_has_no_code() -> None:
    copy = stack_copy(MAIN, rip=LEAF)._replace(ranges=(CodeRange(CODE, CODE + 0x1000, 1 << 62, 0),))
    assert StackUnwinder([elf_with_frames(FDES)]).walk(copy).end is WalkEnd.NO_ROW
