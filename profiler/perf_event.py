"""Perf events: the system call, its attributes, and the events pyprof samples by name.

Source: perf_event_open(2); include/uapi/linux/perf_event.h.
"""

import ctypes
import errno
import fcntl
import os
import platform
import struct
from typing import NamedTuple

from pyprof.profiler.errors import ExitCode, ProfilerError

SYSCALL_NUMBERS = {"x86_64": 298, "aarch64": 241}
PERF_FLAG_FD_CLOEXEC = 8
IOC_ENABLE, IOC_DISABLE = 0x2400, 0x2401

TYPE_HARDWARE, TYPE_SOFTWARE = 0, 1
COUNT_SW_DUMMY = 9
CLOCK_BOOTTIME = 7

FORMAT_TOTAL_TIME_ENABLED = 1
SAMPLE_TID, SAMPLE_TIME, SAMPLE_CPU = 1 << 1, 1 << 2, 1 << 7
SAMPLE_REGS_USER, SAMPLE_STACK_USER = 1 << 12, 1 << 13

# perf_event_attr's one-bit fields, by their position.
DISABLED, MMAP, COMM = 1 << 0, 1 << 8, 1 << 9
TASK, WATERMARK, SAMPLE_ID_ALL = 1 << 13, 1 << 14, 1 << 18
MMAP2, COMM_EXEC, USE_CLOCKID, BUILD_ID = 1 << 23, 1 << 24, 1 << 25, 1 << 34


class EventType(NamedTuple):
    """An event that can be sampled."""

    type: int  # perf_event_attr.type
    config: int  # perf_event_attr.config
    counts_ns: bool  # the period is nanoseconds of time, not occurrences


class EventTimes(NamedTuple):
    """What read(2) gives of an event."""

    value: int  # nanoseconds or occurrences
    enabled_ns: int  # how long the event was there to count


EVENTS = {
    "cpu-clock": EventType(TYPE_SOFTWARE, 0, True),
    "task-clock": EventType(TYPE_SOFTWARE, 1, True),
    "page-faults": EventType(TYPE_SOFTWARE, 2, False),
    "context-switches": EventType(TYPE_SOFTWARE, 3, False),
    "cpu-migrations": EventType(TYPE_SOFTWARE, 4, False),
    "minor-faults": EventType(TYPE_SOFTWARE, 5, False),
    "major-faults": EventType(TYPE_SOFTWARE, 6, False),
    "cycles": EventType(TYPE_HARDWARE, 0, False),
    "instructions": EventType(TYPE_HARDWARE, 1, False),
    "cache-references": EventType(TYPE_HARDWARE, 2, False),
    "cache-misses": EventType(TYPE_HARDWARE, 3, False),
    "branches": EventType(TYPE_HARDWARE, 4, False),
    "branch-misses": EventType(TYPE_HARDWARE, 5, False),
}
HARDWARE_EVENTS = frozenset(name for name, event in EVENTS.items() if event.type == TYPE_HARDWARE)


class PerfEventAttr(ctypes.Structure):
    """struct perf_event_attr up to PERF_ATTR_SIZE_VER5 (112 bytes); every kernel since 4.1 takes it."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_watermark", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("config1", ctypes.c_uint64),
        ("config2", ctypes.c_uint64),
        ("branch_sample_type", ctypes.c_uint64),
        ("sample_regs_user", ctypes.c_uint64),
        ("sample_stack_user", ctypes.c_uint32),
        ("clockid", ctypes.c_int32),
        ("sample_regs_intr", ctypes.c_uint64),
        ("aux_watermark", ctypes.c_uint32),
        ("sample_max_stack", ctypes.c_uint16),
        ("reserved", ctypes.c_uint16),
    )


def open_event(attr: PerfEventAttr, *, cpu: int, pid: int = -1) -> int:
    """Return the descriptor of a new perf event on `cpu`, for all processes when `pid` is -1.

    Raises: OSError with the kernel's errno; `diagnosis` turns it into words.
    """
    attr.size = ctypes.sizeof(attr)
    number = SYSCALL_NUMBERS.get(platform.machine())
    if number is None:
        raise ProfilerError(f"pyprof does not know {platform.machine()}; it runs on x86_64 and aarch64")
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.syscall(number, ctypes.byref(attr), pid, cpu, -1, ctypes.c_ulong(PERF_FLAG_FD_CLOEXEC)))
    if fd < 0:
        raise OSError(ctypes.get_errno(), f"perf_event_open: {os.strerror(ctypes.get_errno())}")
    return fd


def sampling_attr(event_name: str, period: int) -> PerfEventAttr:
    """Return the attributes of an event that fires each `period` nanoseconds or occurrences.

    Raises: ProfilerError when the event has no such name.
    """
    event = EVENTS.get(event_name)
    if event is None:
        raise ProfilerError(
            f"unknown event {event_name!r}; choose one of {', '.join(sorted(EVENTS))}", ExitCode.USAGE
        )
    return PerfEventAttr(
        type=event.type,
        config=event.config,
        sample_period=period,
        read_format=FORMAT_TOTAL_TIME_ENABLED,
        flags=DISABLED,
    )


def with_user_copies(attr: PerfEventAttr, *, registers: int, stack_bytes: int) -> PerfEventAttr:
    """Let the event's records carry the time, user registers in the mask `registers`, and the user stack."""
    attr.sample_type |= SAMPLE_TID | SAMPLE_TIME | SAMPLE_REGS_USER | SAMPLE_STACK_USER
    attr.flags |= USE_CLOCKID
    attr.clockid = CLOCK_BOOTTIME
    attr.sample_regs_user = registers
    attr.sample_stack_user = stack_bytes
    attr.wakeup_watermark = 1  # wakeup_events: tell of each record
    return attr


def sideband_attr(*, watermark_bytes: int, build_ids: bool) -> PerfEventAttr:
    """Return the attributes of the event that only reports forks, execs, mappings and exits."""
    flags = DISABLED | MMAP | MMAP2 | COMM | COMM_EXEC | TASK | WATERMARK | SAMPLE_ID_ALL | USE_CLOCKID
    flags |= BUILD_ID if build_ids else 0
    return PerfEventAttr(
        type=TYPE_SOFTWARE,
        config=COUNT_SW_DUMMY,
        sample_type=SAMPLE_TID | SAMPLE_TIME | SAMPLE_CPU,
        flags=flags,
        wakeup_watermark=watermark_bytes,
        clockid=CLOCK_BOOTTIME,
    )


def event_times(fd: int) -> EventTimes:
    """Return what the event has counted so far; it keeps that when its CPU goes away."""
    image = os.read(fd, 16)
    return EventTimes(*struct.unpack("=2Q", image)) if len(image) == 16 else EventTimes(0, 0)


def enable(fd: int) -> None:
    fcntl.ioctl(fd, IOC_ENABLE, 0)


def disable(fd: int) -> None:
    fcntl.ioctl(fd, IOC_DISABLE, 0)


def is_unsupported(error: OSError) -> bool:
    """Return whether the error says that this machine cannot count the event at all."""
    return error.errno in {errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP, errno.EINVAL}
