"""The wait for the end of a capture: each way to end, and what is done meanwhile."""

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from pyprof.profiler import watch as watching
from pyprof.profiler.watch import End, Source, watch

pytestmark = pytest.mark.usefixtures("nothing_is_left")

LONG_S = 600.0  # a test that waits for it has failed


class Pipe(NamedTuple):
    """Something to wait for."""

    read_end: int
    write_end: int

    def fileno(self) -> int:
        return self.read_end

    def fire(self) -> None:
        os.write(self.write_end, b"!")


class FakeTracker:
    """Counts drains, and does what a test wants at one of them."""

    def __init__(self, *rings: Pipe) -> None:
        self.drains = 0
        self.at: dict[int, Callable[[], object]] = {}  # number of the drain, from 1: what happens
        self._rings = rings

    def filenos(self) -> list[int]:
        return [ring.fileno() for ring in self._rings]

    def drain(self) -> None:
        self.drains += 1
        self.at.get(self.drains, int)()


class Clock(SimpleNamespace):
    """A clock that goes forward by a step with each look, and by a sleep at once."""

    now_s = 1000.0
    step_s = 0.0

    def monotonic(self) -> float:
        self.now_s += self.step_s
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class Watched:
    """One call of `watch` with what a test changes."""

    def __init__(self, tracker: FakeTracker, interrupts: Pipe) -> None:
        self.tracker = tracker
        self.sources: list[Source] = [tracker]
        self.interrupts = interrupts
        self.seconds: list[float] = []  # told as progress
        self.checks = 0
        self.gone_at = 0  # number of the look that finds no target

    def until(
        self,
        *,
        duration_s: float | None = LONG_S,
        targets: Iterable[Pipe] = (),
        idle_work: Iterable[Callable[[], object] | None] = (),
    ) -> End:
        return watch(
            self.sources,
            duration_s=duration_s,
            interrupts=self.interrupts,
            targets=list(targets),
            idle_work=idle_work,
            each_second=self._check,
            on_progress=self.seconds.append,
        )

    def _check(self) -> bool:
        self.checks += 1
        return self.checks == self.gone_at


@pytest.fixture
def pipe(nothing_is_left: None) -> Iterator[Callable[[], Pipe]]:
    made: list[Pipe] = []

    def make() -> Pipe:
        made.append(Pipe(*os.pipe()))
        return made[-1]

    yield make
    for one in made:
        os.close(one.read_end)
        os.close(one.write_end)


@pytest.fixture
def watched(pipe: Callable[[], Pipe]) -> Watched:
    return Watched(FakeTracker(pipe()), pipe())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watching, "time", clock)
    return clock


def test_duration_ends_the_capture(watched: Watched, clock: Clock) -> None:
    clock.step_s = 0.5
    assert watched.until(duration_s=2.0, idle_work=[int] * 100) is End.DURATION
    assert clock.now_s == 1002.5


def test_real_duration_is_not_cut_short(watched: Watched) -> None:
    began_s = watching.time.monotonic()
    assert watched.until(duration_s=0.05) is End.DURATION
    assert watching.time.monotonic() - began_s >= 0.05


def test_signal_ends_the_capture(watched: Watched) -> None:
    watched.tracker.at[3] = watched.interrupts.fire
    assert watched.until(idle_work=[int] * 10) is End.SIGNAL
    assert watched.tracker.drains == 3


def test_signal_ends_a_capture_without_a_duration(watched: Watched) -> None:
    watched.interrupts.fire()
    assert watched.until(duration_s=None) is End.SIGNAL


def test_last_of_the_targets_ends_the_capture(watched: Watched, pipe: Callable[[], Pipe]) -> None:
    first, second = pipe(), pipe()
    watched.tracker.at = {2: first.fire, 5: second.fire}
    assert watched.until(targets=[first, second], idle_work=[int] * 10) is End.TARGET
    assert watched.tracker.drains == 5


def test_target_that_has_ended_already_ends_the_capture(watched: Watched, pipe: Callable[[], Pipe]) -> None:
    target = pipe()
    target.fire()
    assert watched.until(targets=[target]) is End.TARGET


