"""Settings: how much room a capture needs, and its targets in words."""

import pytest

from pyprof.profiler.cpu_maps import settings_image
from pyprof.profiler.settings import MAX_STACKS, MIN_STACKS, Settings, Targets


def room(cpus: int, **changes: float | None) -> int:
    settings = {"frequency_hz": 49, "duration_s": 10.0, **changes}
    return Settings(period=1, **settings).stack_room(cpus)  # type: ignore[arg-type]


def test_room_is_at_least_two_stacks_for_each_tick() -> None:
    for duration_s in (0.001, 1.0, 7.3, 60.0):
        for cpus in (1, 2, 64):
            ticks = 49 * duration_s * cpus
            assert room(cpus, duration_s=duration_s) >= min(2 * ticks, MAX_STACKS)


def test_room_is_a_power_of_two_within_its_bounds() -> None:
    for exponent in range(20):
        found = room(1, duration_s=0.01 * 2**exponent)
        assert MIN_STACKS <= found <= MAX_STACKS
        assert found & (found - 1) == 0


def test_short_capture_of_one_cpu_needs_the_least() -> None:
    assert room(1, duration_s=0.1) == MIN_STACKS


@pytest.mark.parametrize("changes", [{"duration_s": None}, {"frequency_hz": 0}, {"duration_s": 1e9}])
def test_room_is_the_most_when_the_ticks_cannot_be_foretold(changes: dict[str, float | None]) -> None:
    assert room(2, **changes) == MAX_STACKS


@pytest.mark.parametrize("entries", [16, 100, 1 << 20])
def test_room_that_was_asked_for_is_kept(entries: int) -> None:
    assert room(2, stack_entries=entries) == entries


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (Targets(), "all processes"),
        (Targets(idle=True), "all processes"),
        (Targets(pids=(4057,), cpus=(0, 3)), "pid 4057, CPU 0,3"),
        (Targets(pids=(1, 2)), "pid 1,2"),
        (Targets(tids=(7,), comm="nginx"), "thread 7, comm nginx"),
        (Targets(cgroup="/sys/fs/cgroup/a", user_threads=True), "cgroup /sys/fs/cgroup/a, user threads"),
        (Targets(kernel_threads=True), "kernel threads"),
    ],
)
def test_targets_are_told_in_words(targets: Targets, words: str) -> None:
    assert targets.description == words


def stride(cpus: int, **changes: float | None) -> int:
    settings = {"frequency_hz": 100, "duration_s": 10.0, "verify": 10, **changes}
    return Settings(period=1, **settings).verify_stride(cpus)  # type: ignore[arg-type]


def test_without_verification_there_is_no_stride() -> None:
    assert stride(2, verify=0) == 0
    assert stride(2, verify=0, duration_s=None) == 0


def test_stride_gives_as_many_as_are_wanted_where_cpus_are_busy_for_a_quarter_of_the_time() -> None:
    for cpus in (1, 2, 64):
        samples = 100 * 10 * cpus / 4
        assert samples / stride(cpus) == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("changes", [{"duration_s": None}, {"frequency_hz": 0}, {"verify": 10**6}])
def test_each_sample_is_verified_where_there_may_be_too_few(changes: dict[str, float | None]) -> None:
    assert stride(2, **changes) == 1


def test_stride_fits_its_field() -> None:
    image = settings_image(Settings(period=1, frequency_hz=9999, duration_s=1e9, verify=1), 1, cpus=512)
    assert b"\xff" * 4 in image
