"""User stacks of one capture: which way they are walked, and all that this way needs.

Along unwind tables the walk needs mappings and tables in time (unwinder.py); samples that came too early are
walked here when the capture has ended, and those to verify once more (second_walk.py, verify.py). Along
frame pointers it needs nothing.
"""

import contextlib
import errno
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pyprof.profiler.capture import Sample
from pyprof.profiler.command_files import command_files
from pyprof.profiler.engine import Counts, SamplingEngine, Target
from pyprof.profiler.executables import Executable
from pyprof.profiler.libbpf import LibbpfError
from pyprof.profiler.perf_event import PerfEventAttr, with_user_copies
from pyprof.profiler.process_table import Image
from pyprof.profiler.settings import Settings, Unwind
from pyprof.profiler.table_cache import TableCache, cache_folder
from pyprof.profiler.tracker import Tracker
from pyprof.profiler.unwinder import Unwinder
from pyprof.profiler.watch import Source
from pyprof.symbolize.table_worker import TableWorker

if TYPE_CHECKING:
    from pyprof.profiler.copies import CopiedSample
    from pyprof.profiler.second_walk import WalkedStack
    from pyprof.profiler.verify import PerfCopies

TABLES_WAIT_S = 1.0  # a command is held back until the tables of its files are there, so long at most