def test_signal_comes_before_the_end_of_the_targets(watched: Watched, pipe: Callable[[], Pipe]) -> None:
    target = pipe()
    target.fire()
    watched.interrupts.fire()
    assert watched.until(targets=[target]) is End.SIGNAL


def test_reader_of_standard_output_that_goes_ends_the_capture(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_end, write_end = os.pipe()
    with open(write_end, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        watched.tracker.at[2] = lambda: os.close(read_end)
        assert watched.until(idle_work=[int] * 10) is End.OUTPUT
    assert watched.tracker.drains == 2


def test_standard_output_that_is_no_pipe_ends_nothing(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(tmp_path / "out", "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert watched.until(duration_s=0.001) is End.DURATION


def test_standard_output_without_a_descriptor_ends_nothing(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert watched.until(duration_s=0.001) is End.DURATION


def test_closed_standard_output_ends_nothing(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert watched.until(duration_s=0.001) is End.DURATION


def test_idle_work_is_done_in_order_with_a_drain_before_each_piece(watched: Watched) -> None:
    done: list[tuple[int, int]] = []
    work = [lambda piece=piece: done.append((piece, watched.tracker.drains)) for piece in range(3)]
    watched.tracker.at[4] = watched.interrupts.fire
    watched.until(idle_work=work)
    assert done == [(0, 1), (1, 2), (2, 3)]


def test_end_leaves_the_rest_of_the_idle_work(watched: Watched) -> None:
    done: list[int] = []
    watched.tracker.at[2] = watched.interrupts.fire
    watched.until(idle_work=[lambda: done.append(1)] * 10)
    assert len(done) == 2


def test_online_cpus_are_looked_at_once_a_second(watched: Watched, clock: Clock) -> None:
    clock.step_s = 0.125
    watched.until(duration_s=5.0, idle_work=[int] * 1000)
    assert watched.checks == 4


def test_look_that_finds_no_target_ends_the_capture(watched: Watched, clock: Clock) -> None:
    clock.step_s = 0.125
    watched.gone_at = 2
    assert watched.until(idle_work=[int] * 1000) is End.TARGET
    assert clock.now_s < 1003


def test_progress_is_told_in_seconds_since_the_start(watched: Watched, clock: Clock) -> None:
    clock.step_s = 0.25
    watched.until(duration_s=1.0, idle_work=[int] * 1000)
    assert watched.seconds == [0.25, 0.5, 0.75]


def test_storm_of_events_is_drained_no_more_than_100_times_a_second(
    watched: Watched, pipe: Callable[[], Pipe], clock: Clock
) -> None:
    ring = pipe()
    ring.fire()
    watched.tracker = FakeTracker(ring)
    watched.sources = [watched.tracker]
    assert watched.until(duration_s=1.0) is End.DURATION
    assert watched.tracker.drains <= 101


def naps(clock: Clock) -> list[float]:
    """Return the seconds of each sleep, once they are made."""
    made: list[float] = []

    def sleep(seconds: float) -> None:
        made.append(round(seconds, 6))
        clock.now_s += seconds

    clock.sleep = sleep  # type: ignore[method-assign]
    return made


def test_first_nap_is_short_and_in_a_storm_they_are_long(
    watched: Watched, pipe: Callable[[], Pipe], clock: Clock
) -> None:
    ring = pipe()
    ring.fire()
    watched.sources = [FakeTracker(ring)]
    slept = naps(clock)
    assert watched.until(duration_s=0.0395) is End.DURATION
    assert slept == [0.002, 0.01, 0.01, 0.01, 0.0075]
    assert (watching.QUICK_WAIT_S, watching.SHORTEST_WAIT_S) == (0.002, 0.01)


@pytest.mark.parametrize("calm_and_nap_s", [(0.04, 0.01), (0.06, 0.002)])
def test_nap_after_a_calm_is_short_again(
    calm_and_nap_s: tuple[float, float],
    watched: Watched,
    pipe: Callable[[], Pipe],
    clock: Clock,
    waits: list[float],
) -> None:
    calm_s, nap_s = calm_and_nap_s
    ring = pipe()
    ring.fire()
    source = FakeTracker(ring)

    def calm() -> None:
        clock.now_s += calm_s

    source.at = {1: lambda: os.read(ring.read_end, 1), 2: calm, 3: ring.fire, 4: watched.interrupts.fire}
    watched.sources = [source]
    slept = naps(clock)
    assert watched.until() is End.SIGNAL
    # something | nothing, and a calm | nothing | something again
    assert slept == [0.002, nap_s]


def test_nap_ends_with_the_duration(watched: Watched, pipe: Callable[[], Pipe], clock: Clock) -> None:
    ring = pipe()
    ring.fire()
    watched.sources = [FakeTracker(ring)]
    slept = naps(clock)
    assert watched.until(duration_s=0.0015) is End.DURATION
    assert slept == [0.0015]


def test_sources_are_drained_in_their_order(watched: Watched, pipe: Callable[[], Pipe]) -> None:
    order: list[str] = []
    first, second = FakeTracker(pipe(), pipe()), FakeTracker()
    first.at = {turn: lambda: order.append("first") for turn in (1, 2)}
    second.at = {1: lambda: order.append("second"), 2: watched.interrupts.fire}
    watched.sources = [first, second]
    assert watched.until(idle_work=[int] * 10) is End.SIGNAL
    assert order == ["first", "second", "first"]


def test_any_source_ends_the_wait(watched: Watched, pipe: Callable[[], Pipe], waits: list[float]) -> None:
    ring = pipe()
    ring.fire()
    last = FakeTracker(ring)
    last.at[1] = watched.interrupts.fire
    watched.sources = [FakeTracker(pipe()), FakeTracker(), last]
    assert watched.until() is End.SIGNAL
    assert last.drains == 1


def test_descriptors_of_a_source_may_change(watched: Watched, pipe: Callable[[], Pipe]) -> None:
    gone, fresh = pipe(), pipe()
    rings = [gone]
    source = SimpleNamespace(filenos=lambda: [ring.fileno() for ring in rings])
    source.drain = lambda: rings.__setitem__(slice(None), [fresh])
    watched.sources = [watched.tracker, source]
    watched.tracker.at = {2: fresh.fire, 3: watched.interrupts.fire}
    assert watched.until(idle_work=[int] * 10) is End.SIGNAL


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds that each look at the descriptors was ready to wait; none of them does."""
    real, waits = watching._ready, []

    def ready(descriptors: list[int], wait_s: float) -> set[int]:
        waits.append(wait_s)
        return real(descriptors, 0.0)

    monkeypatch.setattr(watching, "_ready", ready)
    return waits


def test_nothing_to_do_for_now_is_waited_over_and_does_not_end_the_work(
    watched: Watched, waits: list[float]
) -> None:
    done: list[int] = []
    work = [None, lambda: done.append(1), None, None, lambda: done.append(2)]
    watched.tracker.at[6] = watched.interrupts.fire
    watched.until(idle_work=work)
    assert done == [1, 2]
    longest = watching.LONGEST_WAIT_S
    assert waits[:6] == [longest, 0.0, longest, longest, 0.0, longest]


def test_look_after_one_that_found_something_does_not_wait(
    watched: Watched, pipe: Callable[[], Pipe], waits: list[float], clock: Clock
) -> None:
    ring = pipe()
    watched.tracker = FakeTracker(ring)
    watched.sources = [watched.tracker]
    watched.tracker.at = {
        1: ring.fire,
        3: lambda: os.read(ring.read_end, 1),
        5: watched.interrupts.fire,
    }
    assert watched.until() is End.SIGNAL
    longest = watching.LONGEST_WAIT_S
    # nothing | something | still there | taken by then, so nothing | as before
    assert waits == [longest, longest, 0.0, 0.0, longest, longest]


def test_wait_is_no_longer_than_what_is_left(watched: Watched, waits: list[float], clock: Clock) -> None:
    clock.step_s = 0.125
    watched.until(duration_s=0.5)
    assert waits == [0.25, 0.25, 0.125]
