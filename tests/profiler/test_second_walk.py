"""Copied stacks, walked by the confined worker: by a real one over a real program, and by ones that fail."""

import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from pyprof.profiler import second_walk
from pyprof.profiler.binaries import Binaries
from pyprof.profiler.capture import (
    END_32_BIT,
    END_BY_KERNEL,
    END_COMPLETE,
    END_COPY_CUT,
    END_GUESSED,
    END_NO_MAPPING,
    END_NOT_READY,
    END_NOT_RESIDENT,
    END_TOO_DEEP,
    END_UNSUPPORTED,
    STACK_UNREADABLE,
    Sample,
)
from pyprof.profiler.copies import CopiedSample
from pyprof.profiler.engine import Counts, Stats
from pyprof.profiler.executables import Executables
from pyprof.profiler.proc import FileMapping, executable_mappings
from pyprof.profiler.process_table import Image
from pyprof.profiler.second_walk import WalkedStack, leaf_stacks, walked_stacks, with_walked
from pyprof.profiler.unwind_maps import FrameWord, frame_word, word_of
from pyprof.symbolize.elf import elf_symbols
from pyprof.symbolize.stack_copy import StackCopy, Walk, WalkEnd
from pyprof.symbolize.stack_unwinder import StackUnwinder

pytestmark = pytest.mark.usefixtures("nothing_is_left")

Make = Callable[..., FileMapping]

STATS = Stats(*range(len(Stats._fields)))
STACK_ID = 1 << 63
VSYSCALL = 0xFFFF_FFFF_FF60_0000
RSP, RIP = 7, 16

# Waits in a system call, four calls below main, without a frame pointer on the way.
PROGRAM = """
#include <unistd.h>
#define DEEPER(name, next) \\
	__attribute__((noinline)) int name(int x) { volatile char room[100]; room[x] = 1; return next + room[x]; }
static char c;
DEEPER(leaf, (write(1, "!", 1), read(0, &c, 1)))
DEEPER(inner, leaf(x))
DEEPER(outer, inner(x))
int main(int argc, char **argv) { return outer(argc) & 1; }
"""


def sample(pid: int = 7, **changes: object) -> Sample:
    return Sample(pid, 0, 1, 2, b"prog", 0, 0, 1, END_NOT_READY)._replace(**changes)  # type: ignore[arg-type]


def copied(rip: int, stack: bytes = b"", rsp: int = 0x7FFF_0000, pid: int = 7) -> CopiedSample:
    registers = [0] * 17
    registers[RSP], registers[RIP] = rsp, rip
    return CopiedSample(sample(pid), tuple(registers), stack)


def counts(*samples: Sample, stacks: dict[int, tuple[int, ...]] | None = None) -> Counts:
    return Counts(samples, stacks or {}, STATS)


def image_of(*files: FileMapping) -> Image:
    image = Image(0)
    for file in files:
        image.insert(file)
    return image


@pytest.fixture
def executables(nothing_is_left: None) -> Iterator[Executables]:
    with closing(Binaries(proc="/nonexistent")) as binaries:
        yield Executables(binaries)


