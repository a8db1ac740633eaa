"""Two walks of one stack: perf's copies as the kernel writes them, and the comparison."""

import mmap
import os
import struct
from collections.abc import Iterator

import pytest

from pyprof.profiler import verify
from pyprof.profiler.capture import END_COMPLETE, END_COPY_CUT, END_NO_ROW, END_NOT_READY, Sample
from pyprof.profiler.copies import CopiedSample
from pyprof.profiler.second_walk import WalkedStack
from pyprof.profiler.verify import (
    REGISTERS_MASK,
    PerfCopies,
    PerfCopy,
    Verification,
    compared,
    parsed_samples,
)

pytestmark = pytest.mark.usefixtures("nothing_is_left")

# PERF_REG_X86_*: in this order perf writes the registers that are in the mask.
PERF_REGISTERS = ["ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "ip"]
PERF_REGISTERS += [f"r{number}" for number in range(8, 16)]
DWARF_REGISTERS = ["ax", "dx", "cx", "bx", "si", "di", "bp", "sp", *PERF_REGISTERS[9:], "ip"]
VALUES = {name: 0x1000 + place for place, name in enumerate(PERF_REGISTERS)}
REGISTERS = tuple(VALUES[name] for name in DWARF_REGISTERS)
ABI_NONE, ABI_64 = 0, 2
THROTTLE, SAMPLE = 5, 9
NOW_NS = 5_000_000_000
RIP, RSP = VALUES["ip"], VALUES["sp"]


def record(body: bytes, kind: int = SAMPLE) -> bytes:
    return struct.pack("=IHH", kind, 2, 8 + len(body)) + body


def sample(
    stack: bytes = b"", room: int | None = None, *, pid: int = 7, time_ns: int = NOW_NS, **registers: int
) -> bytes:
    """Return a record as perf writes it: the stack with room behind it, and then how much of it is one."""
    values = [{**VALUES, **registers}[name] for name in PERF_REGISTERS]
    room = len(stack) if room is None else room
    body = struct.pack("=IIQQ17Q", pid, pid + 1, time_ns, ABI_64, *values)
    return record(body + struct.pack("=Q", room) + stack.ljust(room, b"\xee") + struct.pack("=Q", len(stack)))


def test_mask_is_of_the_registers_that_are_expected() -> None:
    r8 = 16  # PERF_REG_X86_R8
    numbers = [number for number in range(64) if REGISTERS_MASK >> number & 1]
    assert numbers == [*range(9), *range(r8, r8 + 8)]


def test_registers_come_out_in_the_order_of_dwarf() -> None:
    (found,) = parsed_samples(sample(b"stack..."))
    assert found == PerfCopy(7, NOW_NS, REGISTERS, b"stack...")


def test_stack_ends_where_memory_ended() -> None:
    assert [one.stack for one in parsed_samples(sample(b"stack...", 64) + sample(b"", 64))] == [
        b"stack...",
        b"",
    ]


def test_thread_without_user_registers_has_no_sample() -> None:
    without = record(struct.pack("=IIQQQ", 7, 8, 9, ABI_NONE, 0))
    with_stack = record(struct.pack("=IIQQQ", 7, 8, 9, ABI_NONE, 512) + bytes(512) + struct.pack("=Q", 512))
    assert len(list(parsed_samples(without + with_stack + sample(b"stack...")))) == 1


def test_stack_without_room_has_no_sample() -> None:
    whole = sample()  # perf writes no size behind a stack of none
    assert list(parsed_samples(record(whole[8:-8]))) == []


def test_other_records_are_passed_over() -> None:
    image = record(sample(b"stack...")[8:], THROTTLE) + sample(b"other...")
    assert [one.stack for one in parsed_samples(image)] == [b"other..."]


@pytest.mark.parametrize("missing", range(1, 9))
def test_record_whose_stack_is_cut_has_no_sample(missing: int) -> None:
    whole = sample(b"stack...")
    assert list(parsed_samples(record(whole[8:-missing]) + whole)) == list(parsed_samples(whole))


@pytest.mark.parametrize("size", [9, 1 << 40, (1 << 64) - 1])
def test_stack_is_never_longer_than_its_room(size: int) -> None:
    image = sample(b"stack...")[:-8] + struct.pack("=Q", size)
    assert [one.stack for one in parsed_samples(image)] == [b"stack..."]


@pytest.mark.parametrize("room", [9, 1 << 40, (1 << 64) - 1])
def test_room_beyond_the_record_has_no_sample(room: int) -> None:
    body = sample(b"stack...")[8:]
    at = 16 + 8 + 17 * 8
    assert list(parsed_samples(record(body[:at] + struct.pack("=Q", room) + body[at + 8 :]))) == []


def test_equal_walks_agree() -> None:
    stacks = [((1, 2, 3), END_COMPLETE), ((4,), END_NO_ROW), ((), END_NO_ROW)]
    assert compared(stacks, [WalkedStack(*one) for one in stacks]) == Verification(3, 3)


def test_nothing_is_verified_without_walks() -> None:
    assert compared([], []) == Verification(0, 0)


@pytest.mark.parametrize(
    ("kernel", "second"),
    [
        (((1, 2), END_COMPLETE), ((1, 2), END_NO_ROW)),
        (((1, 2), END_COMPLETE), ((1, 3), END_COMPLETE)),
        (((1, 2), END_COMPLETE), ((1,), END_COMPLETE)),
        (((1, 2), END_COMPLETE), ((1, 2, 3), END_COMPLETE)),
        (((1, 2), END_COMPLETE), ((1, 2, 3), END_COPY_CUT)),
        (((1, 2), END_COMPLETE), ((1, 3), END_COPY_CUT)),
        (((), END_NO_ROW), ((1,), END_COPY_CUT)),
    ],
)
def test_walks_that_differ_do_not_agree(
    kernel: tuple[tuple[int, ...], int], second: tuple[tuple[int, ...], int]
) -> None:
    assert compared([kernel], [WalkedStack(*second)]) == Verification(1, 0)


@pytest.mark.parametrize("words", [(), (1,), (1, 2), (1, 2, 3)])
def test_copy_that_ends_early_is_compared_as_far_as_it_reaches(words: tuple[int, ...]) -> None:
    second = [WalkedStack(words, END_COPY_CUT)]
    for end in (END_COMPLETE, END_NO_ROW):
        assert compared([((1, 2, 3), end)], second) == Verification(1, 1)


def test_stack_that_was_not_walked_again_is_not_verified() -> None:
    kernel = [((1,), END_COMPLETE), ((2,), END_COMPLETE)]
    second = [WalkedStack((1,), END_NOT_READY), WalkedStack((2,), END_COMPLETE)]
    assert compared(kernel, second) == Verification(1, 1)


class Rings:
    """Rings of CPUs in memory: a descriptor each, which the test writes records to."""

    def __init__(self) -> None:
        self.fds: list[int] = []

    def add(self) -> int:
        self.fds.append(os.memfd_create("ring"))
        os.ftruncate(self.fds[-1], 3 * mmap.PAGESIZE)
        return self.fds[-1]

    def write(self, fd: int, data: bytes) -> None:
        (head,) = struct.unpack("=Q", os.pread(fd, 8, 1024))
        os.pwrite(fd, data, mmap.PAGESIZE + head)
        os.pwrite(fd, struct.pack("=Q", head + len(data)), 1024)


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch, nothing_is_left: None) -> Iterator[Rings]:
    monkeypatch.setattr(verify, "RING_PAGES", 2)
    made = Rings()
    yield made
    for fd in made.fds:
        os.close(fd)


