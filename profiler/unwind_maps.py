"""The layout of bpf/unwind.h in Python: tables, mappings and processes into the maps, copies out.

The maps are shared memory: what is written here is seen by the next walk, without a system call. A
table or a list of mappings is written whole before anything refers to it.
"""

import mmap
import struct
from typing import NamedTuple

from pyprof.profiler.extents import Extents
from pyprof.profiler.libbpf import Map
from pyprof.symbolize.table_worker import TableArrays

EXES, BLOCKS, CHUNKS, RULES, MAPPINGS = 8192, 1 << 19, 4096, 1 << 16, 1 << 17
PROCESSES = 1 << 14
MAX_MAPPINGS = (1 << 14) - 1  # of one process; bpf/unwind.bpf.h searches so many

# name of the map: how many entries it has. They take 28 MB of kernel memory.
MAP_ENTRIES = {
    "unwind_exes": EXES,
    "unwind_blocks": BLOCKS,  # 512 MiB of code
    "unwind_rows": CHUNKS,  # 4 million rows
    "unwind_rules": RULES,
    "unwind_mappings": MAPPINGS,
    "unwind_processes": PROCESSES,
}

SHARE = 2  # no file may take more than this part of any room
COPIES = 32  # handed over after each change of a process's mappings, because an address is in none

FRAME_FILE_BIT, FRAME_FILE_SHIFT = 1 << 63, 40
EXE_WAITING, EXE_READY, EXE_WITHOUT_TABLE = range(3)
MAPPING_FILE, MAPPING_ANONYMOUS, MAPPING_SPECIAL = range(3)

BLOCK_BYTES, CHUNK_BYTES, RULE_BYTES = 8, 4096, 16

_EXE = struct.Struct("=8I")
_MAPPING = struct.Struct("=3Q2I")
_PROCESS = struct.Struct("=3Q3I4x")
_PID = struct.Struct("=I")
_WANTED_AT = 4


class FrameWord(NamedTuple):
    """A user frame of a walk in the kernel."""

    exe: int  # -1: no file, `address` is absolute
    address: int  # file offset; of a caller it is inside the call


class MappedCode(NamedTuple):
    """One executable mapping, as the walk sees it."""

    start: int
    limit: int
    file_offset: int
    exe: int
    kind: int  # MAPPING_*


class ProcessImage(NamedTuple):
    """Whose mappings they are; CLOCK_BOOTTIME ns."""

    pid: int
    earliest_ns: int  # the process started between these two
    latest_ns: int
    exec_ns: int  # of its program image; 0: the first


class UnwindMaps:
    """The maps of a loaded object, as memory."""

    def __init__(self, maps: dict[str, Map]) -> None:
        self._processes = maps["unwind_processes"]
        self._memory = {
            name: mmap.mmap(one.fd, _page_aligned(MAP_ENTRIES[name] * -(-one.value_bytes // 8) * 8))
            for name, one in maps.items()
            if name != "unwind_processes"
        }
        for memory in self._memory.values():
            memory.madvise(mmap.MADV_DONTFORK)  # a confined child must not write what the kernel reads
        self._blocks, self._chunks, self._rules = Extents(BLOCKS), Extents(CHUNKS), Extents(RULES)
        self._mappings = Extents(MAPPINGS)

    def wanted_exes(self, count: int) -> list[int]:
        """Return which of the first `count` executables a walk has asked for since they were added."""
        stride = _EXE.size
        flags = self._memory["unwind_exes"][_WANTED_AT : count * stride : stride]
        return [index for index, flag in enumerate(flags) if flag]

    def load_table(self, exe: int, table: TableArrays, *, keeps_pointers: bool) -> bool:
        """Give an executable its table; False when there is no room for it, or it wants most of the room.

        keeps_pointers: its functions keep frame pointers.
        """
        places = (
            (self._blocks, len(table.blocks) // BLOCK_BYTES),
            (self._chunks, len(table.rows) // CHUNK_BYTES),
            (self._rules, len(table.rules) // RULE_BYTES),
        )
        if any(size > extents.capacity // SHARE for extents, size in places):
            return False
        taken = [extents.allocate(size) for extents, size in places]
        if None in taken:
            for (extents, size), first in zip(places, taken, strict=True):
                if first is not None:
                    extents.free(first, size)
            return False
        blocks_at, chunks_at, rules_at = (first or 0 for first in taken)
        self._write("unwind_blocks", blocks_at * BLOCK_BYTES, table.blocks)
        self._write("unwind_rows", chunks_at * CHUNK_BYTES, table.rows)
        self._write("unwind_rules", rules_at * RULE_BYTES, table.rules)
        block_count = len(table.blocks) // BLOCK_BYTES
        places_of = (table.first_block, block_count, blocks_at, chunks_at, rules_at)
        # the state last: from then on it is looked up
        self._write("unwind_exes", exe * _EXE.size, _EXE.pack(EXE_WAITING, 0, *places_of, keeps_pointers))
        self._write("unwind_exes", exe * _EXE.size, struct.pack("=I", EXE_READY))
        return True

    def refuse_table(self, exe: int, *, keeps_pointers: bool) -> None:
        """Say that an executable will have no table."""
        self._write("unwind_exes", exe * _EXE.size, _EXE.pack(EXE_WITHOUT_TABLE, *[0] * 6, keeps_pointers))

    def load_mappings(self, mappings: bytes) -> int | None:
        """Write a process's mappings and return where; None when there is no room."""
        first = self._mappings.allocate(len(mappings) // _MAPPING.size)
        if first is not None:
            self._write("unwind_mappings", first * _MAPPING.size, mappings)
        return first

    def free_mappings(self, first: int, size_bytes: int) -> None:
        """Let go of mappings that no process has had for at least as long as a walk takes."""
        self._mappings.free(first, size_bytes // _MAPPING.size)

    def set_process(self, process: ProcessImage, first: int, size_bytes: int) -> None:
        """Let the walks of a process use the mappings at `first`. Raises: LibbpfError."""
        pid, *times = process
        value = _PROCESS.pack(*times, first, size_bytes // _MAPPING.size, COPIES)
        self._processes.update(_PID.pack(pid), value)

    def forget_process(self, pid: int) -> None:
        self._processes.delete(_PID.pack(pid))

    def close(self) -> None:
        for memory in self._memory.values():
            memory.close()
        self._memory.clear()

    def _write(self, name: str, at: int, image: bytes) -> None:
        self._memory[name][at : at + len(image)] = image


def mapping_bytes(mappings: list[MappedCode]) -> bytes:
    """Return struct unwind_mapping for each, which must be ordered by start and not overlap."""
    return b"".join(_MAPPING.pack(*mapping) for mapping in mappings[:MAX_MAPPINGS])


def frame_word(word: int) -> FrameWord:
    """Return what a word of a walked stack means."""
    if not word & FRAME_FILE_BIT:
        return FrameWord(-1, word)
    exe = (word ^ FRAME_FILE_BIT) >> FRAME_FILE_SHIFT
    return FrameWord(exe, word & ((1 << FRAME_FILE_SHIFT) - 1))


def word_of(frame: FrameWord) -> int:
    """Return the word that means a frame.

    An address above the user's half, such as [vsyscall]'s, loses its top bit: then it is in no mapping.
    """
    if frame.exe < 0:
        return frame.address & ~FRAME_FILE_BIT
    return FRAME_FILE_BIT | frame.exe << FRAME_FILE_SHIFT | frame.address


def _page_aligned(size_bytes: int) -> int:
    return -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
