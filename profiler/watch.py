"""The wait between the start of a capture and its end."""

import os
import select
import stat
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Protocol

LONGEST_WAIT_S = 0.25  # between two drains
SHORTEST_WAIT_S = 0.01  # so that a storm of processes wakes us at most 100 times a second
QUICK_WAIT_S = 0.002  # the first time: what has just arrived is soon to be applied
CALM_S = 0.05
CPU_CHECK_S = 1.0


class End(Enum):
    """Why a capture ended."""

    DURATION = "the duration has passed"
    SIGNAL = "a signal asked for it"
    TARGET = "the command, or every process that was asked for, has ended"
    OUTPUT = "nobody reads standard output any more"


class Readable(Protocol):
    """Something with a descriptor to wait for."""

    def fileno(self) -> int: ...


class Source(Protocol):
    """Something that work arrives from while the capture runs."""

    def filenos(self) -> list[int]:
        """Return the descriptors that are readable when work waits."""
        ...

    def drain(self) -> None:
        """Do the work that waits."""
        ...


def watch(
    sources: Sequence[Source],
    *,
    duration_s: float | None,
    interrupts: Readable,
    targets: Sequence[Readable],
    idle_work: Iterable[Callable[[], object] | None],
    each_second: Callable[[], bool],
    on_progress: Callable[[float], None],
) -> End:
    """Drain the sources, in order, until the capture's end, and return why it ended.

    `targets` are descriptors that become readable when a process ends; the capture ends with the last
    of them. `idle_work` is done one piece at a time between drains (None: nothing for now), `each_second`
    about once a second: it tells whether the targets are gone. `on_progress` is told the seconds that
    have passed.
    """
    began_s = time.monotonic()
    end_s = began_s + duration_s if duration_s is not None else float("inf")
    next_check_s = began_s + CPU_CHECK_S
    work = iter(idle_work)
    living = {target.fileno() for target in targets}
    ready: set[int] = set()
    napped_s = 0.0
    while True:
        now_s = time.monotonic()
        if now_s >= end_s:
            return End.DURATION
        piece = next(work, None)
        # what has just arrived may take effect at the next drain only
        wait_s = 0.0 if piece or ready else max(min(end_s - now_s, LONGEST_WAIT_S), 0)
        ready = _ready([interrupts.fileno(), *living, *_filenos(sources)], wait_s)
        if interrupts.fileno() in ready:
            return End.SIGNAL
        if _stdout_is_closed():
            return End.OUTPUT
        living -= ready
        if targets and not living:
            return End.TARGET
        _drain(sources)
        if piece:
            piece()
        elif ready:
            nap_s = SHORTEST_WAIT_S if now_s - napped_s < CALM_S else QUICK_WAIT_S
            time.sleep(min(nap_s, max(end_s - time.monotonic(), 0)))
            napped_s = now_s
        if now_s >= next_check_s:
            next_check_s = now_s + CPU_CHECK_S
            if each_second():
                return End.TARGET
        on_progress(now_s - began_s)


def _filenos(sources: Sequence[Source]) -> list[int]:
    return [fileno for source in sources for fileno in source.filenos()]


def _drain(sources: Sequence[Source]) -> None:
    for source in sources:
        source.drain()


def _ready(descriptors: Sequence[int], wait_s: float) -> set[int]:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(wait_s * 1000)}


def _stdout_is_closed() -> bool:
    """Return whether standard output is a pipe without a reader."""
    try:
        fd = sys.stdout.fileno()
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            return False
    except (AttributeError, OSError, ValueError):  # closed, or not a file
        return False
    poll = select.poll()
    poll.register(fd, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))
