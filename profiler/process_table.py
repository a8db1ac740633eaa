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
    LostEvent,
    MapEvent,
    ProcessEvent,
)

OUTSIDE_PIDS = frozenset({0, 0xFFFFFFFF})  # how perf names a process outside our pid namespace
MAX_ENDED = 50_000  # processes kept after their end, the newest
FORK_SLACK_NS = 1_000_000_000  # a fork is reported after the start time is set; how late at most


class Snapshot(NamedTuple):
    """What /proc said of a process that was there before its first event."""

    time_ns: int  # CLOCK_BOOTTIME, before /proc was read
    pid: int
    start_ticks: int  # 1/100 s since boot
    files: tuple[FileMapping, ...]


class Image:
    """The executable mappings of one program image, by address. A newer mapping replaces an older.

    A copy shares the mappings until one of the two changes.
    """

    def __init__(self, since_ns: int, base: "Image | None" = None) -> None:
        self.since_ns = since_ns
        self._base = base  # the parent's image, where a fork came before its mappings were known
        self._files: list[FileMapping] = []  # ordered by start, never overlapping
        self._frozen: tuple[FileMapping, ...] | None = None  # the same, until the next change
        self._starts: list[int] = []
        self._is_shared = False

    def insert(self, file: FileMapping) -> None:
        """Map a file; of older mappings only what the new one does not cover stays."""
        new = file.mapping
        first = bisect.bisect_right(self._starts, new.start)
        if first and self._files[first - 1] == file:
            return
        self._own()
        self._frozen = None
        if first and self._files[first - 1].mapping.limit > new.start:
            first -= 1
        last = bisect.bisect_left(self._starts, new.limit)
        covered = self._files[first:last]
        left = [_part(old, old.mapping.start, new.start) for old in covered if old.mapping.start < new.start]
        right = [_part(old, new.limit, old.mapping.limit) for old in covered if old.mapping.limit > new.limit]
        self._files[first:last] = [*left, file, *right]
        self._starts[first:last] = [part.mapping.start for part in (*left, file, *right)]

    def find(self, address: int) -> FileMapping | None:
        """Return the mapping that holds an absolute address."""
        image: Image | None = self
        while image is not None:
            index = bisect.bisect_right(image._starts, address) - 1
            if index >= 0 and address < image._files[index].mapping.limit:
                return image._files[index]
            image = image._base
        return None

    def files(self) -> list[FileMapping]:
        """Return all mappings, ordered by start."""
        if self._base is None:
            return self._files
        whole = Image(0)
        for file in (*self._base.files(), *self._files):
            whole.insert(file)
        return whole._files

    def frozen_files(self) -> tuple[FileMapping, ...]:
        """Return all mappings as they are now, ordered by start; the same object until one changes."""
        if self._frozen is None or self._base is not None:
            self._frozen = tuple(self.files())
        return self._frozen

    def stand_alone(self) -> None:
        """Forget the parent's image: all mappings are known now."""
        if self._base is not None:
            self._base = self._frozen = None

    def copy(self, since_ns: int) -> "Image":
        """Return the image of a child that is forked now."""
        if not self._files:
            return Image(since_ns, base=self._base or self)  # a chain of forks makes no chain of bases
        child = Image(since_ns, base=self._base)
        child._files, child._starts = self._files, self._starts
        child._is_shared = self._is_shared = True
        return child

    def _own(self) -> None:
        if self._is_shared:
            self._files, self._starts = list(self._files), list(self._starts)
            self._is_shared = False


def _part(file: FileMapping, start: int, limit: int) -> FileMapping:
    mapping = file.mapping
    offset = mapping.file_offset + start - mapping.start
    return file._replace(mapping=mapping._replace(start=start, limit=limit, file_offset=offset))


