"""Stack copies: samples that the kernel hands over with registers and stack, to be walked in user space.

A sample is handed over when its process's mappings, or the table of a file, are not there yet; without
its stack, when its walk is to be verified with perf's copy.
"""

import struct
from collections import Counter
from typing import NamedTuple

from pyprof.profiler.capture import END_NOT_READY, Sample
from pyprof.profiler.cpu_maps import SAMPLE_KEY_BYTES, parse_sample
from pyprof.profiler.libbpf import RingBuffer
from pyprof.profiler.proc import FileMapping

RING_BYTES = 4 << 20  # a power of two; at least 60 copies
RED_ZONE_BYTES = 128  # bpf/unwind.h
MAX_BYTES = 48 << 20  # kept until the capture's end
MAX_WALKED = 100_000
RIP = 16  # in a copy's registers
REGISTERS = 17  # in DWARF's order, the 17th is rip

_COPY = struct.Struct(f"=Q{REGISTERS}Q2I")  # time, registers, size, holes
_ONE = struct.pack("=Q", 1)


class CopiedSample(NamedTuple):
    """A sample whose user stack is still to be walked."""

    sample: Sample
    registers: tuple[int, ...]  # DWARF's order: rip last
    stack: bytes  # memory from so far below rsp on; it may end early
    red_zone_bytes: int = 0
    holes: int = 0  # bit n: the n-th page of the stack could not be read
    time_ns: int = 0  # CLOCK_BOOTTIME
    files: tuple[FileMapping, ...] | None = None  # what was mapped then; None: not known yet


class Copies:
    """Takes copies out of the kernel's ring. Beyond a limit of memory it keeps no stacks, but all samples."""

    def __init__(self, ring: RingBuffer) -> None:
        self._ring = ring
        self._kept_bytes = 0
        self._fresh: list[CopiedSample] = []
        self.samples: list[CopiedSample] = []
        self.beyond: Counter[tuple[Sample, int]] = Counter()  # sample and rip of those beyond the limit
        self.walked: list[CopiedSample] = []  # by the kernel, and counted; to be verified

    @property
    def is_full(self) -> bool:
        """Return whether no more stacks are kept."""
        return self._kept_bytes >= MAX_BYTES

    def fileno(self) -> int:
        return self._ring.fileno()

    def drain(self) -> list[CopiedSample]:
        """Take what has arrived and return it; the caller puts it into `samples`."""
        self._fresh = []
        self._ring.consume(self._take)
        return self._fresh

    def _take(self, image: bytes) -> None:
        copy = parsed_copy(image)
        if copy.sample.user_end != END_NOT_READY:
            if len(self.walked) < MAX_WALKED:
                self.walked.append(copy)
        elif self.is_full:
            self.beyond[copy.sample, copy.registers[RIP]] += 1
        else:
            self._kept_bytes += len(image)
            self._fresh.append(copy)


def parsed_copy(image: bytes) -> CopiedSample:
    """Return struct copied_sample; its stack has as many bytes as came."""
    time_ns, *registers, size_bytes, holes = _COPY.unpack_from(image, SAMPLE_KEY_BYTES)
    start = SAMPLE_KEY_BYTES + _COPY.size
    sample = parse_sample(image[:SAMPLE_KEY_BYTES], _ONE)
    stack = image[start : start + size_bytes]
    return CopiedSample(sample, tuple(registers), stack, RED_ZONE_BYTES, holes, time_ns)