class UserStacks:
    """Finds callers in user code, by the way that the settings ask for and the kernel allows."""

    def __init__(self, settings: Settings, tracker: Tracker) -> None:
        """Start what takes a while beside the rest of the start."""
        self.notes: list[str] = []
        self.verified = self.agreed = 0
        self._tracker = tracker
        self._unwinder: Unwinder | None = None
        self._perf_copies: PerfCopies | None = None
        self._cache = TableCache(cache_folder())
        self._worker = TableWorker(self._cache.open)
        self._own_pid = 0  # of the worker that the engine knows
        if _wants_tables(settings):
            with contextlib.suppress(OSError):  # asking it tells
                self._worker.start()

    @property
    def executables(self) -> Sequence[Executable]:
        """Return what the frame words of stacks refer to."""
        return self._unwinder.executables if self._unwinder else ()

    @property
    def sources(self) -> list[Source]:
        """Return where work arrives from while the capture runs."""
        return [source for source in (self._unwinder, self._perf_copies) if source is not None]

    @property
    def is_settling(self) -> bool:
        """Return whether samples still wait for mappings or tables."""
        return self._unwinder is not None and self._unwinder.is_settling

    def load(self, engine: SamplingEngine, settings: Settings, cpus: int) -> Settings:
        """Load the program, with the walk along tables where that is wanted and possible.

        Return the settings with the way that was found. Raises: LibbpfError.
        """
        if _wants_tables(settings):
            tables = replace(settings, unwind=Unwind.TABLES)
            try:
                self._load_tables(engine, tables, cpus)
            except LibbpfError as error:
                if settings.unwind is Unwind.TABLES or error.errno in {errno.EPERM, errno.EACCES}:
                    raise
                engine.close()
                self.notes.append(f"user stacks are walked along frame pointers: {error}")
            else:
                return tables
        pointers = replace(settings, unwind=Unwind.FRAME_POINTERS)
        engine.load(pointers, self_pid=os.getpid(), cpus=cpus)
        return pointers

    def begin(self, targets: Sequence[Target], command: tuple[str, ...]) -> None:
        """Get ready what the targets, or a command that is not running yet, will need."""
        if self._unwinder:
            soon = command_files(command) if command else []
            self._unwinder.start({target.pid for target in targets}, soon, TABLES_WAIT_S)

    def prepare_event(self, attr: PerfEventAttr) -> None:
        """Let the sampling event carry what a verification needs."""
        if self._perf_copies:
            from pyprof.profiler.verify import REGISTERS_MASK, STACK_BYTES  # noqa: PLC0415 - rarely asked for

            with_user_copies(attr, registers=REGISTERS_MASK, stack_bytes=STACK_BYTES)

    def add_cpu(self, cpu: int, event_fd: int) -> None:
        """Begin with the sampling event of a CPU. Raises: OSError."""
        if self._perf_copies:
            self._perf_copies.add_cpu(cpu, event_fd)

    def remove_cpu(self, cpu: int) -> None:
        """End with a CPU, before its event is closed."""
        if self._perf_copies:
            self._perf_copies.remove_cpu(cpu)

    def stop(self) -> None:
        """Take in what is left; no more samples come."""
        if self._unwinder:
            self._unwinder.finish()
            self.notes += self._unwinder.notes()

    def complete(
        self, counts: Counts, image_of: Callable[[Sample], Image | None], settings: Settings
    ) -> Counts:
        """Return the counts with the samples that were handed over, their stacks walked here."""
        if not self._unwinder:
            return counts
        from pyprof.profiler.second_walk import (  # noqa: PLC0415 - not at the start
            leaf_stacks,
            walked_stacks,
            with_walked,
        )

        copies, executables = self._unwinder.copies, self._unwinder.executables
        pairs = self._to_verify(counts, settings)
        stacks = walked_stacks(
            [*copies.samples, *(copy for _, copy in pairs)], executables, image_of, settings.max_depth
        )
        early, verified = stacks[: len(copies.samples)], stacks[len(copies.samples) :]
        self._compare(counts, [sample for sample, _ in pairs], verified, settings)
        early += leaf_stacks(copies.beyond, executables, image_of)
        samples = [copy.sample for copy in copies.samples]
        samples += [sample._replace(value=value) for (sample, _), value in copies.beyond.items()]
        return with_walked(counts, samples, early)

    def close(self) -> None:
        """Let go of everything; before the engine does."""
        if self._unwinder:
            self._unwinder.close()
        if self._perf_copies:
            self._perf_copies.close()
        self._worker.close()

    def _to_verify(self, counts: Counts, settings: Settings) -> "list[tuple[Sample, CopiedSample]]":
        """Return samples that the kernel walked, with perf's copies of them."""
        if not self._unwinder or not self._perf_copies:
            return []
        walked = [copy for copy in self._unwinder.copies.walked if copy.sample.user_stack in counts.stacks]
        pairs = [(copy.sample, self._perf_copies.of(copy)) for copy in walked]
        return [(sample, copy) for sample, copy in pairs if copy][: settings.verify]

    def _compare(
        self, counts: Counts, samples: Sequence[Sample], second: "Sequence[WalkedStack]", settings: Settings
    ) -> None:
        if not settings.verify:
            return
        from pyprof.profiler.verify import compared  # noqa: PLC0415 - rarely asked for

        kernel = [(counts.stacks[sample.user_stack], sample.user_end) for sample in samples]
        self.verified, self.agreed = compared(kernel, second)
        if not self.verified:
            self.notes.append("no stack was verified: the kernel walked none that perf copied too")

    def _load_tables(self, engine: SamplingEngine, settings: Settings, cpus: int) -> None:
        if platform.machine() != "x86_64":
            raise LibbpfError(f"unwind tables are for x86_64, not {platform.machine()}", errno.ENOSYS)
        engine.load(settings, self_pid=os.getpid(), cpus=cpus)
        maps, copies = engine.unwind_maps(), engine.copies()
        self._worker.on_start = partial(self._note_worker, engine)
        if self._worker.pid:
            self._note_worker(engine, self._worker.pid)
        self._unwinder = Unwinder(maps, copies, self._tracker, self._worker, self._cache)
        if settings.verify:
            from pyprof.profiler.verify import PerfCopies  # noqa: PLC0415 - rarely asked for

            self._perf_copies = PerfCopies()

    def _note_worker(self, engine: SamplingEngine, pid: int) -> None:
        """Let a new worker count as pyprof's own, instead of the one that it follows."""
        if self._own_pid:
            engine.remove_own(self._own_pid)
        engine.add_own(pid)
        self._own_pid = pid


def _wants_tables(settings: Settings) -> bool:
    return settings.unwind is not Unwind.FRAME_POINTERS and settings.user_stacks
