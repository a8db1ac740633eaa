"""Symbols of files that a profiled program could have written, read in a process that may do nothing.

    parent                                 worker: uid 65534, no new files, limited memory and time
    symbolize(requests) -- fork ---------> for each request: map the file, find symbols, write a report
      checks each report <---- pipe -----                    then demangle, write the readable names
      kills a worker that is late, and starts another for the requests that are left

One worker serves all modules. It is forked without exec, so it starts in some milliseconds and inherits
the descriptors of the files; it imports numpy itself, so the parent needs none. Fork only from a process
without threads. A file that breaks the worker costs the symbols of that module, nothing else.
"""

import gc
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import NamedTuple, NoReturn

MEMORY_BYTES = 512 << 20  # of a worker, beyond what it inherits and the file that it reads

_EXIT_SETUP, _EXIT_MEMORY, _EXIT_CRASH = 70, 71, 72
_OUT_OF_TIME = "symbol worker ran out of time"
_OUT_OF_MEMORY = "symbol worker ran out of memory"
_NOT_CONFINED = "symbol worker could not give up its privileges"


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


class _WorkerEndedError(Exception):
    """The worker will answer no more; the message is the reason for the user."""


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
            started = _Worker(pending, memory_bytes, cpu_s=int(remaining_s) + 1)
        except OSError as error:  # no process or descriptor left
            yield from (
                _failed(request, f"symbol worker cannot start: {error.strerror}") for request in pending
            )
            return
        with started as worker:
            while pending and not worker.ended:
                limit = min(deadline, time.monotonic() + module_timeout_s)
                yield worker.answer(pending.pop(0), limit)
            if worker.ended == _NOT_CONFINED:  # so would be the next
                yield from (_failed(request, _NOT_CONFINED) for request in pending)
                return


class _Worker:
    """A child process that answers requests in their order."""

    def __init__(self, requests: list[Request], memory_bytes: int, cpu_s: int) -> None:
        self.ended = ""  # "" while it works, then why it does not
        self._buffer = bytearray()
        self._pipe, write_end = os.pipe()
        parent = os.getpid()
        # No handler of the parent may run in the child before it has reset them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._pid = os.fork()
            if self._pid == 0:
                _serve(requests, write_end, parent, memory_bytes, cpu_s)
            self._process = os.pidfd_open(self._pid)  # stays this process, even where the kernel reaps it
        except OSError:
            os.close(self._pipe)  # a child that is there already dies of it
            raise
        finally:
            os.close(write_end)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the child, whatever it does, and leave neither a zombie nor a descriptor."""
        self._reaped()
        os.close(self._process)
        os.close(self._pipe)

    def answer(self, request: Request, deadline: float) -> Answer:
        """Return the next answer, which must be the one to `request`."""
        from pyprof.symbolize import wire  # noqa: PLC0415 (imports json)

        report: wire.Report | None = None
        try:
            report = wire.parsed_report(self._frame(request, deadline), len(request.offsets))
            symbols = report.symbols
            if report.more:
                symbols = wire.parsed_readable(self._frame(request, deadline), len(symbols))
        except _WorkerEndedError as error:
            self.ended = str(error)
        except ValueError:
            self.ended = "symbol worker answered nonsense"
            self._reaped()
        if report is None:
            return _failed(request, self.ended)
        names = tuple(symbols[pick] if pick >= 0 else "" for pick in report.picks)
        failure = f"names left mangled: {self.ended}" if self.ended else report.failure
        return Answer(request.binary.key, names or ("",) * len(request.offsets), report.build_id, failure)

    def _frame(self, request: Request, deadline: float) -> bytes:
        """Return the bytes of the next frame. Raises: _WorkerEndedError."""
        from pyprof.symbolize import wire  # noqa: PLC0415 (imports json)

        (length,) = wire.HEADER.unpack(self._bytes(wire.HEADER.size, deadline))
        if length > wire.frame_limit(len(request.offsets)):
            raise ValueError(length)
        return self._bytes(length, deadline)

    def _bytes(self, count: int, deadline: float) -> bytes:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        while len(self._buffer) < count:
            remaining_s = deadline - time.monotonic()
            if not poll.poll(max(0.0, remaining_s) * 1000):
                self._reaped()
                raise _WorkerEndedError(_OUT_OF_TIME)
            chunk = os.read(self._pipe, 1 << 20)
            if not chunk:
                raise _WorkerEndedError(_ending(self._reaped(kill=False)))
            self._buffer += chunk
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _reaped(self, *, kill: bool = True) -> int:
        """Return the wait status of the child, 0 when it is gone already."""
        if self._pid == 0:
            return 0
        try:
            if kill:
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
            _, status = os.waitpid(self._pid, 0)
        except (ProcessLookupError, ChildProcessError):  # SIGCHLD is ignored: the kernel has reaped
            status = 0
        self._pid = 0
        return status


def _failed(request: Request, reason: str) -> Answer:
    return Answer(request.binary.key, ("",) * len(request.offsets), "", reason)


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return _OUT_OF_TIME if number == signal.SIGXCPU else f"symbol worker was ended by signal {number}"
    reasons = {_EXIT_SETUP: _NOT_CONFINED, _EXIT_MEMORY: _OUT_OF_MEMORY}
    return reasons.get(os.WEXITSTATUS(status), "symbol worker crashed")


def _serve(requests: list[Request], write_end: int, parent: int, memory_bytes: int, cpu_s: int) -> NoReturn:
    """Be the worker: answer all requests and exit. Nothing of the caller's may run here any more."""
    status = _EXIT_SETUP
    try:
        gc.freeze()  # objects of the parent are never collected: their ends would close its things
        _reset_signals()
        # Before the change of user: afterwards the files of the libraries may be out of reach.
        from pyprof.symbolize import parser, sandbox  # noqa: PLC0415 (imports numpy)

        parser.load()
        keep = {write_end, *(request.binary.fd for request in requests if request.binary.fd >= 0)}
        sandbox.confine(
            keep, memory_bytes=memory_bytes, mapping_bytes=parser.FILE_LIMIT, cpu_s=cpu_s, parent=parent
        )
        status = _EXIT_CRASH
        for request in requests:
            for frame in parser.frames(request):
                _write(write_end, frame)
        status = 0
    except MemoryError:
        status = _EXIT_MEMORY
    finally:
        os._exit(status)


def _reset_signals() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