@pytest.fixture
def copies(rings: Rings) -> Iterator[PerfCopies]:
    made = PerfCopies()
    yield made
    made.close()


def walked(pid: int = 7, rip: int = RIP, rsp: int = RSP, time_ns: int = NOW_NS + 5_000) -> CopiedSample:
    """Return a sample as the kernel hands it over to be verified: without its stack."""
    registers = [0] * 17
    registers[7], registers[16] = rsp, rip
    return CopiedSample(
        Sample(pid, 0, 1, 2, b"prog", 3, 4, 1, END_COMPLETE), tuple(registers), b"", time_ns=time_ns
    )


def test_sample_gets_what_perf_copied_of_it(rings: Rings, copies: PerfCopies) -> None:
    fd = rings.add()
    copies.add_cpu(0, fd)
    assert copies.filenos() == [fd]
    rings.write(fd, sample(b"first...") + sample(b"other...", pid=8))
    copies.drain()
    found = copies.of(walked())
    assert found == walked(time_ns=0)._replace(registers=REGISTERS, stack=b"first...")
    assert copies.of(walked()) is None  # each copy is of one sample
    assert copies.of(walked(rip=RIP + 1)) is None
    assert copies.of(walked(rsp=RSP - 8)) is None


def test_samples_of_one_place_get_each_a_copy(rings: Rings, copies: PerfCopies) -> None:
    fd = rings.add()
    copies.add_cpu(0, fd)
    rings.write(fd, sample(b"first...") + sample(b"second..", time_ns=NOW_NS + 6_000))
    copies.drain()
    found = [copies.of(walked()) for _ in range(3)]
    assert {one and one.stack for one in found} == {b"first...", b"second..", None}


def test_copy_is_of_the_sample_just_before_it(rings: Rings, copies: PerfCopies) -> None:
    """The same place is sampled again and again; of some samples perf has no copy."""
    fd = rings.add()
    copies.add_cpu(0, fd)
    period_ns = 1_001_001
    times_ns = [NOW_NS + turn * period_ns for turn in (0, 2, 3)]
    rings.write(fd, b"".join(sample(f"copy {time:012}".encode(), time_ns=time) for time in times_ns))
    copies.drain()
    found = [copies.of(walked(time_ns=NOW_NS + turn * period_ns + 5_000)) for turn in (3, 2, 1, 0)]
    stacks = [f"copy {NOW_NS + turn * period_ns:012}".encode() for turn in (3, 2, 0)]
    assert [one and one.stack for one in found] == [stacks[0], stacks[1], None, stacks[2]]


def test_cpu_that_goes_leaves_what_its_ring_held(rings: Rings, copies: PerfCopies) -> None:
    for cpu in (0, 3):
        copies.add_cpu(cpu, rings.add())
    rings.write(rings.fds[1], sample(b"stack..."))
    copies.remove_cpu(3)
    assert copies.cpus == {0}
    assert copies.of(walked()) is not None


def test_memory_for_copies_is_bounded(
    rings: Rings, copies: PerfCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "MAX_BYTES", 12)
    fd = rings.add()
    copies.add_cpu(0, fd)
    rings.write(fd, sample(b"first...") + sample(b"second..") + sample(b"third..."))
    copies.drain()
    found = [copies.of(walked()) for _ in range(3)]
    assert [one and one.stack for one in found] == [b"first...", b"second..", None]
