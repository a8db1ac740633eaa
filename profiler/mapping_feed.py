"""The mapping feed: tells the walk in the kernel what is mapped where, as the process table learns it.

A list of mappings is written beside the old one, then the process is pointed to it, and the old one is
reused only when no walk can be reading it any more. Processes with equal mappings share a list.
"""

import time
from dataclasses import dataclass

from pyprof.profiler.executables import Executables
from pyprof.profiler.proc import FileMapping
from pyprof.profiler.process_table import Process, ProcessTable
from pyprof.profiler.unwind_maps import (
    MAPPING_ANONYMOUS,
    MAPPING_FILE,
    MAPPING_SPECIAL,
    MAX_MAPPINGS,
    PROCESSES,
    MappedCode,
    ProcessImage,
    UnwindMaps,
    mapping_bytes,
)

WALK_S = 0.05  # far longer than any walk
MANY_BYTES = 256 * 32  # a list of 1,024 mappings is written anew at most once in SLOW_S, longer ones later
SLOW_S = 0.25
HIGHEST_START = 1 << 63  # [vsyscall] is above; the kernel's search compares smaller numbers only
SPECIAL_PATHS = frozenset({"[uprobes]"})  # what runs there has no caller on the stack


@dataclass(slots=True)
class _List:
    """A list of mappings in the maps."""

    image: bytes
    first: int
    users: int = 0


@dataclass(slots=True)
class _Told:
    """What the kernel knows of a process."""

    process: ProcessImage
    list: _List
    written_s: float


class MappingFeed:
    """Keeps the kernel's view of processes equal to the process table's."""

    def __init__(self, maps: UnwindMaps, table: ProcessTable, executables: Executables) -> None:
        self._maps = maps
        self._table = table
        self._executables = executables
        self._told: dict[int, _Told] = {}
        self._lists: dict[bytes, _List] = {}
        self._retired: list[tuple[float, _List]] = []
        self._pending: set[int] = set()
        self.refused = 0  # processes that found no room

    def publish(self) -> list[int]:
        """Tell what has changed since the last call; return the processes that are news."""
        self._pending |= self._table.changed
        self._table.changed.clear()
        self._free_retired()
        now_s = time.monotonic()
        due = [pid for pid in self._pending if self._is_due(pid, now_s)]
        self._pending.difference_update(due)
        return [pid for pid in due if self._publish(pid, now_s)]

    def executables_of(self, pid: int) -> list[int]:
        """Return the executables that a process has mapped."""
        process = self._table.living(pid)
        files = process.images[-1].files() if process else []
        numbers = [self._executables.number(file) for file in files]
        return [number for number in dict.fromkeys(numbers) if number is not None]

    def _is_due(self, pid: int, now_s: float) -> bool:
        told = self._told.get(pid)
        if told is None or len(told.list.image) <= MANY_BYTES:
            return True
        return now_s - told.written_s >= SLOW_S * len(told.list.image) / MANY_BYTES / 4

    def _publish(self, pid: int, now_s: float) -> bool:
        process, told = self._table.living(pid), self._told.get(pid)
        image = self._image(process) if process else b""
        if process is None or not image:  # none is known yet: a walk must wait, not find no mapping
            self._forget(pid)
            return False
        whose = ProcessImage(pid, *process.start_range_ns, process.exec_ns)
        if told and told.process == whose and told.list.image == image:
            return False
        mappings = self._list(image) if told or len(self._told) < PROCESSES else None
        if mappings is None:
            self.refused += 1
            self._forget(pid)
            return False
        mappings.users += 1
        self._maps.set_process(whose, mappings.first, len(image))
        self._told[pid] = _Told(whose, mappings, now_s)
        if told:
            self._release(told.list)
        return told is None

    def _forget(self, pid: int) -> None:
        told = self._told.pop(pid, None)
        if told:
            self._maps.forget_process(pid)
            self._release(told.list)

    def _image(self, process: Process) -> bytes:
        files = process.images[-1].files()[:MAX_MAPPINGS]
        return mapping_bytes([self._mapped(file) for file in files if file.mapping.start < HIGHEST_START])

    def _mapped(self, file: FileMapping) -> MappedCode:
        mapping = file.mapping
        number = self._executables.number(file)
        kind = MAPPING_FILE
        if number is None:
            kind = MAPPING_SPECIAL if mapping.path in SPECIAL_PATHS else MAPPING_ANONYMOUS
        return MappedCode(mapping.start, mapping.limit, mapping.file_offset, number or 0, kind)

    def _list(self, image: bytes) -> _List | None:
        known = self._lists.get(image)
        if known is None:
            first = self._maps.load_mappings(image)
            if first is None:
                return None
            known = self._lists[image] = _List(image, first)
        return known

    def _release(self, mappings: _List) -> None:
        mappings.users -= 1
        if mappings.users == 0:
            del self._lists[mappings.image]
            self._retired.append((time.monotonic(), mappings))

    def _free_retired(self) -> None:
        now_s = time.monotonic()
        while self._retired and now_s - self._retired[0][0] > WALK_S:
            _, mappings = self._retired.pop(0)
            self._maps.free_mappings(mappings.first, len(mappings.image))