class Waiting(NamedTuple):
    """A process that waits in read(2), and a copy of its stack."""

    pid: int
    path: str
    copy: CopiedSample


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the built program; all of its code is in one file."""
    path = tmp_path_factory.mktemp("second_walk") / "waiting"
    path.with_suffix(".c").write_text(PROGRAM)
    flags = ["-static", "-O1", "-fomit-frame-pointer", "-fno-optimize-sibling-calls", "-Wall"]
    subprocess.run(["gcc", *flags, "-o", path, path.with_suffix(".c")], check=True)
    return str(path)


@pytest.fixture
def waiting(program: str, nothing_is_left: None) -> Iterator[Waiting]:
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.read(1) == b"!"
        rsp, rip = place_in_read(process.pid)
        with open(f"/proc/{process.pid}/mem", "rb", buffering=0) as memory:
            memory.seek(rsp)
            stack = memory.read(16384)  # less where the stack begins
        yield Waiting(process.pid, program, copied(rip, stack, rsp))
        process.stdin.write(b"!")
        process.stdin.close()
        process.wait()


def place_in_read(pid: int) -> tuple[int, int]:
    """Return rsp and rip of a process once it waits in read(2), which is number 0."""
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        fields = Path(f"/proc/{pid}/syscall").read_text().split()
        if fields[0] == "0":
            return int(fields[-2], 16), int(fields[-1], 16)
    raise AssertionError(f"process {pid} does not wait in read(2): {fields}")


@pytest.fixture
def walk(waiting: Waiting) -> Iterator[Callable[..., list[WalkedStack]]]:
    """Return a function that walks copies of the waiting process."""
    with closing(Binaries()) as binaries:
        files = [one for one in executable_mappings(waiting.pid) if one.mapping.start < 1 << 63]
        for file in files:
            binaries.hold(waiting.pid, file)
        known = Executables(binaries)
        image = image_of(*files)

        def walked(*copies: CopiedSample, max_depth: int = 127) -> list[WalkedStack]:
            return walked_stacks(copies, known, lambda _: image, max_depth)

        yield walked


def names(path: str, stack: WalkedStack) -> list[str]:
    """Return the functions of a stack, leaf first; the program is the first executable."""
    with open(path, "rb") as file:
        symbols = elf_symbols(file.fileno())
    frames = [frame_word(word) for word in stack.words]
    found = [symbols.symbol(address) for _, address in frames]
    assert {exe for exe, _ in frames} == {0}
    return [one.name.lstrip("_") if one else "" for one in found]


def test_stack_of_a_program_is_walked_to_its_start(
    waiting: Waiting, walk: Callable[..., list[WalkedStack]]
) -> None:
    (stack,) = walk(waiting.copy)
    found = names(waiting.path, stack)
    assert stack.end == END_COMPLETE
    assert found[1:5] == ["leaf", "inner", "outer", "main"]
    assert found[-1] == "start"


def test_leaf_is_where_it_was_and_callers_are_inside_their_calls(
    waiting: Waiting, walk: Callable[..., list[WalkedStack]]
) -> None:
    (stack,) = walk(waiting.copy)
    (code,) = [one for one in executable_mappings(waiting.pid) if one.mapping.path == waiting.path]
    start = code.mapping.start - code.mapping.file_offset
    assert frame_word(stack.words[0]).address + start == waiting.copy.registers[RIP]
    returns = {
        word - 1
        for (word,) in struct.iter_unpack("<Q", waiting.copy.stack[: len(waiting.copy.stack) // 8 * 8])
    }
    assert {frame_word(word).address + start for word in stack.words[1:]} <= returns


@pytest.mark.parametrize("depth", [1, 3])
def test_stack_is_no_deeper_than_is_kept(
    depth: int, waiting: Waiting, walk: Callable[..., list[WalkedStack]]
) -> None:
    (whole,) = walk(waiting.copy)
    assert walk(waiting.copy, max_depth=depth) == [WalkedStack(whole.words[:depth], END_TOO_DEEP)]


def test_copy_that_ends_early_says_so(waiting: Waiting, walk: Callable[..., list[WalkedStack]]) -> None:
    whole, cut, none = walk(
        waiting.copy,
        waiting.copy._replace(stack=waiting.copy.stack[:200]),
        waiting.copy._replace(stack=b""),
    )
    assert (cut.end, none.end) == (END_COPY_CUT, END_COPY_CUT)
    assert 1 < len(cut.words) < len(whole.words)
    assert cut.words == whole.words[: len(cut.words)]
    assert none.words == whole.words[:1]


def test_leaf_in_no_mapping_is_its_address(walk: Callable[..., list[WalkedStack]]) -> None:
    assert walk(copied(0x10), copied(VSYSCALL)) == [
        WalkedStack((0x10,), END_NO_MAPPING),
        WalkedStack((VSYSCALL ^ 1 << 63,), END_NO_MAPPING),
    ]


def test_no_copies_need_no_worker(executables: Executables) -> None:
    assert walked_stacks([], executables, lambda _: None, 127) == []


def test_process_that_was_never_seen_has_its_leaf(executables: Executables) -> None:
    found = walked_stacks([copied(0x10)], executables, lambda _: None, 127)
    assert found == [WalkedStack((0x10,), END_NO_MAPPING)]


def test_copy_is_walked_in_what_was_mapped_when_it_was_taken(executables: Executables, mapped: Make) -> None:
    now = image_of(mapped("/bin/now", file_offset=0x7000))
    then = (mapped("/bin/then", file_offset=0x3000),)
    copies = [copied(0x1010)._replace(files=files) for files in (then, None, ())]
    found = walked_stacks(copies, executables, lambda _: now, 127)
    assert [len(one.words) for one in found] == [1, 1, 1]
    frames = [frame_word(one.words[0]) for one in found]
    paths = [executables[exe].file.mapping.path if exe >= 0 else "" for exe, _ in frames]
    assert paths == ["/bin/then", "/bin/now", ""]
    assert [address for _, address in frames] == [0x3010, 0x7010, 0x1010]
    assert found[2].end == END_NO_MAPPING


def test_of_a_sample_without_a_stack_the_leaf_is_told(executables: Executables, mapped: Make) -> None:
    image = image_of(mapped("/bin/a", file_offset=0x3000), mapped("//anon", 0x5000, 0x6000))
    places = [(sample(), rip) for rip in (0x1010, 0x5010, 0x10, VSYSCALL)] + [(sample(8), 0x1010)]
    found = leaf_stacks(places, executables, lambda one: image if one.pid == 7 else None)
    words = [word_of(FrameWord(0, 0x3010)), 0x5010, 0x10, VSYSCALL ^ 1 << 63, 0x1010]
    assert found == [WalkedStack((word,), END_NOT_READY) for word in words]
    assert leaf_stacks([], executables, lambda _: None) == []


def test_each_end_of_a_walk_has_its_number() -> None:
    assert set(second_walk._ENDS) == set(WalkEnd)
    assert len(set(second_walk._ENDS.values())) == len(WalkEnd)
    assert second_walk._ENDS[WalkEnd.GUESSED] == END_GUESSED


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the children that this process forks."""
    real, children = os.fork, []

    def fork() -> int:
        pid = real()
        if pid:
            children.append(pid)
        return pid

    monkeypatch.setattr(os, "fork", fork)
    return children


