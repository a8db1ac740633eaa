"""The process table: which file was mapped where, in which process, when.

Processes are kept after they end, so that their samples can still be named. A process is known by
(pid, start time); its program images by the time of their execve. Fed by side-band events and by
snapshots of /proc, in order of time.
"""

import bisect
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from pyprof.profiler.proc import NS_PER_TICK, FileMapping
from pyprof.profiler.sideband import (
    ExecEvent,
    ExitEvent,
    ForkEvent,
    KernelSymbolEvent,
    LostEvent,
    MapEvent,
    ProcessEvent,
)

MAX_ENDED = 50_000  # processes kept after their end, the newest
FORK_SLACK_NS = 1_000_000_000  # a fork is reported after the start time is set; how late at most


class Snapshot(NamedTuple):
    """What /proc said of a process that was there before its first event."""

    time_ns: int  # CLOCK_BOOTTIME, before /proc was read
    pid: int
    start_ticks: int  # 1/100 s since boot
    files: tuple[FileMapping, ...]


class Image:
    """The executable mappings of one program image, by address. A newer mapping replaces an older."""

    def __init__(self, since_ns: int, files: Iterable[FileMapping] = ()) -> None:
        self.since_ns = since_ns
        self._files = list(files)  # ordered by start, never overlapping
        self._starts = [file.mapping.start for file in self._files]

    def insert(self, file: FileMapping) -> None:
        first = bisect.bisect_right(self._starts, file.mapping.start)
        if first and self._files[first - 1].mapping.limit > file.mapping.start:
            first -= 1
        last = bisect.bisect_left(self._starts, file.mapping.limit)
        self._files[first:last] = [file]
        self._starts[first:last] = [file.mapping.start]

    def find(self, address: int) -> FileMapping | None:
        """Return the mapping that holds an absolute address."""
        index = bisect.bisect_right(self._starts, address) - 1
        if index >= 0 and address < self._files[index].mapping.limit:
            return self._files[index]
        return None

    def copy(self, since_ns: int) -> "Image":
        return Image(since_ns, self._files)


class Process:
    """A process and its program images, oldest first."""

    def __init__(self, earliest_ns: int, latest_ns: int, image: Image) -> None:
        self._earliest_ns = earliest_ns  # the start time lies between these two, both included
        self._latest_ns = latest_ns
        self.images = [image]

    def started_at(self, start_ns: int) -> bool:
        return self._earliest_ns <= start_ns <= self._latest_ns

    def image_at(self, exec_ns: int | None) -> Image:
        """Return the image that an execve at `exec_ns` made; the first one for None."""
        if exec_ns is None:
            return self.images[0]
        return next((image for image in reversed(self.images) if image.since_ns <= exec_ns), self.images[0])


class ProcessTable:
    """Processes by pid. Single-threaded; `apply` wants events in order of time."""

    def __init__(self, *, max_ended: int = MAX_ENDED) -> None:
        self._generations: dict[int, list[Process]] = {}  # pid: oldest first
        self._ended: deque[tuple[int, Process]] = deque()
        self._max_ended = max_ended
        self.lost_events = 0  # side-band records that the ring had no room for
        self.dropped = 0  # ended processes that were forgotten to bound memory
        self.kernel_symbols_changed = False

    def apply(self, event: ProcessEvent | Snapshot) -> None:
        match event:
            case MapEvent(_, pid, file):
                self._current(pid, event.time_ns).images[-1].insert(file)
            case ForkEvent(time_ns, pid, parent_pid):
                parent = self._generations.get(parent_pid)
                image = parent[-1].images[-1].copy(time_ns) if parent else Image(time_ns)
                process = Process(time_ns - FORK_SLACK_NS, time_ns, image)
                self._generations.setdefault(pid, []).append(process)
            case ExecEvent(time_ns, pid):
                self._current(pid, time_ns).images.append(Image(time_ns))
            case ExitEvent(_, pid):
                self._end(pid)
            case Snapshot():
                self._apply_snapshot(event)
            case LostEvent(_, records):
                self.lost_events += records
            case KernelSymbolEvent():
                self.kernel_symbols_changed = True

    def find(self, pid: int, start_ns: int, exec_ns: int | None) -> Image | None:
        """Return the image that a sample was taken in.

        `start_ns` is the process's start and `exec_ns` the time of the execve that made the image, or
        None when that was before the capture; both CLOCK_BOOTTIME.
        """
        generations = self._generations.get(pid, [])
        matching = [process for process in generations if process.started_at(start_ns)]
        return matching[0].image_at(exec_ns) if matching else None

    def _current(self, pid: int, time_ns: int) -> Process:
        generations = self._generations.setdefault(pid, [])
        if not generations:  # it began before the capture and was not in a snapshot yet
            generations.append(Process(0, time_ns, Image(0)))
        return generations[-1]

    def _apply_snapshot(self, snapshot: Snapshot) -> None:
        generations = self._generations.setdefault(snapshot.pid, [])
        earliest_ns = snapshot.start_ticks * NS_PER_TICK
        if not generations:
            generations.append(Process(earliest_ns, earliest_ns + NS_PER_TICK, Image(0)))
        image = generations[-1].images[-1]
        for file in snapshot.files:
            if image.find(file.mapping.start) is None:  # what an event told has the build id
                image.insert(file)

    def _end(self, pid: int) -> None:
        generations = self._generations.get(pid)
        if not generations:
            return
        self._ended.append((pid, generations[-1]))
        while len(self._ended) > self._max_ended:
            old_pid, process = self._ended.popleft()
            self._forget(old_pid, process)

    def _forget(self, pid: int, process: Process) -> None:
        generations = self._generations.get(pid, [])
        if process in generations:
            generations.remove(process)
            self.dropped += 1
        if not generations:
            self._generations.pop(pid, None)


class EventOrder:
    """Puts the events of several CPUs into one order of time.

    Each CPU's events are in order already. An event is released once a later drain of all CPUs has
    begun, when nothing older can still arrive.
    """

    def __init__(self) -> None:
        self._waiting: list[ProcessEvent | Snapshot] = []

    def add(self, events: Iterable[ProcessEvent | Snapshot]) -> None:
        self._waiting.extend(events)

    def release(self, before_ns: int) -> list[ProcessEvent | Snapshot]:
        """Return the events older than `before_ns`, in order of time."""
        self._waiting.sort(key=lambda event: event.time_ns)
        split = bisect.bisect_left(self._waiting, before_ns, key=lambda event: event.time_ns)
        released, self._waiting = self._waiting[:split], self._waiting[split:]
        return released
