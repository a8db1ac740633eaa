"""Unwind tables of files that a profiled program could have written, made beside the capture.

One worker, started with the first file, reads one file after the other; the caller looks in when its
socket is readable, and never waits. A file that breaks the worker or takes too long costs its own table.
"""

import contextlib
import os
import re
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from pyprof.symbolize.confined import Confined, EndedError, Limits
from pyprof.symbolize.layout import FILE_LIMIT
from pyprof.symbolize.table_job import BUILD, CACHED, HEADER, TABLE, TableJob

_NAME = "table worker"
_CPU_S = 600  # of a worker; a file has its own limit
_TIMEOUT_S = 20.0  # for one file
_HEADER_BYTES = 4096
_TABLE_NAME = re.compile(r"[0-9a-f-]{8,200}")
_TABLE_BYTES = 64 << 20
_ARRIVED_BYTES = _TABLE_BYTES + 2 * _HEADER_BYTES  # of one answer, at most


class TableArrays(NamedTuple):
    """An unwind table as the kernel's walk reads it; see unwind_table.UnwindTable."""

    first_block: int
    blocks: bytes
    rows: bytes
    rules: bytes


class TableAnswer(NamedTuple):
    """What came of one file."""

    key: int  # as it was asked for
    name: str  # "8f...-19...": what a cached table is known by; "" when there is none
    serialised: bytes  # for the cache; empty when there is none
    arrays: TableArrays
    keeps_pointers: bool  # the functions of the file keep frame pointers
    is_cached: bool  # it came from the cache
    failure: str  # "", or one line: why there is no table

    @property
    def build_id(self) -> str:
        """Return the build id that the file has, "0" for none."""
        return self.name.partition("-")[0]


_NO_ARRAYS = TableArrays(0, b"", b"", b"")


class _Asked(NamedTuple):
    key: int
    descriptor: int


