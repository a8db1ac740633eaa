"""Verification: the same samples, walked by the kernel along tables and once more in user space.

Registers and stack of the second walk come from perf itself, in the record of the event that the BPF
program saw, so nothing that the first walk relies on is used twice.

Source: perf_event_open(2), PERF_SAMPLE_REGS_USER and PERF_SAMPLE_STACK_USER;
arch/x86/include/uapi/asm/perf_regs.h.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pyprof.profiler.capture import END_COPY_CUT, END_NOT_READY
from pyprof.profiler.copies import CopiedSample
from pyprof.profiler.perf_ring import PerfRing, records
from pyprof.profiler.second_walk import WalkedStack

STACK_BYTES = 32_768
RING_PAGES = 512  # 2 MiB for each CPU: some 60 samples
MAX_BYTES = 64 << 20  # of all copies together
NEAR_NS = 300_000  # perf takes the time of its record some microseconds before the BPF program does
RECORD_SAMPLE = 9
ABI_NONE = 0  # enum perf_sample_regs_abi

# perf's numbers of rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8 to r15 and rip: in DWARF's order
_PERF_NUMBERS = (0, 3, 2, 1, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23, 8)
REGISTERS_MASK = sum(1 << number for number in _PERF_NUMBERS)
_PLACES = tuple(sorted(_PERF_NUMBERS).index(number) for number in _PERF_NUMBERS)

_TASK = struct.Struct("=IIQ")  # pid, tid, time
_ABI = struct.Struct("=Q17Q")
_SIZE = struct.Struct("=Q")
_RIP, _RSP = 16, 7


class PerfCopy(NamedTuple):
    """Registers and stack of a sample, as perf copied them."""

    pid: int
    time_ns: int  # CLOCK_BOOTTIME
    registers: tuple[int, ...]  # DWARF's order
    stack: bytes  # from rsp on


class Verification(NamedTuple):
    """How the two walks compare."""

    verified: int  # stacks that were walked twice
    agreed: int  # of these: the same frames, as far as the copy reaches


class PerfCopies:
    """Takes perf's copies out of the rings of the sampled CPUs."""

    def __init__(self) -> None:
        self._rings: dict[int, tuple[int, PerfRing]] = {}  # CPU: event descriptor, ring
        self._kept_bytes = 0
        self._copies: dict[tuple[int, int, int], list[PerfCopy]] = {}

    def add_cpu(self, cpu: int, event_fd: int) -> None:
        """Map the ring of a CPU's sampling event. Raises: OSError."""
        self._rings[cpu] = event_fd, PerfRing(event_fd, pages=RING_PAGES)

    def remove_cpu(self, cpu: int) -> None:
        """Take what is left in a CPU's ring; before its event is closed."""
        _, ring = self._rings.pop(cpu)
        self._take(ring)
        ring.close()

    @property
    def cpus(self) -> set[int]:
        return set(self._rings)

    def filenos(self) -> list[int]:
        return [fd for fd, _ in self._rings.values()]

    def drain(self) -> None:
        for _, ring in self._rings.values():
            self._take(ring)

    def of(self, copied: CopiedSample) -> CopiedSample | None:
        """Return a sample with perf's registers and stack; None when perf has none for it."""
        same = self._copies.get(_moment(copied.sample.pid, copied.registers), [])
        near = [copy for copy in same if abs(copy.time_ns - copied.time_ns) < NEAR_NS]
        if not near:
            return None
        copy = min(near, key=lambda copy: abs(copy.time_ns - copied.time_ns))
        same.remove(copy)
        return CopiedSample(copied.sample, copy.registers, copy.stack)

    def close(self) -> None:
        for _, ring in self._rings.values():
            ring.close()
        self._rings.clear()

    def _take(self, ring: PerfRing) -> None:
        for copy in parsed_samples(ring.take()):
            if self._kept_bytes < MAX_BYTES:
                self._kept_bytes += len(copy.stack)
                self._copies.setdefault(_moment(copy.pid, copy.registers), []).append(copy)


def parsed_samples(image: bytes) -> Iterator[PerfCopy]:
    """Yield the samples among perf records: TID, TIME, REGS_USER of 17 registers, STACK_USER."""
    for record in records(image):
        if record.kind != RECORD_SAMPLE or len(record.body) < _TASK.size + _ABI.size + 2 * _SIZE.size:
            continue
        pid, _, time_ns = _TASK.unpack_from(record.body)
        abi, *registers = _ABI.unpack_from(record.body, _TASK.size)
        if abi == ABI_NONE:  # there are no registers: what follows is the stack
            continue
        at = _TASK.size + _ABI.size
        (room,) = _SIZE.unpack_from(record.body, at)
        if at + room + 2 * _SIZE.size > len(record.body):
            continue
        (size_bytes,) = _SIZE.unpack_from(record.body, at + _SIZE.size + room)
        stack = record.body[at + _SIZE.size : at + _SIZE.size + min(size_bytes, room)]
        yield PerfCopy(pid, time_ns, tuple(registers[place] for place in _PLACES), stack)


def compared(kernel: Sequence[tuple[tuple[int, ...], int]], second: Sequence[WalkedStack]) -> Verification:
    """Return how often (words, end) of the kernel's walks are those of the second ones.

    Where the copy of the stack ended early, the frames up to there are compared.
    """
    verified = agreed = 0
    for (words, end), other in zip(kernel, second, strict=True):
        if other.end == END_NOT_READY:
            continue
        verified += 1
        if other.end == END_COPY_CUT:
            agreed += words[: len(other.words)] == other.words
        else:
            agreed += words == other.words and end == other.end
    return Verification(verified, agreed)


def _moment(pid: int, registers: Sequence[int]) -> tuple[int, int, int]:
    """Return what tells a sample of a process from nearly all others."""
    return pid, registers[_RIP], registers[_RSP]
