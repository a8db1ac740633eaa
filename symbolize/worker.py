"""Symbols of files that a profiled program could have written, read in a process that may do nothing.

    parent                                 worker: uid 65534, no new files, limited memory and time
    symbolize(requests) -- fork ---------> for each request: map the file, find symbols, write a report
      checks each report <---- pipe -----                    then demangle, write the readable names
      kills a worker that is late, and starts another for the requests that are left

One worker serves all modules. It is forked without exec, so it starts in some milliseconds and inherits
the descriptors of the files; it imports numpy itself, so the parent needs none. Fork only from a process
without threads. A file that breaks the worker costs the symbols of that module, nothing else.
"""

import socket
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pyprof.symbolize.confined import MEMORY_BYTES, Confined, EndedError, Limits
from pyprof.symbolize.layout import FILE_LIMIT

_NAME = "symbol worker"
_OUT_OF_TIME = f"{_NAME} ran out of time"


class Binary(NamedTuple):
    """An ELF file to read."""

    key: int  # chosen by the caller, comes back in the Answer
    fd: int  # open for reading; -1: `data` is the file
    data: bytes
    build_id: str  # that the mapped file had, hexadecimal; "" when unknown


class Request(NamedTuple):
    """Places of one file that want a name."""

    binary: Binary
    offsets: tuple[int, ...]  # file offsets; of a return address already moved back into the call


class Answer(NamedTuple):
    """What is known about the places of a Request."""

    key: int  # of the Binary
    names: tuple[str, ...]  # one for each offset: printable, demangled; "" for no symbol
    build_id: str  # found in the file, lower-case hexadecimal, "" for none
    failure: str  # "", or one line: why there are no names, or "names left mangled: ..."


def symbolize(
    requests: Sequence[Request],
    *,
    module_timeout_s: float = 10.0,
    total_timeout_s: float = 60.0,
    memory_bytes: int = MEMORY_BYTES,
) -> Iterator[Answer]:
    """Yield one Answer for each request, in their order.

    Nothing in a file raises: what it breaks is in `failure`. Closing the iterator ends the worker. The
    time that the caller spends between answers counts in the total only.
    """
    deadline = time.monotonic() + total_timeout_s
    pending = list(requests)
    while pending:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            yield from (_failed(request, _OUT_OF_TIME) for request in pending)
            return
        try:
            started = _worker(pending, memory_bytes, cpu_s=int(remaining_s) + 1)
        except OSError as error:  # no process or descriptor left
            reason = f"{_NAME} cannot start: {error.strerror}"
            yield from (_failed(request, reason) for request in pending)
            return
        with started as worker:
            while pending and not worker.ended:
                limit = min(deadline, time.monotonic() + module_timeout_s)
                yield _answer(worker, pending.pop(0), limit)
            if worker.is_unconfined:  # so would be the next
                yield from (_failed(request, worker.ended) for request in pending)
                return


class _Naming:
    """The worker's job: a report for each request, in their order."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._requests = requests

    def load(self) -> None:
        from pyprof.symbolize import parser  # noqa: PLC0415 (imports numpy)

        parser.load()

    def serve(self, parent: socket.socket) -> None:
        from pyprof.symbolize import parser  # noqa: PLC0415 (imports numpy)

        for request in self._requests:
            for frame in parser.frames(request):
                parent.sendall(frame)


def _worker(requests: Sequence[Request], memory_bytes: int, cpu_s: int) -> Confined:
    descriptors = {request.binary.fd for request in requests if request.binary.fd >= 0}
    limits = Limits(cpu_s, memory_bytes, mapping_bytes=FILE_LIMIT)
    return Confined(_NAME, _Naming(list(requests)), descriptors, limits)


def _answer(worker: Confined, request: Request, deadline: float) -> Answer:
    """Return the next answer, which must be the one to `request`."""
    from pyprof.symbolize import wire  # noqa: PLC0415 (imports json)

    report: wire.Report | None = None
    try:
        report = wire.parsed_report(_frame(worker, request, deadline), len(request.offsets))
        symbols = report.symbols
        if report.more:
            symbols = wire.parsed_readable(_frame(worker, request, deadline), len(symbols))
    except EndedError:
        pass  # worker.ended has the reason
    except ValueError:
        worker.kill(reason=f"{_NAME} answered nonsense")
    if report is None:
        return _failed(request, worker.ended)
    names = tuple(symbols[pick] if pick >= 0 else "" for pick in report.picks)
    failure = f"names left mangled: {worker.ended}" if worker.ended else report.failure
    return Answer(request.binary.key, names or ("",) * len(request.offsets), report.build_id, failure)


def _frame(worker: Confined, request: Request, deadline: float) -> bytes:
    """Return the bytes of the next frame. Raises: EndedError; ValueError when it is too long."""
    from pyprof.symbolize import wire  # noqa: PLC0415 (imports json)

    (length,) = wire.HEADER.unpack(worker.read(wire.HEADER.size, deadline))
    if length > wire.frame_limit(len(request.offsets)):
        raise ValueError(length)
    return worker.read(length, deadline)


def _failed(request: Request, reason: str) -> Answer:
    return Answer(request.binary.key, ("",) * len(request.offsets), "", reason)
