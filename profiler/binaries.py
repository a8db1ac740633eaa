"""The files that sampled code came from, held open once seen.

A file is opened when its mapping is first seen, so that a process may end, and its binary be deleted
or replaced, before the symbols are looked up.

Source: proc(5), /proc/PID/map_files and /proc/PID/root.
"""

import os
import resource
import stat
from typing import NamedTuple

from pyprof.profiler.proc import FileMapping

SPARE_DESCRIPTORS = 128
OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class FileIdentity(NamedTuple):
    """What tells one file from another: the build id, or else device and inode."""

    path: str
    build_id: str
    device: int
    inode: int


class Binaries:
    """Open descriptors by file identity. Close it to let them go."""

    def __init__(self, *, proc: str = "/proc") -> None:
        self._proc = proc
        self._descriptors: dict[FileIdentity, int] = {}  # -1: could not be opened
        self._limit = raised_descriptor_limit() - SPARE_DESCRIPTORS
        self._passed_over: set[FileIdentity] = set()

    def hold(self, pid: int, file: FileMapping) -> None:
        """Open the file behind a mapping, unless it is open already or has no file."""
        identity = identity_of(file)
        if self._descriptors.get(identity, -1) >= 0 or not file.mapping.path.startswith("/"):
            return
        if file.mapping.path.startswith("//"):
            return
        if len(self._descriptors) >= self._limit:
            self._passed_over.add(identity)
            return
        self._descriptors[identity] = self._open(pid, file)

    @property
    def unopened(self) -> int:
        """Return how many files were passed over because the limit on open files was reached."""
        return len(self._passed_over)

    def descriptor(self, file: FileMapping) -> int:
        """Return an open descriptor of the mapping's file, -1 when there is none."""
        return self._descriptors.get(identity_of(file), -1)

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptors.clear()

    def _open(self, pid: int, file: FileMapping) -> int:
        mapping = file.mapping
        exact = f"{self._proc}/{pid}/map_files/{mapping.start:x}-{mapping.limit:x}"
        for path in (exact, f"{self._proc}/{pid}/root{mapping.path}", mapping.path):
            descriptor = open_regular(path)
            if descriptor < 0:
                continue
            if not file.inode or path == exact or os.fstat(descriptor).st_ino == file.inode:
                return descriptor
            os.close(descriptor)
        return -1


def identity_of(file: FileMapping) -> FileIdentity:
    """Return what tells the mapping's file from others."""
    if file.mapping.build_id:
        return FileIdentity(file.mapping.path, file.mapping.build_id, 0, 0)
    return FileIdentity(file.mapping.path, "", file.device, file.inode)


def open_regular(path: str) -> int:
    """Return a read-only descriptor of a regular file, or -1. Never blocks on a FIFO or a device."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return -1
        descriptor = os.open(path, OPEN_FLAGS)
    except OSError:
        return -1
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return -1


def raised_descriptor_limit() -> int:
    """Raise the limit on open files as far as allowed and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return hard
