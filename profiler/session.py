"""One capture from its first event to its last: the sampler, the wait, the command it may launch."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from pyprof.profiler.capture import Capture
from pyprof.profiler.command import Command
from pyprof.profiler.cpu import CpuSampler
from pyprof.profiler.engine import SamplingEngine, Target
from pyprof.profiler.errors import ExitCode, ProfilerError
from pyprof.profiler.interrupts import Interrupts
from pyprof.profiler.proc import start_ticks
from pyprof.profiler.resolve import Unnamed, unnamed_profile
from pyprof.profiler.settings import Settings
from pyprof.profiler.watch import End, Readable, watch

SETTLE_S, LONG_S = 0.15, 5.0
NICENESS = -10

Progress = Callable[[float, CpuSampler], None]  # seconds since the start
Work = Callable[[], object]


class Outcome(NamedTuple):
    """What a session gives: the profile without names yet, and why it ended."""

    unnamed: Unnamed
    end: End


class CpuSession:
    """Samples on-CPU time as the settings say. Close it when names have been looked up.

    Raises: ProfilerError from the constructor and from `run`.
    """

    def __init__(self, settings: Settings, engine: SamplingEngine) -> None:
        self._closing = ExitStack()
        self._command = Command(settings.command) if settings.command else None
        if self._command:
            self._closing.callback(self._command.close)
        try:
            self._sampler = CpuSampler(settings, engine)
            self._closing.callback(self._sampler.close)
        except BaseException:
            self._closing.close()
            raise

    def __enter__(self) -> "CpuSession":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._command and kind is not None:
            self._command.end()
        self._closing.close()

    def run(
        self, interrupts: Interrupts, *, idle_work: Iterable[Callable[[], object]], on_progress: Progress
    ) -> Outcome:
        """Capture until the duration has passed, the targets have ended or a signal asks for the end.

        `idle_work` is done in the meantime, a piece at a time.
        """
        sampler, targets = self._sampler, sampler_targets(self._sampler.settings, self._command)
        sampler.start(targets)
        if self._command:
            self._command.release()
        with _prompt():
            end = watch(
                sampler.sources,
                duration_s=sampler.settings.duration_s,
                interrupts=interrupts,
                targets=[self._command] if self._command else self._pidfds(),
                idle_work=_chained(
                    sampler.tracker.snapshots(self._snapshot_pids()),
                    _when_settled(idle_work, lambda: sampler.is_settling),
                ),
                each_second=lambda: self._look_around(targets),
                on_progress=lambda seconds: on_progress(seconds, sampler),
            )
        return Outcome(self._finish(), end)

    def _look_around(self, targets: Sequence[Target]) -> bool:
        """Follow CPUs that come and go; return whether all threads that were asked for have ended."""
        self._sampler.follow_cpus()
        threads = targets if self._sampler.settings.targets.tids else ()
        return bool(threads) and all(start_ticks(one.pid) != one.start_ticks for one in threads)

    def _finish(self) -> Unnamed:
        capture: Capture = self._sampler.finish(self._command_notes())
        return unnamed_profile(capture, self._sampler.tracker.binaries)

    def _command_notes(self) -> list[str]:
        if not self._command:
            return []
        name = Path(self._sampler.settings.command[0]).name
        if self._command.end():
            return [f"command {name} was still running: asked to end with SIGTERM"]
        return [f"command {name} {self._command.wait()}"]

    def _snapshot_pids(self) -> Sequence[int] | None:
        if self._command:
            return []
        return self._sampler.settings.targets.pids or None

    def _pidfds(self) -> list[Readable]:
        return [self._closing.enter_context(Pidfd(pid)) for pid in self._sampler.settings.targets.pids]


class Pidfd:
    """A descriptor that becomes readable when a process ends.

    Raises: ProfilerError when there is no such process.
    """

    def __init__(self, pid: int) -> None:
        try:
            self._fd = os.pidfd_open(pid)
        except OSError as error:
            raise _no_such("process", pid) from error

    def __enter__(self) -> "Pidfd":
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._fd)

    def fileno(self) -> int:
        return self._fd


def sampler_targets(settings: Settings, command: Command | None) -> list[Target]:
    """Return the filter entries for the settings and the launched command.

    Raises: ProfilerError, exit code 2, when a process or thread does not exist.
    """
    if command:
        return [command.target]
    targets = []
    for kind, numbers in (("process", settings.targets.pids), ("thread", settings.targets.tids)):
        for number in numbers:
            ticks = start_ticks(number)
            if not ticks:
                raise _no_such(kind, number)
            targets.append(Target(number, ticks))
    return targets


def _no_such(kind: str, number: int) -> ProfilerError:
    option = "ps -e" if kind == "process" else "ps -eL"
    return ProfilerError(f"there is no {kind} {number}; `{option}` lists them", ExitCode.USAGE)


@contextmanager
def _prompt() -> Iterator[None]:
    """Go before others meanwhile, where that is allowed: on a busy machine what is late is lost."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, min(before, NICENESS))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def _chained(first: Iterable[Work], then: Iterable[Work | None]) -> Iterable[Work | None]:
    yield from first
    yield from then


def _when_settled(work: Iterable[Work], is_settling: Callable[[], bool]) -> Iterable[Work | None]:
    """Yield what can wait, but nothing as long as mappings and tables arrive that the walk waits for."""
    began_s = time.monotonic()
    for piece in work:
        while (passed_s := time.monotonic() - began_s) < SETTLE_S or (is_settling() and passed_s < LONG_S):
            yield None
        yield piece
