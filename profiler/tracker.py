"""The tracker: keeps the process table up to date while a capture runs, and holds binaries open."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from pyprof.profiler.binaries import Binaries
from pyprof.profiler.proc import boottime_offset_ns, executable_mappings, process_ids, start_ticks
from pyprof.profiler.process_table import EventOrder, ProcessTable, Snapshot
from pyprof.profiler.sideband import MapEvent, Ring

WRITE_DELAY_NS = 1_000_000  # between taking an event's time and its being readable, at most
PIECE_PROCESSES = 32  # read between two drains


class Tracker:
    """Side-band rings of every CPU, the process table they feed, and the files it names.

    Raises: OSError from the constructor when perf events are refused.
    """

    def __init__(self, cpus: Sequence[int]) -> None:
        self.table = ProcessTable()
        self.binaries = Binaries()
        self.applied_ns = 0  # events until then are in the table
        self.snapshotted: set[int] = set()  # processes whose mappings were read from /proc
        self._order = EventOrder()
        self._rings: dict[int, Ring] = {}
        try:
            for cpu in cpus:
                self.add_cpu(cpu)
        except OSError:
            self.close()
            raise

    @property
    def cpus(self) -> set[int]:
        """Return the CPUs whose events are followed."""
        return set(self._rings)

    def add_cpu(self, cpu: int) -> None:
        self._rings[cpu] = Ring(cpu)

    def remove_cpu(self, cpu: int) -> None:
        ring = self._rings.pop(cpu)
        self._order.add(ring.events())
        ring.close()

    def filenos(self) -> list[int]:
        """Return the descriptors that are readable when events wait."""
        return [ring.fd for ring in self._rings.values()]

    def snapshots(self, pids: Sequence[int] | None = None) -> Iterator[Callable[[], None]]:
        """Yield pieces of work that note the mappings processes have now; None is all processes."""
        wanted = process_ids()[::-1] if pids is None else list(pids)  # the newest end first
        for start in range(0, len(wanted), PIECE_PROCESSES):
            yield partial(self.snapshot, wanted[start : start + PIECE_PROCESSES])

    def snapshot(self, pids: Iterable[int]) -> None:
        """Note the mappings that these processes have now."""
        for pid in pids:
            now_ns = boottime_ns()
            files = executable_mappings(pid)
            if files:
                self.snapshotted.add(pid)
                self._order.add([Snapshot(now_ns, pid, start_ticks(pid), tuple(files))])
            for file in files:
                self.binaries.hold(pid, file)

    def drain(self) -> None:
        """Take in the events that wait, and open the files they name."""
        now_ns = boottime_ns()
        for ring in self._rings.values():
            events = ring.events()
            for event in events:
                if isinstance(event, MapEvent):
                    self.binaries.hold(event.pid, event.file)
            self._order.add(events)
        self._apply(now_ns - WRITE_DELAY_NS)

    def finish(self) -> ProcessTable:
        """Take in what is left, close the rings and return the table. Binaries stay open."""
        self.drain()
        self._apply(boottime_ns() + WRITE_DELAY_NS)
        self._close_rings()
        return self.table

    def close(self) -> None:
        self._close_rings()
        self.binaries.close()

    def _apply(self, before_ns: int) -> None:
        self.applied_ns = before_ns
        for event in self._order.release(before_ns):
            self.table.apply(event)

    def _close_rings(self) -> None:
        while self._rings:
            self._rings.popitem()[1].close()


def boottime_ns() -> int:
    """Return the clock that side-band events and the BPF program use."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - boottime_offset_ns()
