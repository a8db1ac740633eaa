"""How whole the stacks of one process are: a short capture, read for what ends its stacks early."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from pyprof.profiler.engine import SamplingEngine
from pyprof.profiler.interrupts import Interrupts
from pyprof.profiler.profile import Profile, Quality
from pyprof.profiler.session import CpuSession
from pyprof.profiler.settings import NS_PER_SECOND, Settings, Targets
from pyprof.symbolize.frame import FrameKind

CHECK_S, CHECK_HZ = 2.0, 499
FEW_SAMPLES = 50


class CutPlace(NamedTuple):
    """Where stacks end early."""

    reason: str  # "no unwind row"
    module: str  # path of the file whose frame has no caller, "" for memory without a file
    value: int  # samples


class StackCheck(NamedTuple):
    """How whole the stacks of a process are."""

    quality: Quality
    unwind: str  # "dwarf", "fp"
    places: tuple[CutPlace, ...]  # most samples first
    notes: tuple[str, ...]

    @property
    def share(self) -> float:
        """Return the share, 0..1, of the user stacks that are complete."""
        return self.quality.complete / self.quality.user_stacks if self.quality.user_stacks else 1.0


def stack_check(pids: Sequence[int], engine: SamplingEngine, interrupts: Interrupts) -> StackCheck:
    """Return what a capture of two seconds tells. Raises: ProfilerError."""
    settings = Settings(
        period=NS_PER_SECOND // CHECK_HZ,
        frequency_hz=CHECK_HZ,
        duration_s=CHECK_S,
        targets=Targets(pids=tuple(pids)),
    )
    with CpuSession(settings, engine) as session:
        outcome = session.run(interrupts, idle_work=(), on_progress=lambda seconds, sampler: None)
        return checked(outcome.unnamed.profile)


def checked(profile: Profile) -> StackCheck:
    """Return how whole the user stacks of a profile are, and where those end that are not."""
    places: Counter[tuple[str, str]] = Counter()
    for sample in profile.samples:
        frames = [profile.frames[index] for index in sample.stack[:2]]
        if frames and frames[0].kind is FrameKind.NOTE:
            reason = frames[0].name.strip("[]").removeprefix("truncated: ")
            places[reason, frames[1].module if len(frames) > 1 else ""] += sample.value
    ordered = sorted(places.items(), key=lambda item: (-item[1], item[0]))
    cut = tuple(CutPlace(reason, module, value) for (reason, module), value in ordered)
    return StackCheck(profile.quality, profile.provenance.unwind, cut, profile.provenance.notes)
