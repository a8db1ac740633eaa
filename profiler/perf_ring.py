"""The ring that the kernel writes a perf event's records into, mapped by this process.

Source: perf_event_open(2), "MMAP layout".
"""

import mmap
import struct
from collections.abc import Iterator
from typing import NamedTuple

HEAD_AT = 1024  # perf_event_mmap_page.data_head, and .data_tail behind it

_HEADER = struct.Struct("=IHH")  # type, misc, size


class Record(NamedTuple):
    """One perf record without its header."""

    kind: int  # PERF_RECORD_*
    misc: int
    body: bytes


class PerfRing:
    """A mapped ring. It does not own the event. Raises: OSError, as mmap(2) gives it."""

    def __init__(self, fd: int, *, pages: int) -> None:
        """`pages` is a power of two."""
        self._size = pages * mmap.PAGESIZE
        self._memory = mmap.mmap(fd, self._size + mmap.PAGESIZE)
        # one load or store of 8 bytes each: the kernel must never see half a number
        self._control = memoryview(self._memory)[HEAD_AT : HEAD_AT + 16].cast("Q")

    def take(self) -> bytes:
        """Return the records that arrived since the last call, oldest first, and free their room."""
        head, tail = self._control
        image = self._copy(tail, head)
        self._control[1] = head
        return image

    def close(self) -> None:
        self._control.release()
        self._memory.close()

    def _copy(self, tail: int, head: int) -> bytes:
        start, limit = tail % self._size, head % self._size
        base = mmap.PAGESIZE
        if tail == head:
            return b""
        if start < limit:
            return self._memory[base + start : base + limit]
        return self._memory[base + start : base + self._size] + self._memory[base : base + limit]


def records(image: bytes) -> Iterator[Record]:
    """Yield the records that a ring gave; a broken one ends it."""
    at = 0
    while at + _HEADER.size <= len(image):
        kind, misc, size = _HEADER.unpack_from(image, at)
        if size < _HEADER.size or at + size > len(image):
            return
        yield Record(kind, misc, image[at + _HEADER.size : at + size])
        at += size
