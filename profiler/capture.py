"""Capture: what was counted, before any address has a name.

Everything up to a Capture needs privileges; nothing after it does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pyprof.profiler.executables import Executable
from pyprof.profiler.process_table import ProcessTable
from pyprof.profiler.profile import Provenance, Quality

# Stack ids that stand for no stack; bpf/cpu.h.
STACK_NONE, STACK_MAP_FULL, STACK_UNREADABLE, STACK_COLLISION = range(4)

# How the walk of a user stack ended; bpf/unwind.h.
(
    END_BY_KERNEL,  # along frame pointers: its words are absolute return addresses
    END_COMPLETE,
    END_NO_ROW,
    END_NOT_RESIDENT,
    END_TOO_DEEP,
    END_UNSUPPORTED,
    END_NO_PROGRESS,
    END_NO_MAPPING,
    END_NOT_READY,
    END_COPY_CUT,
    END_GUESSED,
    END_32_BIT,  # along frame pointers too
) = range(12)


class Sample(NamedTuple):
    """One counted key: how often this stack was seen in this thread."""

    pid: int  # in our pid namespace; 0 is the idle task, or a process that is not visible from here
    tid: int  # 0 when threads were not told apart
    start_ns: int  # of the process, CLOCK_BOOTTIME
    image_ns: int  # when the process's program image began, CLOCK_BOOTTIME; 0: see Capture.execs_since_ns
    comm: bytes  # as the kernel has it, up to 15 bytes
    user_stack: int  # id in Capture.stacks, or one of STACK_*
    kernel_stack: int
    value: int
    user_end: int = END_BY_KERNEL  # END_*: how the walk of the user stack ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """Counts, stacks of absolute addresses, processes, losses and provenance."""

    samples: tuple[Sample, ...]
    stacks: dict[int, tuple[int, ...]]  # id: leaf first; absolute addresses, or unwind_maps.frame_word
    execs_since_ns: int  # CLOCK_BOOTTIME: an execve from here on is noted in its samples
    processes: ProcessTable
    max_depth: int  # a stack this deep may go on
    quality: Quality
    provenance: Provenance
    executables: Sequence[Executable] = ()  # that frame words refer to