class Process:
    """A process and its program images, oldest first."""

    def __init__(self, earliest_ns: int, latest_ns: int, image: Image) -> None:
        self._earliest_ns = earliest_ns  # the start time lies between these two, both included
        self._latest_ns = latest_ns
        self.has_ended = False
        self.images = [image]

    @property
    def start_range_ns(self) -> tuple[int, int]:
        """Return the earliest and the latest time at which it may have started."""
        return self._earliest_ns, self._latest_ns

    @property
    def exec_ns(self) -> int:
        """Return the time of its last execve, 0 while it has its first image."""
        return self.images[-1].since_ns if len(self.images) > 1 else 0

    def started_at(self, start_ns: int) -> bool:
        return self._earliest_ns <= start_ns <= self._latest_ns

    def started_in_tick(self, ticks: int) -> bool:
        """Return whether it may have started in that 1/100 s since boot."""
        return self._earliest_ns < (ticks + 1) * NS_PER_TICK and ticks * NS_PER_TICK <= self._latest_ns

    def image_at(self, time_ns: int) -> Image:
        """Return the image of the last execve until then; the first one when there was none."""
        return next((image for image in reversed(self.images) if image.since_ns <= time_ns), self.images[0])


class ProcessTable:
    """Processes by pid. Single-threaded; `apply` wants events in order of time."""

    def __init__(self, *, max_ended: int = MAX_ENDED) -> None:
        self._generations: dict[int, list[Process]] = {}  # pid: oldest first
        self._ended: deque[tuple[int, Process]] = deque()
        self._max_ended = max_ended
        self.changed: set[int] = set()  # processes that changed since the caller last emptied it
        self.lost_events = 0  # side-band records that the ring had no room for
        self.dropped = 0  # ended processes that were forgotten to bound memory

    def apply(self, event: ProcessEvent | Snapshot) -> None:
        pid = getattr(event, "pid", None)
        if pid in OUTSIDE_PIDS:
            return
        if pid is not None:
            self.changed.add(pid)
        match event:
            case MapEvent(_, pid, file):
                self._current(pid, event.time_ns).images[-1].insert(file)
            case ForkEvent(time_ns, pid, parent_pid):
                self._fork(time_ns, pid, parent_pid)
            case ExecEvent(time_ns, pid):
                self._current(pid, time_ns).images.append(Image(time_ns))
            case ExitEvent(_, pid):
                self._end(pid)
            case Snapshot():
                self._apply_snapshot(event)
            case LostEvent(_, records):
                self.lost_events += records

    def living(self, pid: int) -> Process | None:
        """Return the process that has this number now, None when it is not known or has ended."""
        generations = self._generations.get(pid)
        return generations[-1] if generations and not generations[-1].has_ended else None

    def find(self, pid: int, start_ns: int, exec_ns: int) -> Image | None:
        """Return the image that a sample was taken in.

        `start_ns` is the process's start and `exec_ns` a time not before the execve that made the image
        and before the next one; both CLOCK_BOOTTIME.
        """
        generations = self._generations.get(pid, [])
        matching = [process for process in generations if process.started_at(start_ns)]
        return matching[0].image_at(exec_ns) if matching else None

    def _fork(self, time_ns: int, pid: int, parent_pid: int) -> None:
        is_outside = parent_pid in OUTSIDE_PIDS
        image = Image(time_ns) if is_outside else self._current(parent_pid, time_ns).images[-1].copy(time_ns)
        process = Process(time_ns - FORK_SLACK_NS, time_ns, image)
        self._generations.setdefault(pid, []).append(process)

    def _current(self, pid: int, time_ns: int) -> Process:
        generations = self._generations.setdefault(pid, [])
        if not generations:  # it began before the capture and was not in a snapshot yet
            generations.append(Process(0, time_ns, Image(0)))
        return generations[-1]

    def _apply_snapshot(self, snapshot: Snapshot) -> None:
        generations = self._generations.setdefault(snapshot.pid, [])
        earliest_ns = snapshot.start_ticks * NS_PER_TICK
        if not generations or not generations[-1].started_in_tick(snapshot.start_ticks):
            generations.append(Process(earliest_ns, earliest_ns + NS_PER_TICK, Image(0)))
        generations[-1].has_ended = False  # the exit may have been its main thread's, while others run on
        image = generations[-1].images[-1]
        image.stand_alone()
        for file in snapshot.files:
            if image.find(file.mapping.start) is None:  # what an event told has the build id
                image.insert(file)

    def _end(self, pid: int) -> None:
        generations = self._generations.get(pid)
        if not generations:
            return
        generations[-1].has_ended = True
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
