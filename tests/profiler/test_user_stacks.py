"""User stacks of a capture: what the engine is told of workers, and what becomes of handed over samples."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest

from pyprof.profiler.binaries import Binaries
from pyprof.profiler.capture import (
    END_COMPLETE,
    END_NO_MAPPING,
    END_NOT_READY,
    STACK_MAP_FULL,
    Sample,
)
from pyprof.profiler.copies import CopiedSample
from pyprof.profiler.engine import Counts, Stats
from pyprof.profiler.executables import Executables
from pyprof.profiler.proc import FileMapping
from pyprof.profiler.process_table import Image, ProcessTable
from pyprof.profiler.settings import Settings, Unwind
from pyprof.profiler.unwind_maps import FrameWord, word_of
from pyprof.profiler.user_stacks import UserStacks

pytestmark = pytest.mark.usefixtures("nothing_is_left")

Make = Callable[..., FileMapping]

SETTINGS = Settings(period=1)
STATS = Stats(*[0] * len(Stats._fields))
STACK = 1 << 63


class FakeEngine:
    """Remembers which processes are pyprof's own, and has room for one."""

    def __init__(self) -> None:
        self.own: list[int] = []

    def load(self, settings: Settings, *, self_pid: int, cpus: int) -> None:
        pass

    def unwind_maps(self) -> SimpleNamespace:
        return SimpleNamespace(wanted_exes=lambda _: [], close=int)

    def copies(self) -> SimpleNamespace:
        return SimpleNamespace(samples=[], beyond=Counter(), walked=[])

    def add_own(self, pid: int) -> None:
        self.own.append(pid)
        assert len(self.own) == 1

    def remove_own(self, pid: int) -> None:
        self.own.remove(pid)


@pytest.fixture
def stacks(monkeypatch: pytest.MonkeyPatch, nothing_is_left: None) -> Iterator[UserStacks]:
    monkeypatch.setenv("PYPROF_CACHE", "")
    with closing(Binaries(proc="/nonexistent")) as binaries:
        tracker = SimpleNamespace(binaries=binaries, table=ProcessTable())
        with closing(UserStacks(SETTINGS, tracker)) as made:  # type: ignore[arg-type]
            yield made


@pytest.fixture
def engine(stacks: UserStacks) -> FakeEngine:
    """Return the engine that the stacks are loaded into."""
    made = FakeEngine()
    found = stacks.load(made, SETTINGS, 1)  # type: ignore[arg-type]
    assert found.unwind is Unwind.TABLES
    return made


def sample(pid: int = 7, **changes: object) -> Sample:
    return Sample(pid, 0, 1, 2, b"prog", 0, 0, 1, END_NOT_READY)._replace(**changes)  # type: ignore[arg-type]


def copied(one: Sample, rip: int) -> CopiedSample:
    return CopiedSample(one, (*[0] * 16, rip), b"")


def test_worker_that_runs_counts_as_pyprofs_own(stacks: UserStacks, engine: FakeEngine) -> None:
    assert engine.own == [stacks._worker.pid]


def test_worker_that_follows_another_is_own_in_its_place(stacks: UserStacks, engine: FakeEngine) -> None:
    for _ in range(3):
        before = stacks._worker.pid
        os.kill(before, signal.SIGKILL)
        stacks._worker.close()
        stacks._worker.start()
        assert engine.own == [stacks._worker.pid] != [before]


def test_worker_that_starts_late_is_own(stacks: UserStacks) -> None:
    stacks._worker.close()
    engine = FakeEngine()
    stacks.load(engine, SETTINGS, 1)  # type: ignore[arg-type]
    assert engine.own == []
    stacks._worker.start()
    assert engine.own == [stacks._worker.pid]


def test_samples_that_were_handed_over_are_counted_with_their_stacks_or_their_leaves(
    stacks: UserStacks, engine: FakeEngine, mapped: Make
) -> None:
    image = Image(0)
    image.insert(mapped("/bin/a", file_offset=0x3000))
    assert stacks._unwinder is not None
    copies = stacks._unwinder.copies
    copies.samples.append(copied(sample(), 0x10))
    copies.beyond.update({(sample(), 0x1010): 5, (sample(), 0x1020): 2, (sample(8), 0x1010): 1})
    counted = sample(9, user_stack=STACK, user_end=END_COMPLETE, value=4)
    after = stacks.complete(Counts((counted,), {STACK: (1,)}, STATS), lambda _: image, SETTINGS)
    found = {(one.pid, after.stacks[one.user_stack], one.user_end): one.value for one in after.samples}
    first, second = (word_of(FrameWord(0, 0x3000 + offset)) for offset in (0x10, 0x20))
    assert found == {
        (9, (1,), END_COMPLETE): 4,
        (7, (0x10,), END_NO_MAPPING): 1,
        (7, (first,), END_NOT_READY): 5,
        (7, (second,), END_NOT_READY): 2,
        (8, (first,), END_NOT_READY): 1,
    }


@pytest.mark.parametrize(("verify", "expected"), [(10, (2, 1)), (1, (1, 1))])
def test_only_stacks_that_the_kernel_kept_are_verified(
    verify: int, expected: tuple[int, int], stacks: UserStacks, engine: FakeEngine
) -> None:
    copies = stacks._unwinder.copies  # type: ignore[union-attr]
    ids = (STACK_MAP_FULL, STACK, STACK + 9, STACK + 1)
    copies.walked += [copied(sample(user_stack=one, user_end=END_NO_MAPPING), 0x10) for one in ids]
    stacks._perf_copies = SimpleNamespace(of=lambda copy: copy, close=int)  # type: ignore[assignment]
    counts = Counts((), {STACK: (0x10,), STACK + 1: (0x20,)}, STATS)
    settings = Settings(period=1, verify=verify)
    after = stacks.complete(counts, lambda _: None, settings)
    assert after.samples == ()
    assert (stacks.verified, stacks.agreed) == expected
    assert stacks.notes == []


def test_capture_that_verified_nothing_says_so(stacks: UserStacks, engine: FakeEngine) -> None:
    stacks.complete(Counts((), {}, STATS), lambda _: None, Settings(period=1, verify=5))
    assert stacks.notes == ["no stack was verified: the kernel walked none that perf copied too"]


def test_executables_of_a_capture_are_those_of_its_walks(stacks: UserStacks) -> None:
    assert stacks.executables == ()
    stacks.load(FakeEngine(), SETTINGS, 1)  # type: ignore[arg-type]
    assert isinstance(stacks.executables, Executables)
