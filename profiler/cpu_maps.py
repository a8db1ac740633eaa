"""The layout of bpf/cpu.h in Python: settings in, keys and values out."""

import os
import struct

from pyprof.profiler.capture import Sample
from pyprof.profiler.engine import Stats, Target
from pyprof.profiler.proc import pid_namespace
from pyprof.profiler.settings import COMM_BYTES, MAX_FRAMES, Settings, Unwind

STAT_NAMES = Stats._fields  # enum cpu_stat, in order

_SETTINGS = struct.Struct(f"=3I11BxI{COMM_BYTES}s")
_SAMPLE_KEY = struct.Struct(f"=4Q3I4x{COMM_BYTES}s")
_TARGET = struct.Struct("=QI4x")
_STACK = struct.Struct(f"=I4x{MAX_FRAMES}Q")
_U32, _U64 = struct.Struct("=I"), struct.Struct("=Q")
_STACK_HEADER_BYTES = 8
SAMPLE_KEY_BYTES = _SAMPLE_KEY.size


def settings_image(settings: Settings, self_pid: int, cpus: int = 1) -> bytes:
    """Return struct cpu_settings."""
    targets = settings.targets
    return _SETTINGS.pack(
        self_pid,
        settings.max_depth,
        pid_namespace(),
        bool(targets.pids or settings.command),
        bool(targets.tids),
        bool(targets.cgroup),
        bool(targets.comm),
        targets.user_threads,
        targets.kernel_threads,
        settings.user_stacks,
        settings.kernel_stacks,
        targets.idle,
        settings.per_thread,
        settings.unwind is Unwind.TABLES,
        settings.verify_stride(cpus),
        os.fsencode(targets.comm)[: COMM_BYTES - 1],
    )


def target_entry(target: Target) -> tuple[bytes, bytes]:
    """Return the key and the value of a `targets` entry."""
    return _U32.pack(target.pid), _TARGET.pack(target.start_ticks, target.awaits_exec)


def own_entry(pid: int) -> tuple[bytes, bytes]:
    """Return the key and the value of an `own_pids` entry."""
    return _U32.pack(pid), _U32.pack(1)


def parse_sample(key: bytes, value: bytes) -> Sample:
    """Return one entry of `counts`."""
    start_ns, image_ns, user_stack, kernel_stack, pid, tid, user_end, comm = _SAMPLE_KEY.unpack(key)
    name = comm.split(b"\0", 1)[0]
    return Sample(pid, tid, start_ns, image_ns, name, user_stack, kernel_stack, parse_u64(value), user_end)


def parse_stack(value: bytes) -> tuple[int, ...]:
    """Return the addresses of one entry of `stacks`, leaf first."""
    depth = min(_U32.unpack_from(value)[0], MAX_FRAMES)
    return struct.unpack_from(f"={depth}Q", value, _STACK_HEADER_BYTES)


def parse_u64(value: bytes) -> int:
    return int(_U64.unpack(value)[0])


def stat_key(index: int) -> bytes:
    return _U32.pack(index)
