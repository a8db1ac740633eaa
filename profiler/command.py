"""A command that is launched to be profiled, held just before its first instruction."""

import contextlib
import errno
import os
import signal
import sys
from typing import NoReturn

from pyprof.profiler.engine import Target
from pyprof.profiler.errors import ExitCode, ProfilerError
from pyprof.profiler.proc import start_ticks

HANDLED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # by pyprof, unless they are ignored
IGNORED_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)  # by Python itself


class Command:
    """A child process that waits for `release` before it becomes the command.

    `fileno` is a pidfd: readable when the command has ended.
    """

    def __init__(self, arguments: tuple[str, ...]) -> None:
        self._arguments = arguments
        self._status: int | None = None
        self._is_released = False
        go_read, self._go = os.pipe2(os.O_CLOEXEC)
        self._failure, failure_write = os.pipe2(os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would take the exit status away
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._go)  # or the parent's death would not be seen
            _become(arguments, go_read, failure_write)
        os.close(go_read)
        os.close(failure_write)
        self._pidfd = os.pidfd_open(self.pid)

    @property
    def target(self) -> Target:
        """Return the filter entry that counts the command from its execve on."""
        return Target(self.pid, start_ticks(self.pid), awaits_exec=True)

    def fileno(self) -> int:
        return self._pidfd

    def release(self) -> None:
        """Let the command begin.

        Raises: ProfilerError when it cannot be executed.
        """
        self._is_released = True
        try:
            os.write(self._go, b"!")
        except BrokenPipeError as error:
            message = f"{self._arguments[0]!r} was ended from outside before it began; try again"
            raise ProfilerError(message, ExitCode.USAGE) from error
        number = os.read(self._failure, 16)  # empty: execve closed the other end
        if number:
            self.wait()
            reason = os.strerror(int(number))
            raise ProfilerError(
                f"cannot run {self._arguments[0]!r}: {reason}; give a program that exists and is executable",
                ExitCode.USAGE,
            )

    def end(self) -> bool:
        """Ask a command that outlives the capture to end; return whether it was still running."""
        if self._status is not None:
            return False
        if os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        return True

    def wait(self) -> str:
        """Wait for the end of the command and return it in words: "exited with status 3"."""
        if self._status is None:
            self._status = os.waitpid(self.pid, 0)[1]
        code = os.waitstatus_to_exitcode(self._status)
        if code >= 0:
            return f"exited with status {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"was ended by {name}"

    def close(self) -> None:
        """Let go of the command; one that was not released ends unseen."""
        for descriptor in (self._go, self._failure, self._pidfd):
            os.close(descriptor)
        if not self._is_released and self._status is None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)


def _become(arguments: tuple[str, ...], go: int, failure: int) -> NoReturn:
    """Wait for a byte, then execute the command. Never returns into the parent's code."""
    try:
        for number in HANDLED_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        for number in IGNORED_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        if not os.read(go, 1):
            os._exit(0)  # the parent ended first
        os.execvp(arguments[0], arguments)  # noqa: S606
    except (OSError, ValueError) as error:
        os.write(failure, str(getattr(error, "errno", errno.ENOENT)).encode())
    finally:
        os._exit(127)
