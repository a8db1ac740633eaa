"""Profile: stacks of frames with values, and where they come from.

The one type that every renderer takes. It holds no clock, no path to open and no privilege: a Profile
can be drawn on any machine.
"""

from dataclasses import dataclass
from typing import NamedTuple

from pyprof.symbolize.frame import Frame


class Mapping(NamedTuple):
    """A range of addresses that a file backs; half-open.

    In a process's table the range is in absolute addresses. In a Profile it is normalised: `start`
    equals `file_offset`, so an address in it is a file offset and equal code of two processes merges.
    """

    start: int
    limit: int
    file_offset: int  # bytes into the file at `start`
    path: str  # as the kernel names it in the process's mount namespace; "[vdso]", "//anon", ...
    build_id: str = ""  # lower-case hexadecimal, "" when unknown


class ProfileSample(NamedTuple):
    """One distinct stack and its value."""

    stack: tuple[int, ...]  # indices into Profile.frames, root first, without the process frame
    value: int  # in Profile.unit
    comm: str  # thread name, printable; "" when the source has none
    pid: int = 0  # process id, 0 when unknown
    tid: int = 0  # thread id, 0 when threads were not told apart


class Loss(NamedTuple):
    """Samples that are missing from the stacks, and why."""

    reason: str  # "stack map full"
    value: int  # in Profile.unit
    kept: bool  # True: the value is in the profile under a [lost: ...] frame; False: it is in no stack


class Truncation(NamedTuple):
    """Samples whose user stack does not reach its outermost frame, and why."""

    reason: str  # "page not resident"
    value: int  # in Profile.unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How complete a profile is. All numbers are in the profile's unit."""

    expected: int = 0  # what the timers should have given while CPUs were busy; 0 when unknown
    taken: int = 0  # what they gave: counted + idle + excluded + losses that are not kept
    counted: int = 0  # in the profile's samples, kept losses included
    idle: int = 0  # the CPU was idle
    excluded: int = 0  # outside the filters, or pyprof itself
    losses: tuple[Loss, ...] = ()  # sorted by reason; zero values are left out
    user_stacks: int = 0  # of the counted: those with a user stack
    truncated: tuple[Truncation, ...] = ()  # of these: stacks known to end early, sorted by reason
    verified: int = 0  # stacks that were walked a second time, in user space
    agreed: int = 0  # of these: both walks found the same frames

    @property
    def complete(self) -> int:
        """Return how many user stacks are not known to end early."""
        return self.user_stacks - sum(truncation.value for truncation in self.truncated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where, when and how a profile was taken. Empty text and 0 mean unknown."""

    mode: str = ""  # "cpu"
    event: str = ""  # "cpu-clock"
    period: int = 0  # of the event between two samples: nanoseconds for cpu-clock, else events
    frequency_hz: int = 0
    started_unix_ns: int = 0  # UTC
    duration_ns: int = 0
    host: str = ""
    kernel: str = ""  # release, as uname -r
    cpus: int = 0  # sampled CPUs
    engine: str = ""  # "libbpf 1.1"
    unwind: str = ""  # how callers in user code were found: "dwarf", "fp"
    targets: str = ""  # "all processes", "pid 4057"
    version: str = ""  # of pyprof
    notes: tuple[str, ...] = ()  # one sentence each: what fell back, the exit status of the command


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Distinct stacks with values, the frames they index, and how they were taken."""

    unit: str  # "samples"
    samples: tuple[ProfileSample, ...]
    frames: tuple[Frame, ...]
    mappings: tuple[Mapping, ...] = ()
    provenance: Provenance = Provenance()
    quality: Quality = Quality()

    @property
    def total(self) -> int:
        """Return the sum of all values, in `unit`."""
        return sum(sample.value for sample in self.samples)
