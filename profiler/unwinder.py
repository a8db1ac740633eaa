"""The unwinder: has what the walk in the kernel needs there in time, beside the capture.

process table -> mapping feed -> kernel -> "this executable has no table yet" -> table worker -> kernel
                                        -> copies of samples that could not wait
"""

import contextlib
import os
import select
import time
from collections import deque
from collections.abc import Collection, Sequence
from pathlib import PurePath

from pyprof.profiler.capture import Sample
from pyprof.profiler.copies import CopiedSample, Copies
from pyprof.profiler.executables import Executables
from pyprof.profiler.mapping_feed import MappingFeed
from pyprof.profiler.proc import FileMapping
from pyprof.profiler.table_cache import TableCache
from pyprof.profiler.tracker import Tracker, boottime_ns
from pyprof.profiler.unwind_maps import UnwindMaps
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.table_worker import TableAnswer, TableWorker
from pyprof.symbolize.text import printable
from pyprof.symbolize.vdso import vdso_image

MAX_FAILURES_TOLD = 5
# Files of these kinds have no table and miss none.
EXPECTED = frozenset({"no call frame information", "not an ELF file", "not x86-64"})
SETTLED_S = 0.1  # without a sample that was handed over
LOOK_AGAIN_S = 1.0  # before the mappings of one process are read once more


