"""What /proc and /sys say: processes, their mappings, CPUs, namespaces.

Every function takes the root of procfs (or sysfs) as an argument, so a test gives it a folder. A
process may end between two reads; that is an empty answer, never an error.

Source: proc(5); Documentation/filesystems/proc.rst.
"""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pyprof.profiler.profile import Mapping

NS_PER_TICK = 10_000_000  # USER_HZ is 100
INIT_PID_NAMESPACE = 0xEFFFFFFC  # include/linux/proc_ns.h: PROC_PID_INIT_INO
ANONYMOUS = "//anon"  # as perf names memory that no file backs
DELETED = " (deleted)"


# 55d0c0a00000-55d0c0a1c000 r-xp 00002000 fe:00 1181
_EXECUTABLE = re.compile(rb"[0-9a-f]+-[0-9a-f]+ ..x. [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ \d+", re.DOTALL)


class FileMapping(NamedTuple):
    """An executable mapping of a process, with the identity of its file."""

    mapping: Mapping
    device: int  # st_dev, 0 when unknown
    inode: int  # 0 when there is no file, or when the build id identifies it


def executable_mappings(pid: int, *, proc: str = "/proc") -> list[FileMapping]:
    """Return the executable mappings of a process, ordered by start; [] when it has gone.

    55d0c0a00000-55d0c0a1c000 r-xp 00002000 fe:00 1181         /usr/bin/a name with blanks (deleted)
    ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
    """
    text = _read(f"{proc}/{pid}/maps")
    if not text:  # the main thread may have exited while others run
        text = next(filter(None, (_read(f"{path}/maps") for path in _tasks(proc, pid))), b"")
    lines = text.split(b"\n")  # the kernel escapes newlines in paths, and only those
    return [_file_mapping(line) for line in lines if _EXECUTABLE.match(line)]


def start_ticks(pid: int, *, proc: str = "/proc") -> int:
    """Return when a process or thread started, in 1/100 s since the machine's boot; 0 when it has gone."""
    fields = _read(f"{proc}/{pid}/stat").rpartition(b")")[2].split()
    return int(fields[19]) - boottime_offset_ns(proc) // NS_PER_TICK if len(fields) > 19 else 0


@cache
def boottime_offset_ns(proc: str = "/proc") -> int:
    """Return how far our time namespace shifts CLOCK_BOOTTIME; 0 in the machine's first one.

    monotonic           0         0
    boottime       100000         0
    """
    for line in _read(f"{proc}/self/timens_offsets").splitlines():
        fields = line.split()
        if fields[:1] in ([b"boottime"], [b"7"]):
            return int(fields[1]) * 1_000_000_000 + int(fields[2])
    return 0


def process_ids(*, proc: str = "/proc") -> list[int]:
    """Return the ids of all processes that are visible, in increasing order."""
    return sorted(int(name) for name in os.listdir(proc) if name.isdigit())


def online_cpus(*, sys: str = "/sys") -> tuple[int, ...]:
    """Return the CPUs that are online, in increasing order; without sysfs, those that are counted."""
    text = _read(f"{sys}/devices/system/cpu/online").decode()
    return parse_cpu_list(text) or tuple(range(os.cpu_count() or 1))


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Return the numbers of a CPU list such as "0-3,8".

    Raises: ValueError when the text is not such a list.
    """
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        if int(last or first) < int(first):
            raise ValueError(f"{part} runs backwards")
        numbers.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(numbers))


def idle_ns(*, proc: str = "/proc") -> dict[int, int]:
    """Return how long each CPU has been idle since boot, in nanoseconds; precise to 10 ms."""
    answer = {}
    for line in _read(f"{proc}/stat").splitlines():
        fields = line.split()
        if fields and fields[0].startswith(b"cpu") and fields[0] != b"cpu":
            answer[int(fields[0][3:])] = (int(fields[4]) + int(fields[5])) * NS_PER_TICK
    return answer


def pid_namespace(*, proc: str = "/proc") -> int:
    """Return the inode of our pid namespace; 0 for the machine's first one."""
    inode = os.stat(f"{proc}/self/ns/pid").st_ino
    return 0 if inode == INIT_PID_NAMESPACE else inode


def sysctl(name: str, default: int, *, proc: str = "/proc") -> int:
    """Return the number that a setting such as "kernel.perf_event_paranoid" has."""
    try:
        return int(_read(f"{proc}/sys/{name.replace('.', '/')}"))
    except ValueError:
        return default


def _file_mapping(line: bytes) -> FileMapping:
    fields = line.split(b" ", 5)
    start, _, limit = fields[0].partition(b"-")
    major, _, minor = fields[3].partition(b":")
    path = os.fsdecode(fields[5].lstrip(b" ")) if len(fields) > 5 else ""
    mapping = Mapping(
        int(start, 16), int(limit, 16), int(fields[2], 16), path.removesuffix(DELETED) or ANONYMOUS
    )
    return FileMapping(mapping, os.makedev(int(major, 16), int(minor, 16)), int(fields[4]))


def _tasks(proc: str, pid: int) -> Iterator[str]:
    folder = f"{proc}/{pid}/task"
    try:
        yield from (f"{folder}/{name}" for name in os.listdir(folder))
    except OSError:
        return


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
