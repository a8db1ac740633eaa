"""A child process that may do nothing, for reading files that a profiled program could have written.

    parent                              child: uid 65534, no new files, limited memory and time
    Confined(job) ------- fork -------> job.load(), give up all rights, job.serve(socket)
      read(n, deadline) <-- socket ---    answers, in any form: the parent believes none of it

It is forked without exec, so it starts in some milliseconds and inherits what the job holds. Fork only
from a process without threads.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import time
from collections.abc import Collection
from types import TracebackType
from typing import NamedTuple, NoReturn, Protocol

MEMORY_BYTES = 512 << 20  # of a child, beyond what it inherits and the file that it reads
NOT_CONFINED = "{} could not give up its privileges"

_PARENTS_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
_EXIT_SETUP, _EXIT_MEMORY, _EXIT_CRASH = 70, 71, 72


class Job(Protocol):
    """What a child does."""

    def load(self) -> None:
        """Import what is needed, while files of the libraries are within reach."""
        ...

    def serve(self, parent: socket.socket) -> None:
        """Do the work; the process ends when this returns."""
        ...


class Limits(NamedTuple):
    """What a child may take."""

    cpu_s: int
    memory_bytes: int = MEMORY_BYTES  # beyond what it inherits
    mapping_bytes: int = 0  # of files, mapped at a time


class EndedError(Exception):
    """The child will answer no more; the message is the reason for the user."""


class Confined:
    """A child process that does one job. Raises: OSError from the constructor."""

    def __init__(self, name: str, job: Job, keep: Collection[int], limits: Limits) -> None:
        """Start it. `name` is for messages: "symbol worker"; `keep` are descriptors it needs."""
        self.ended = ""  # "" while it works, then why it does not
        self._name = name
        self._buffer = bytearray()
        self.socket, theirs = socket.socketpair()
        parent = os.getpid()
        # No handler of the parent may run in the child before it has reset them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._pid = 0
        try:
            self._pid = os.fork()
            if self._pid == 0:
                _be(job, theirs, {theirs.fileno(), *keep}, limits, parent)
            self._process = os.pidfd_open(self._pid)  # stays this process, even where the kernel reaps it
        except OSError:
            self.socket.close()
            if self._pid:  # its number is still its own: nobody has waited for it
                _end_by_number(self._pid)
            raise
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def __enter__(self) -> "Confined":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Return the process id, 0 when it has been reaped."""
        return self._pid

    @property
    def is_unconfined(self) -> bool:
        """Return whether it ended because no child can be confined here."""
        return self.ended == NOT_CONFINED.format(self._name)

    def close(self) -> None:
        """End the child, whatever it does, and leave neither a zombie nor a descriptor."""
        self.kill()
        os.close(self._process)
        self.socket.close()

    def read(self, count: int, deadline: float) -> bytes:
        """Return the next bytes of its answers, waiting until a time of the monotonic clock.

        Raises: EndedError; the child has ended then, `ended` tells why.
        """
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        while len(self._buffer) < count:
            remaining_s = deadline - time.monotonic()
            if not poll.poll(max(0.0, remaining_s) * 1000):
                self.kill()
                self._end(f"{self._name} ran out of time")
            self._receive()
        data = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        return data

    def arrived(self, limit_bytes: int) -> bytearray:
        """Return what has arrived and was not taken yet, without waiting; the caller deletes what it took.

        No more is taken in once there are `limit_bytes`: a child may write without end.
        Raises: EndedError when the child has ended and nothing is left.
        """
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        while len(self._buffer) < limit_bytes and poll.poll(0):
            try:
                self._receive()
            except EndedError:
                if not self._buffer:
                    raise
                break
        return self._buffer

    def kill(self, *, reason: str = "") -> int:
        """End the child at once and return its wait status, 0 when it was gone already."""
        if reason:
            self.ended = reason
        return self._reaped(kill=True)

    def _receive(self) -> None:
        try:
            chunk = self.socket.recv(1 << 20)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            self._end(self._ending(self._reaped(kill=False)))
        self._buffer += chunk

    def _end(self, reason: str) -> NoReturn:
        self.ended = self.ended or reason
        raise EndedError(self.ended)

    def _ending(self, status: int) -> str:
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            ran_out = f"{self._name} ran out of time"
            return ran_out if number == signal.SIGXCPU else f"{self._name} was ended by signal {number}"
        reasons = {_EXIT_SETUP: NOT_CONFINED, _EXIT_MEMORY: "{} ran out of memory"}
        return reasons.get(os.WEXITSTATUS(status), "{} crashed").format(self._name)

    def _reaped(self, *, kill: bool) -> int:
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


def _end_by_number(pid: int) -> None:
    # where SIGCHLD is ignored the kernel may have reaped it
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _be(job: Job, parent_socket: socket.socket, keep: set[int], limits: Limits, parent: int) -> NoReturn:
    """Be the child: do the job and exit. Nothing of the caller's may run here any more."""
    status = _EXIT_SETUP
    try:
        gc.freeze()  # objects of the parent are never collected: their ends would close its things
        _reset_signals()
        # Before the change of user: afterwards the files of the libraries may be out of reach.
        from pyprof.symbolize import sandbox  # noqa: PLC0415 (imports ctypes)

        job.load()
        sandbox.confine(
            keep,
            memory_bytes=limits.memory_bytes,
            mapping_bytes=limits.mapping_bytes,
            cpu_s=limits.cpu_s,
            parent=parent,
        )
        status = _EXIT_CRASH
        job.serve(parent_socket)
        status = 0
    except MemoryError:
        status = _EXIT_MEMORY
    finally:
        os._exit(status)


def _reset_signals() -> None:
    """Let Ctrl-C be the parent's: it ends the child when that is wanted."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN if number in _PARENTS_SIGNALS else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
