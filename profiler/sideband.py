"""Perf side-band records: what processes did while a capture ran.

One dummy event per CPU reports forks, execs, executable mappings (with build id from kernel 5.12)
and exits, all with CLOCK_BOOTTIME stamps, into a ring that we map.

Source: perf_event_open(2), "MMAP layout"; include/uapi/linux/perf_event.h.
"""

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from pyprof.profiler import perf_event
from pyprof.profiler.perf_ring import PerfRing, records
from pyprof.profiler.proc import FileMapping
from pyprof.profiler.profile import Mapping

RING_PAGES = 128  # a power of two; 512 KiB per CPU
WATERMARK_BYTES = 1  # tell of each record: walks wait for what it says

RECORD_LOST, RECORD_COMM, RECORD_EXIT, RECORD_FORK = 2, 3, 4, 7
RECORD_MMAP2 = 10
MISC_COMM_EXEC, MISC_MMAP_BUILD_ID = 1 << 13, 1 << 14
PROT_EXEC = 4

_TASK = struct.Struct("=IIIIQ")  # pid, ppid, tid, ptid, time
_MMAP2 = struct.Struct("=IIQQQ24sII")  # pid, tid, start, length, file offset, identity, prot, flags
_INODE = struct.Struct("=IIQQ")  # major, minor, inode, generation
_ID_TRAILER = struct.Struct("=IIQII")  # pid, tid, time, cpu, reserved: for TID | TIME | CPU


class ForkEvent(NamedTuple):
    """A process began as a copy of another."""

    time_ns: int  # CLOCK_BOOTTIME, as in every event here
    pid: int
    parent_pid: int


class ExecEvent(NamedTuple):
    """A process replaced its program image."""

    time_ns: int
    pid: int


class MapEvent(NamedTuple):
    """A process mapped executable memory."""

    time_ns: int
    pid: int
    file: FileMapping


class ExitEvent(NamedTuple):
    """A process ended."""

    time_ns: int
    pid: int


class LostEvent(NamedTuple):
    """The ring was full: `records` are missing."""

    time_ns: int
    records: int


ProcessEvent = ForkEvent | ExecEvent | MapEvent | ExitEvent | LostEvent


class Ring:
    """The side-band ring of one CPU.

    Raises: OSError from the constructor, as perf_event_open(2) and mmap(2) give it.
    """

    def __init__(self, cpu: int, *, pages: int = RING_PAGES) -> None:
        self.cpu = cpu
        self.fd = open_event(cpu)
        try:
            self._ring = PerfRing(self.fd, pages=pages)
        except OSError:
            os.close(self.fd)
            raise
        perf_event.enable(self.fd)

    def events(self) -> list[ProcessEvent]:
        """Return what arrived since the last call, oldest first, and free its room."""
        return list(parse_records(self._ring.take()))

    def close(self) -> None:
        self._ring.close()
        os.close(self.fd)


def parse_records(image: bytes) -> Iterator[ProcessEvent]:
    """Yield the events of concatenated perf records; kinds that say nothing to us are passed over."""
    for record in records(image):
        event = _parse(*record)
        if event is not None:
            yield event


def _parse(kind: int, misc: int, body: bytes) -> ProcessEvent | None:
    if kind in {RECORD_FORK, RECORD_EXIT}:
        return _task_event(kind, body)
    time_ns: int = _ID_TRAILER.unpack_from(body, len(body) - _ID_TRAILER.size)[2]
    if kind == RECORD_MMAP2:
        return _map_event(time_ns, misc, body)
    if kind == RECORD_COMM and misc & MISC_COMM_EXEC:
        return ExecEvent(time_ns, struct.unpack_from("=I", body)[0])
    if kind == RECORD_LOST:
        return LostEvent(time_ns, struct.unpack_from("=QQ", body)[1])
    return None


def _task_event(kind: int, body: bytes) -> ProcessEvent | None:
    pid, parent_pid, tid, _, time_ns = _TASK.unpack_from(body)
    if kind == RECORD_FORK:
        return ForkEvent(time_ns, pid, parent_pid) if pid == tid and pid != parent_pid else None
    return ExitEvent(time_ns, pid) if pid == tid else None


def _map_event(time_ns: int, misc: int, body: bytes) -> MapEvent | None:
    pid, _, start, length, offset, identity, prot, _ = _MMAP2.unpack_from(body)
    if not prot & PROT_EXEC:
        return None
    path = os.fsdecode(body[_MMAP2.size : -_ID_TRAILER.size].split(b"\0", 1)[0])
    build_id, device, inode = "", 0, 0
    if misc & MISC_MMAP_BUILD_ID:
        build_id = identity[4 : 4 + min(identity[0], 20)].hex()
    else:
        major, minor, inode, _ = _INODE.unpack(identity)
        device = os.makedev(major, minor)
    mapping = Mapping(start, start + length, offset, path, build_id)
    return MapEvent(time_ns, pid, FileMapping(mapping, device, inode))


def open_event(cpu: int) -> int:
    """Return the descriptor of a side-band event on one CPU, not enabled yet. Raises: OSError."""
    try:
        attr = perf_event.sideband_attr(watermark_bytes=WATERMARK_BYTES, build_ids=True)
        return perf_event.open_event(attr, cpu=cpu)
    except OSError as error:
        if not perf_event.is_unsupported(error):
            raise
    # before 5.12 there are no build ids in mmap2 records
    attr = perf_event.sideband_attr(watermark_bytes=WATERMARK_BYTES, build_ids=False)
    return perf_event.open_event(attr, cpu=cpu)
