"""Engine: what loads the sampling program into the kernel and reads back what it counted.

Two ways exist to get a BPF program into a kernel, built ahead of time (libbpf) or compiled on the
target (bcc); the captures know only this Protocol.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pyprof.profiler.capture import Sample
from pyprof.profiler.settings import Settings

if TYPE_CHECKING:
    from pyprof.profiler.copies import Copies
    from pyprof.profiler.unwind_maps import UnwindMaps


class Target(NamedTuple):
    """A process or thread to sample."""

    pid: int  # or tid
    start_ticks: int = 0  # 1/100 s since boot; 0 matches any process with this number
    awaits_exec: bool = False  # counts from its next execve on


class Stats(NamedTuple):
    """What happened to each tick; enum cpu_stat in bpf/cpu.h has the same order."""

    taken: int
    counted: int
    idle: int
    excluded: int
    own: int
    lost_counts: int
    lost_stacks: int
    collisions: int
    unreadable: int
    copied: int
    forks_missed: int
    execs_missed: int


class Counts(NamedTuple):
    """Everything that the maps held when sampling had ended."""

    samples: tuple[Sample, ...]
    stacks: dict[int, tuple[int, ...]]
    stats: Stats


class SamplingEngine(Protocol):
    """Loads, attaches and reads the CPU sampling program. Every method raises ProfilerError."""

    @property
    def name(self) -> str:
        """Return the engine with its version: "libbpf 1.1"."""
        ...

    def load(self, settings: Settings, *, self_pid: int, cpus: int) -> None:
        """Load the program with these settings into the kernel; nothing samples yet."""
        ...

    def add_targets(self, targets: Sequence[Target]) -> None:
        """Let these processes, or threads, through the filter."""
        ...

    def unwind_maps(self) -> "UnwindMaps":
        """Return the maps that the walk of user stacks reads; after `load` with Unwind.TABLES."""
        ...

    def copies(self) -> "Copies":
        """Return where samples arrive that user space is to walk; after `load` with Unwind.TABLES."""
        ...

    def add_own(self, pid: int) -> None:
        """Count a process as pyprof's own; after `load`."""
        ...

    def remove_own(self, pid: int) -> None:
        """Count a process that has ended no more as pyprof's own: its number may be another's."""
        ...

    def attach(self, cpu: int, event_fd: int) -> None:
        """Start to sample on `cpu` at each overflow of the event, which the engine closes later."""
        ...

    def detach(self, cpu: int) -> None:
        """Stop sampling on one CPU."""
        ...

    def detach_all(self) -> None:
        """Stop sampling; what was counted stays readable."""
        ...

    def stats(self) -> Stats:
        """Return what happened to the ticks so far; at any time after `load`."""
        ...

    def read(self) -> Counts:
        """Return what was counted; after `detach_all`."""
        ...

    def close(self) -> None:
        """Remove the program and its maps from the kernel."""
        ...