def ending_at(monkeypatch: pytest.MonkeyPatch, *places: int) -> None:
    """Let a worker end when it comes to a leaf at one of these places."""
    real = StackUnwinder.walk

    def walk(unwinder: StackUnwinder, stack: StackCopy, depth: int) -> Walk:
        if stack.registers[RIP] in places:
            os.kill(os.getpid(), 9)
        return real(unwinder, stack, depth)

    monkeypatch.setattr(StackUnwinder, "walk", walk)


@pytest.fixture
def leaves(executables: Executables, mapped: Make) -> Callable[[], list[WalkedStack]]:
    """Return a function that walks three copies: of code in a file, without one, and in no mapping."""
    files = (mapped("/bin/a", 0x1000, 0x2000, file_offset=0x3000), mapped("//anon", 0x5000, 0x6000))
    for file in files:
        executables.number(file)

    def walked() -> list[WalkedStack]:
        copies = [copied(0x1010), copied(0x5010), copied(VSYSCALL)]
        return walked_stacks(copies, executables, lambda _: image_of(*files), 127)

    return walked


LEAVES = [
    WalkedStack((word_of(FrameWord(0, 0x3010)),), END_NOT_READY),
    WalkedStack((0x5010,), END_NOT_READY),
    WalkedStack((VSYSCALL ^ 1 << 63,), END_NOT_READY),
]


def answering(monkeypatch: pytest.MonkeyPatch, *answers: bytes) -> None:
    """Let the worker send these bytes and end."""

    def serve(_: object, parent: socket.socket) -> None:
        for answer in answers:
            parent.sendall(answer)

    monkeypatch.setattr(second_walk._WalkJob, "serve", serve)