class Unwinder:
    """Feeds mappings and tables to the kernel's walk. A Source for `watch`."""

    def __init__(
        self, maps: UnwindMaps, copies: Copies, tracker: Tracker, worker: TableWorker, cache: TableCache
    ) -> None:
        self.executables = Executables(tracker.binaries)
        self.copies = copies
        self.failures: dict[int, str] = {}  # executable: why it has no table
        self.built = 0
        self.from_cache = 0
        self._maps = maps
        self._tracker = tracker
        self._cache = cache
        self._feed = MappingFeed(maps, tracker.table, self.executables)
        self._worker = worker
        self._asked: set[int] = set()
        self._looked_s: dict[int, float] = {}  # process: when its mappings were read because of a copy
        self._whole: Collection[int] = ()
        self._vdso = -1
        self._handed_over_s = float("-inf")
        self._unsettled: deque[tuple[int, list[CopiedSample]]] = deque()  # by when they were there
        self._started_ns = boottime_ns()

    def start(self, whole: Collection[int], soon: Sequence[FileMapping], wait_s: float) -> None:
        """Begin; all tables of the processes `whole` are wanted, of others what is sampled.

        The tables of the files in `soon` are waited for, so long at most.
        """
        self._whole = whole
        for file in soon:
            self._tracker.binaries.hold(os.getpid(), file)
        numbers = [self.executables.number(file) for file in soon]
        self._ask([number for number in numbers if number is not None])
        deadline_s = time.monotonic() + wait_s
        while self._worker.is_busy and time.monotonic() < deadline_s:
            self._wait_for_answers()
            self._take_answers()

    @property
    def is_settling(self) -> bool:
        """Return whether tables are being made, or a sample came before its own a moment ago."""
        return self._worker.is_busy or time.monotonic() - self._handed_over_s < SETTLED_S

    def filenos(self) -> list[int]:
        """Return the descriptors that are readable when something waits."""
        return [self.copies.fileno()] + ([self._worker.fileno()] if self._worker.fileno() >= 0 else [])

    def drain(self) -> None:
        """Do what has become due; never waits."""
        self._settle_copies()
        for pid in self._feed.publish():
            if pid in self._whole:
                self._ask(self._feed.executables_of(pid))
        self._ask(self._maps.wanted_exes(len(self.executables)))
        self._take_answers()

    def finish(self) -> None:
        """Take what is left in the ring, and stop."""
        self._settle_copies()
        self.copies.samples += [copy for _, copies in self._unsettled for copy in copies]
        self._unsettled.clear()
        self._worker.close()

    def notes(self) -> list[str]:
        """Return what could not be done, one sentence each."""
        notes = []
        if self._feed.refused:
            notes.append(
                f"the mappings of {self._feed.refused} processes found no room: their stacks are cut"
            )
        told = [(number, why) for number, why in sorted(self.failures.items()) if why not in EXPECTED]
        for number, why in told[:MAX_FAILURES_TOLD]:
            name = printable(PurePath(self.executables[number].file.mapping.path).name)
            notes.append(f"no unwind table of {name}: {why}")
        if len(told) > MAX_FAILURES_TOLD:
            notes.append(f"no unwind table of {len(told) - MAX_FAILURES_TOLD} more files")
        return notes

    def close(self) -> None:
        self._worker.close()
        self._maps.close()
        if self._vdso >= 0:
            os.close(self._vdso)
            self._vdso = -1

    def _settle_copies(self) -> None:
        """Keep copies with what was mapped when they were taken, as soon as that is known."""
        fresh = self.copies.drain()
        for pid in {copy.sample.pid for copy in fresh}:
            self._look_at(pid)
        if fresh:  # the time is that of the last one, and of what was looked at
            self._handed_over_s = time.monotonic()
            self._unsettled.append((boottime_ns(), fresh))
        while self._unsettled and self._unsettled[0][0] < self._tracker.applied_ns:
            _, copies = self._unsettled.popleft()
            self.copies.samples += [copy._replace(files=self._files_of(copy.sample)) for copy in copies]

    def _files_of(self, sample: Sample) -> tuple[FileMapping, ...] | None:
        image = self._tracker.table.find(sample.pid, sample.start_ns, sample.image_ns or self._started_ns)
        return image.frozen_files() if image else None

    def _look_at(self, pid: int) -> None:
        """Read the mappings of a process that the kernel did not find its way in."""
        now_s = time.monotonic()
        if pid and now_s - self._looked_s.get(pid, float("-inf")) >= LOOK_AGAIN_S:
            self._looked_s[pid] = now_s
            self._tracker.snapshot([pid])

    def _ask(self, numbers: Collection[int]) -> None:
        for number in numbers:
            if number in self._asked:
                continue
            self._asked.add(number)
            descriptor = self._descriptor(number)
            if descriptor < 0:
                self._refuse(number, "the file could not be opened")
            else:
                self._worker.ask(number, descriptor)

    def _descriptor(self, number: int) -> int:
        executable = self.executables[number]
        if not executable.is_vdso:
            return executable.descriptor
        if self._vdso < 0:
            with contextlib.suppress(SymbolizeError):
                image = vdso_image()
                self._vdso = os.memfd_create("vdso", os.MFD_CLOEXEC)
                os.write(self._vdso, image)
        return self._vdso

    def _wait_for_answers(self) -> None:
        """Wait a moment until the worker answers; not at all when there is none, which is an answer too."""
        poll = select.poll()
        if self._worker.fileno() >= 0:
            poll.register(self._worker.fileno(), select.POLLIN)
            poll.poll(10)

    def _take_answers(self) -> None:
        for answer in self._worker.answers():
            self._take(answer)

    def _take(self, answer: TableAnswer) -> None:
        if answer.failure:
            self._refuse(answer.key, answer.failure, keeps_pointers=answer.keeps_pointers)
            return
        build_id = self.executables[answer.key].file.mapping.build_id
        if build_id and build_id != answer.build_id:
            self._refuse(answer.key, "the file is another than the one that was mapped")
            return
        self.executables.tell_build_id(answer.key, answer.build_id)
        keeps_pointers = answer.keeps_pointers
        if not self._maps.load_table(answer.key, answer.arrays, keeps_pointers=keeps_pointers):
            self._refuse(answer.key, "no room for its table", keeps_pointers=keeps_pointers)
        if answer.is_cached:
            self.from_cache += 1
        else:
            self.built += 1
            self._cache.keep(answer.name, answer.serialised)

    def _refuse(self, number: int, reason: str, *, keeps_pointers: bool = False) -> None:
        self.failures[number] = reason
        self._maps.refuse_table(number, keeps_pointers=keeps_pointers)
