"""Read what `perf record --call-graph dwarf` wrote: samples as StackCopy values.

Source: tools/perf/Documentation/perf.data-file-format.txt; man 2 perf_event_open.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pyprof.symbolize.stack_copy import NO_BINARY, CodeRange, StackCopy

MMAP2, COMM, FORK, SAMPLE = 10, 3, 7, 9
_COMM_EXEC = 0x2000
# Which of perf's registers (ax bx cx dx si di bp sp ip flags cs ss ds es fs gs r8..r15) each DWARF one is.
_PERF_REGISTERS = (0, 3, 2, 1, 4, 5, 6, 7, *range(16, 24), 8)
_TID, _TIME, _ADDR, _CALLCHAIN, _ID, _CPU, _PERIOD, _STREAM, _REGS, _STACK, _IDENTIFIER = (
    1 << bit for bit in (1, 2, 3, 5, 6, 7, 8, 9, 12, 13, 16)
)


class PerfSample(NamedTuple):
    pid: int
    tid: int
    time_ns: int
    copy: StackCopy


class Record(NamedTuple):
    time_ns: int
    kind: int
    misc: int
    body: bytes


class PerfData(NamedTuple):
    samples: list[PerfSample]
    paths: list[str]  # by CodeRange.binary


def perf_data(path: Path) -> PerfData:
    """Return the samples of user-space stacks, by time."""
    data = path.read_bytes()
    assert data[:8] == b"PERFILE2"
    attrs_start, _, data_start, data_bytes = struct.unpack_from("<4Q", data, 24)
    (sample_type,) = struct.unpack_from("<Q", data, attrs_start + 24)
    (registers,) = struct.unpack_from("<Q", data, attrs_start + 80)
    assert registers & 0xFF01FF == 0xFF01FF
    paths: list[str] = []
    samples = []
    spaces: dict[int, tuple[CodeRange, ...]] = {}
    records = sorted(
        _records(data, data_start, data_start + data_bytes, sample_type), key=lambda r: r.time_ns
    )
    for record in records:
        if record.kind == SAMPLE:
            sample = _sample(record, sample_type, registers, spaces)
            samples += [sample] if sample else []
        else:
            _follow(record, spaces, paths)
    return PerfData(samples, paths)


def _records(data: bytes, position: int, limit: int, sample_type: int) -> Iterator[Record]:
    while position < limit:
        kind, misc, size_bytes = struct.unpack_from("<IHH", data, position)
        body = data[position + 8 : position + size_bytes]
        if kind in (MMAP2, COMM, FORK, SAMPLE):
            yield Record(_time_ns(body, kind, sample_type), kind, misc, body)
        position += size_bytes


def _time_ns(body: bytes, kind: int, sample_type: int) -> int:
    before = 8 * bool(sample_type & _IDENTIFIER) + 16  # ip, pid and tid
    after = 8 * sum(bool(sample_type & bit) for bit in (_TIME, _ID, _STREAM, _CPU, _IDENTIFIER))
    (time_ns,) = struct.unpack_from("<Q", body, before if kind == SAMPLE else len(body) - after)
    return int(time_ns)


def _follow(record: Record, spaces: dict[int, tuple[CodeRange, ...]], paths: list[str]) -> None:
    pid, other = struct.unpack_from("<II", record.body)
    if record.kind == FORK:
        spaces.setdefault(pid, spaces.get(other, ()))
    elif record.kind == COMM and record.misc & _COMM_EXEC:
        spaces[pid] = ()
    elif record.kind == MMAP2:
        start, size_bytes, file_offset = struct.unpack_from("<3Q", record.body, 8)
        path = record.body[64:].partition(b"\0")[0].decode()
        binary = NO_BINARY
        if path == "[vdso]" or (path.startswith("/") and not path.startswith("//")):
            paths += [path] if path not in paths else []
            binary = paths.index(path)
        new = CodeRange(start, start + size_bytes, file_offset if binary >= 0 else 0, binary)
        spaces[pid] = tuple(sorted([*_without(spaces.get(pid, ()), new), new]))


def _without(ranges: tuple[CodeRange, ...], new: CodeRange) -> Iterator[CodeRange]:
    for old in ranges:
        if old.start < new.start:
            yield old._replace(limit=min(old.limit, new.start))
        if old.limit > new.limit:
            start = max(old.start, new.limit)
            yield old._replace(start=start, file_offset=old.file_offset + start - old.start)


def _sample(
    record: Record, sample_type: int, registers: int, spaces: dict[int, tuple[CodeRange, ...]]
) -> PerfSample | None:
    body = record.body
    position = 8 * bool(sample_type & _IDENTIFIER) + 8
    pid, tid = struct.unpack_from("<II", body, position)
    position += 16
    position += 8 * sum(bool(sample_type & bit) for bit in (_ADDR, _ID, _STREAM, _CPU, _PERIOD))
    if sample_type & _CALLCHAIN:
        position += 8 + 8 * struct.unpack_from("<Q", body, position)[0]
    if not any(body[position : position + 8]):  # no user registers: a kernel thread, or at exit
        return None
    count = registers.bit_count()
    numbers = [bit for bit in range(64) if registers >> bit & 1]
    values = dict(zip(numbers, struct.unpack_from(f"<{count}Q", body, position + 8), strict=True))
    position += 8 + 8 * count
    (size_bytes,) = struct.unpack_from("<Q", body, position)
    stack = b""
    if size_bytes:
        (copied_bytes,) = struct.unpack_from("<Q", body, position + 8 + size_bytes)
        stack = body[position + 8 : position + 8 + copied_bytes]
    copy = StackCopy(tuple(values[number] for number in _PERF_REGISTERS), stack, spaces.get(pid, ()))
    return PerfSample(pid, tid, record.time_ns, copy)


def script_stacks(text: str) -> dict[tuple[int, int], tuple[int, ...]]:
    """Return the user-space addresses by (tid, time in ns) of `perf script --ns -F tid,time,ip`.

    7312 11422.603415241:
           ffffffff81e00b70
               55d0a8fa6b2f
    """
    stacks: dict[tuple[int, int], list[int]] = {}
    key = 0, 0
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 2:
            seconds, _, nanoseconds = fields[1].rstrip(":").partition(".")
            key = int(fields[0]), int(seconds) * 1_000_000_000 + int(nanoseconds)
            stacks[key] = []
        elif fields:
            stacks[key].append(int(fields[0], 16))
    return {key: tuple(ip for ip in stack if ip < 1 << 63) for key, stack in stacks.items()}
