"""Settings of a capture: what to sample, of whom, and how much to keep."""

from dataclasses import dataclass, field
from enum import Enum

MAX_FRAMES = 127  # bpf/cpu.h
COMM_BYTES = 16
MAX_STACKS = 32_768
MIN_STACKS = 1_024
NS_PER_SECOND = 1_000_000_000
LARGEST_STRIDE = 0xFFFFFFFF  # bpf/cpu.h: a __u32


class Unwind(Enum):
    """How the callers in user code are found."""

    AUTO = "auto"  # TABLES wherever the kernel can, else FRAME_POINTERS
    TABLES = "dwarf"
    FRAME_POINTERS = "fp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Whose time is counted. Every condition that is given must hold."""

    pids: tuple[int, ...] = ()  # in our pid namespace; () is every process
    tids: tuple[int, ...] = ()
    cgroup: str = ""  # folder of a cgroup v2; its descendants are in
    cpus: tuple[int, ...] = ()  # () is every online CPU
    comm: str = ""  # exact name of the thread
    user_threads: bool = False  # only threads that have user memory
    kernel_threads: bool = False  # only the kernel's own threads
    idle: bool = False  # count idle CPUs too

    @property
    def description(self) -> str:
        """Return the targets in words: "pid 4057, CPU 0-3"."""
        numbers = {"pid": self.pids, "thread": self.tids, "CPU": self.cpus}
        words = [f"{what} {','.join(map(str, ids))}" for what, ids in numbers.items() if ids]
        words += [f"cgroup {self.cgroup}"] if self.cgroup else []
        words += [f"comm {self.comm}"] if self.comm else []
        words += ["user threads"] if self.user_threads else []
        words += ["kernel threads"] if self.kernel_threads else []
        return ", ".join(words) or "all processes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a CPU capture samples."""

    event: str = "cpu-clock"
    period: int  # nanoseconds for clocks, else occurrences
    frequency_hz: int = 0  # 0 when the period was given
    duration_s: float | None = None  # None: until a signal, or until the command ends
    targets: Targets = field(default_factory=Targets)
    command: tuple[str, ...] = ()
    user_stacks: bool = True
    kernel_stacks: bool = True
    per_thread: bool = False
    max_depth: int = MAX_FRAMES
    unwind: Unwind = Unwind.AUTO
    verify: int = 0  # samples whose walk is checked by a second one in user space
    stack_entries: int | None = None  # room for distinct stacks; None: enough for the duration

    def verify_stride(self, cpus: int) -> int:
        """Return how many samples of a CPU lie between two that are verified, 1 for each; 0 for none.

        Spread so that CPUs which are busy for a quarter of the time give as many as are wanted.
        """
        if not self.verify:
            return 0
        if self.duration_s is None or not self.frequency_hz:
            return 1
        stride = int(self.duration_s * self.frequency_hz * cpus / (4 * self.verify))
        return max(1, min(stride, LARGEST_STRIDE))

    def stack_room(self, cpus: int) -> int:
        """Return how many distinct stacks to make room for.

        A sample adds at most two, so a short capture needs less than the default and starts faster.
        """
        if self.stack_entries is not None:
            return self.stack_entries
        if self.duration_s is None or not self.frequency_hz:
            return MAX_STACKS
        most = int(2.2 * self.duration_s * self.frequency_hz * cpus) + 64
        return max(MIN_STACKS, min(MAX_STACKS, 1 << (most - 1).bit_length()))