def result(end: int, *words: int) -> bytes:
    return second_walk._RESULT.pack(end, len(words)) + struct.pack(f"<{len(words)}Q", *words)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_stack_that_ends_a_worker_costs_itself(
    at: int, leaves: Callable[[], list[WalkedStack]], forks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = leaves()
    assert [one.words for one in whole] == [one.words for one in LEAVES]
    assert END_NOT_READY not in [one.end for one in whole]
    assert len(forks) == 1
    ending_at(monkeypatch, (0x1010, 0x5010, VSYSCALL)[at])
    assert leaves() == [*whole[:at], LEAVES[at], *whole[at + 1 :]]
    assert len(forks) == 1 + (1 if at == 2 else 2)


def test_number_of_workers_is_bounded(
    executables: Executables, forks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_walk, "MAX_WORKERS", 3)
    ending_at(monkeypatch, 0x30)
    places = (0x10, 0x30, 0x30, 0x20, 0x30, 0x40)
    found = walked_stacks([copied(rip) for rip in places], executables, lambda _: None, 127)
    assert [one.words for one in found] == [(rip,) for rip in places]
    late = END_NOT_READY
    assert [one.end for one in found] == [END_NO_MAPPING, late, late, END_NO_MAPPING, late, late]
    assert len(forks) == 3


def test_stack_that_breaks_the_walk_costs_itself(
    leaves: Callable[[], list[WalkedStack]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = StackUnwinder.walk, []

    def walk(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 1:
            raise KeyError("deep inside")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(StackUnwinder, "walk", walk)
    first, second, third = leaves()
    assert first == WalkedStack((), END_UNSUPPORTED)
    assert second.words == LEAVES[1].words
    assert END_NOT_READY not in (second.end, third.end)


def test_worker_that_runs_out_of_memory_leaves_the_leaves(
    leaves: Callable[[], list[WalkedStack]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StackUnwinder, "walk", lambda *_: bytes(1 << 40))
    assert leaves() == LEAVES


def test_worker_that_cannot_start_leaves_the_leaves(
    leaves: Callable[[], list[WalkedStack]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    assert leaves() == LEAVES


def test_worker_that_is_late_leaves_the_leaves(
    leaves: Callable[[], list[WalkedStack]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_walk, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(StackUnwinder, "walk", lambda *_: time.sleep(60))
    assert leaves() == LEAVES


@pytest.mark.parametrize(
    "nonsense",
    [
        second_walk._RESULT.pack(END_COMPLETE, 128) + bytes(8 * 128),
        second_walk._RESULT.pack(END_COMPLETE, 65535),
        result(END_BY_KERNEL, 1),
        result(END_32_BIT, 1),
        result(END_NOT_READY, 1),
        result(END_NOT_RESIDENT, 1),
        result(255, 1),
        result(END_COMPLETE, 1, word_of(FrameWord(2, 0))),
        result(END_COMPLETE, (1 << 64) - 1),
        result(END_COMPLETE, 1, 2)[:-1],
        b"",
    ],
    ids=[
        "deep",
        "deeper",
        "kernel",
        "32 bit",
        "not ready",
        "resident",
        "255",
        "no file",
        "ones",
        "cut",
        "nothing",
    ],
)
def test_nonsense_of_the_worker_is_not_believed(
    nonsense: bytes, leaves: Callable[[], list[WalkedStack]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, result(END_COMPLETE, 1, word_of(FrameWord(0, 5))), nonsense)
    said = WalkedStack((1, word_of(FrameWord(0, 5))), END_COMPLETE)
    assert leaves() == [said, LEAVES[1], said]  # the third is another worker's first


def test_what_a_worker_says_after_the_last_stack_is_not_heard(
    leaves: Callable[[], list[WalkedStack]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, result(END_COMPLETE, 1) * 3, b"more")
    assert leaves() == [WalkedStack((1,), END_COMPLETE)] * 3


def test_walked_samples_are_added_with_their_stacks() -> None:
    counted = sample(user_stack=STACK_ID, user_end=END_COMPLETE, value=5)
    before = counts(counted, stacks={STACK_ID: (1, 2)})
    after = with_walked(before, [sample(), sample(8)], [WalkedStack((3, 4), END_COMPLETE)] * 2)
    fresh = after.samples[1].user_stack
    assert after.stacks == {STACK_ID: (1, 2), fresh: (3, 4)}
    assert after.samples == (
        counted,
        sample(user_stack=fresh, user_end=END_COMPLETE),
        sample(8, user_stack=fresh, user_end=END_COMPLETE),
    )
    assert after.stats == STATS


def test_sample_like_one_that_was_counted_is_added_to_it() -> None:
    counted = sample(user_stack=STACK_ID, user_end=END_COMPLETE, value=5)
    before = counts(counted, stacks={STACK_ID: (1, 2)})
    after = with_walked(before, [sample()] * 2, [WalkedStack((1, 2), END_COMPLETE)] * 2)
    assert after == counts(counted._replace(value=7), stacks={STACK_ID: (1, 2)})


def test_sample_that_stands_for_several_counts_as_many() -> None:
    samples = [sample(value=5), sample(value=2), sample(8, value=3)]
    after = with_walked(counts(), samples, [WalkedStack((1,), END_NOT_READY)] * 3)
    assert sorted((one.pid, one.value) for one in after.samples) == [(7, 7), (8, 3)]


def test_equal_stacks_that_ended_otherwise_are_two_samples_of_one_stack() -> None:
    ends = (END_COMPLETE, END_NOT_READY)
    after = with_walked(counts(), [sample(), sample()], [WalkedStack((1,), end) for end in ends])
    assert [one.user_end for one in after.samples] == list(ends)
    assert len(after.stacks) == len({one.user_stack for one in after.samples}) == 1


def test_counted_samples_that_cannot_be_told_apart_are_added_up() -> None:
    assert with_walked(counts(sample(value=2), sample(value=3)), [], []).samples == (sample(value=5),)


def test_stack_without_a_frame_is_unreadable() -> None:
    (one,) = with_walked(counts(), [sample()], [WalkedStack((), END_UNSUPPORTED)]).samples
    assert one.user_stack == STACK_UNREADABLE


def test_ids_of_stacks_never_clash() -> None:
    known = {STACK_ID | number: (number,) for number in range(50)}
    stacks = [WalkedStack((number,), END_COMPLETE) for number in range(0, 100, 3)]
    after = with_walked(counts(stacks=known), [sample(n) for n in range(len(stacks))], stacks)
    assert len(after.stacks) == len({*known.values(), *(stack.words for stack in stacks)})
    assert known.items() <= after.stacks.items()
    assert [after.stacks[one.user_stack] for one in after.samples] == [stack.words for stack in stacks]