class TableWorker:
    """Asks for tables and takes them in. `cached` opens a cached table by name; -1: there is none."""

    def __init__(self, cached: Callable[[str], int], *, timeout_s: float = _TIMEOUT_S) -> None:
        self._cached = cached
        self._timeout_s = timeout_s
        self._waiting: deque[_Asked] = deque()
        self._worker: Confined | None = None
        self.on_start: Callable[[int], object] = bool  # is told the process id of each worker
        self._name = ""
        self._table_bytes = -1  # -1: its size has not come yet
        self._array_bytes = 0, 0, 0
        self._first_block = 0
        self._is_cached = False
        self._keeps_pointers = False
        self._deadline_s = 0.0

    @property
    def is_busy(self) -> bool:
        return bool(self._waiting)

    @property
    def pid(self) -> int:
        """Return the worker's process id, 0 while there is none."""
        return self._worker.pid if self._worker else 0

    def fileno(self) -> int:
        """Return the descriptor that is readable when answers wait; -1 while there is no worker."""
        return self._worker.socket.fileno() if self._worker else -1

    def start(self) -> None:
        """Start the worker now, so that the first table does not wait for it. Raises: OSError."""
        if self._worker is None:
            limits = Limits(_CPU_S, mapping_bytes=FILE_LIMIT)
            self._worker = Confined(_NAME, TableJob(), (), limits)
            self.on_start(self._worker.pid)

    def ask(self, key: int, descriptor: int) -> None:
        """Ask for the table of the ELF file that `descriptor` is open for; it must stay open."""
        self._waiting.append(_Asked(key, descriptor))
        if len(self._waiting) == 1:
            self._send_next()

    def answers(self) -> list[TableAnswer]:
        """Return what has arrived since the last call, without waiting."""
        answers: list[TableAnswer] = []
        if not self._waiting:
            self._expect_silence()
        while self._waiting:
            answer = self._answer()
            if answer is None:
                break
            answers.append(answer)
            self._waiting.popleft()
            self._send_next()
        return answers

    def close(self) -> None:
        if self._worker:
            self._worker.close()
            self._worker = None

    def _expect_silence(self) -> None:
        """Let go of a worker that has ended, or talks without being asked: the next file gets a new one."""
        try:
            if not self._worker or not self._worker.arrived(_ARRIVED_BYTES):
                return
        except EndedError:
            pass
        self.close()

    def _answer(self) -> TableAnswer | None:
        """Return the answer for the first that waits, None when it is not there yet."""
        if self._worker is None:
            return self._failed(f"{_NAME} cannot start")
        try:
            return self._parsed(self._worker.arrived(_ARRIVED_BYTES))
        except EndedError as error:
            return self._failed(str(error))
        except (ValueError, KeyError, TypeError, RecursionError):
            return self._failed(f"{_NAME} answered nonsense")

    def _parsed(self, arrived: bytearray) -> TableAnswer | None:
        """Take what has arrived. Raises: ValueError, KeyError, TypeError when it is nonsense."""
        while self._table_bytes < 0:
            header = _taken_header(arrived)
            if header is None:
                return self._late()
            self._keeps_pointers = header.get("keeps_pointers") is True or self._keeps_pointers
            if "failure" in header:
                return self._without_table(_line(header["failure"]))
            if "name" in header:
                self._take_name(str(header["name"]))
            elif "keeps_pointers" not in header:
                self._take_size(header)
        if len(arrived) < self._table_bytes:
            return self._late()
        serialised = bytes(memoryview(arrived)[: self._table_bytes])
        del arrived[: self._table_bytes]
        arrays = _arrays(serialised, self._first_block, self._array_bytes)
        key, keeps_pointers = self._waiting[0].key, self._keeps_pointers
        return TableAnswer(key, self._name, serialised, arrays, keeps_pointers, self._is_cached, "")

    def _without_table(self, reason: str) -> TableAnswer:
        return TableAnswer(self._waiting[0].key, "", b"", _NO_ARRAYS, self._keeps_pointers, False, reason)

    def _take_name(self, name: str) -> None:
        if self._name or not _TABLE_NAME.fullmatch(name):
            raise ValueError(name)
        self._name = name
        cached = self._cached(name)
        self._send(BUILD if cached < 0 else CACHED, cached)
        if cached >= 0:
            os.close(cached)

    def _take_size(self, header: dict[str, object]) -> None:
        size_bytes, sizes = _number(header["size"], _TABLE_BYTES), header["arrays"]
        if not self._name or not isinstance(sizes, list):
            raise ValueError(sizes)
        blocks, rows, rules = (_number(size, size_bytes) for size in sizes)
        if blocks + rows + rules > size_bytes:
            raise ValueError(sizes)
        self._array_bytes = blocks, rows, rules
        self._first_block = _number(header["first_block"], 0xFFFFFFFF)
        self._table_bytes, self._is_cached = size_bytes, header["is_cached"] is True

    def _late(self) -> TableAnswer | None:
        """Return why an answer that is not whole yet will never be; None when it may."""
        if self._worker and self._worker.ended:
            return self._failed(self._worker.ended)
        if time.monotonic() < self._deadline_s:
            return None
        return self._failed(f"{_NAME} ran out of time")

    def _failed(self, reason: str) -> TableAnswer:
        """Return a failure, and let go of the worker: the next file gets a new one."""
        self.close()
        return self._without_table(reason)

    def _send_next(self) -> None:
        self._name, self._table_bytes = "", -1
        self._is_cached = self._keeps_pointers = False
        self._deadline_s = time.monotonic() + self._timeout_s
        if self._waiting:
            with contextlib.suppress(OSError):  # `answers` tells why there is no worker
                self.start()
                self._send(TABLE, self._waiting[0].descriptor)

    def _send(self, kind: bytes, descriptor: int) -> None:
        if self._worker is None:
            return
        with contextlib.suppress(ConnectionError):  # it has ended: reading tells why
            if descriptor >= 0:
                socket.send_fds(self._worker.socket, [kind], [descriptor])
            else:
                self._worker.socket.sendall(kind)


def _arrays(serialised: bytes, first_block: int, sizes: tuple[int, int, int]) -> TableArrays:
    """Return the arrays at the end of a serialised table. Raises: ValueError when they cannot be such."""
    blocks, rows, rules = sizes
    if blocks % 8 or rows % 4096 or rules % 16:
        raise ValueError(sizes)
    at = len(serialised) - sum(sizes)
    rows_at, rules_at = at + blocks, at + blocks + rows
    return TableArrays(
        first_block, serialised[at:rows_at], serialised[rows_at:rules_at], serialised[rules_at:]
    )


def _taken_header(arrived: bytearray) -> dict[str, object] | None:
    """Take one header off what has arrived; None when it is not whole yet."""
    if len(arrived) < HEADER.size:
        return None
    (length,) = HEADER.unpack_from(arrived)
    if length > _HEADER_BYTES:
        raise ValueError(length)
    if len(arrived) < HEADER.size + length:
        return None
    import json  # noqa: PLC0415 - not at the start

    header = json.loads(arrived[HEADER.size : HEADER.size + length])
    del arrived[: HEADER.size + length]
    if not isinstance(header, dict):
        raise ValueError("not an object")
    return header


def _number(value: object, most: int) -> int:
    """Return a value that is a number from 0 to `most`. Raises: ValueError when it is not: NaN, 1e9, true."""
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(value)
    return value


def _line(value: object) -> str:
    from pyprof.symbolize.text import printable  # noqa: PLC0415 - for failures only

    return printable(str(value), 200)
