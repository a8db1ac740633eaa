"""Signals as a request to end: the first ends the capture, the second skips symbols, the third aborts.

The result is written after each but the last.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME_SIGNAL_S = 0.05  # a terminal and sudo may both pass on the same key


class SymbolsSkipped(Exception):  # noqa: N818 - a request, not an error
    """The user does not want to wait for symbols."""


class Aborted(BaseException):
    """The user does not want to wait at all. Not an Exception: nothing but main() may catch it."""


class Interrupts:
    """Collects SIGINT, SIGTERM and SIGHUP while it is entered. Signals ignored before stay ignored."""

    def __init__(self) -> None:
        self.received: list[int] = []  # signal numbers, oldest first
        self._last_s = -1.0
        self._skipping = False
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interrupts":
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        os.close(self._read_fd)
        os.close(self._write_fd)

    def fileno(self) -> int:
        """Return a descriptor that is readable once a signal has arrived."""
        return self._read_fd

    @contextmanager
    def skipping_symbols(self) -> Iterator[None]:
        """Raise SymbolsSkipped out of the block when a signal arrives in it, or a second one has."""
        if len(self.received) > 1:
            raise SymbolsSkipped
        self._skipping = True
        try:
            yield
        finally:
            self._skipping = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        is_echo = bool(self.received) and now_s - self._last_s < SAME_SIGNAL_S
        self._last_s = now_s
        if is_echo and number == self.received[-1]:
            return
        self.received.append(number)
        os.write(self._write_fd, b"!")
        if len(self.received) > 2:
            raise Aborted
        if self._skipping:
            raise SymbolsSkipped
