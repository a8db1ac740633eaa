"""The libbpf engine, from its object file to what it counted."""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pyprof.profiler import perf_event
from pyprof.profiler.engine import Target
from pyprof.profiler.errors import ExitCode, ProfilerError
from pyprof.profiler.libbpf import LibbpfError
from pyprof.profiler.libbpf_engine import OBJECTS, LibbpfEngine
from pyprof.profiler.proc import start_ticks
from pyprof.profiler.settings import Settings, Targets

OTHER_PID = 0xFFFFFFF  # nobody's: our own samples count
SETTINGS = Settings(period=1_000_000, frequency_hz=1000, duration_s=1.0)


@pytest.fixture
def engine() -> Iterator[LibbpfEngine]:
    with closing(LibbpfEngine()) as made:
        yield made


def sampled(engine: LibbpfEngine, settings: Settings, targets: list[Target], *, ticks: int) -> None:
    """Sample this process's own thread until `ticks` have come, then detach."""
    attr = perf_event.sampling_attr("task-clock", settings.period)
    engine.load(settings, self_pid=OTHER_PID, cpus=1)
    engine.add_targets(targets)
    engine.attach(0, perf_event.open_event(attr, cpu=-1, pid=0))
    while engine.stats().taken < ticks:
        sum(range(1000))
    engine.detach_all()


def test_missing_object_is_told_with_the_machines_it_is_built_for(tmp_path: Path) -> None:
    (tmp_path / "mips").mkdir()
    (tmp_path / "mips" / "cpu.bpf.o").touch()
    engine = LibbpfEngine(objects=tmp_path)
    with pytest.raises(ProfilerError) as error:
        engine.load(SETTINGS, self_pid=1, cpus=1)
    assert error.value.exit_code == ExitCode.CANNOT_PROFILE
    path = tmp_path / platform.machine() / "cpu.bpf.o"
    assert str(error.value) == (
        f"no BPF object for {platform.machine()} at {path}; pyprof is built for: mips"
    )


def test_bogus_object_is_refused_in_libbpfs_words(tmp_path: Path) -> None:
    folder = tmp_path / platform.machine()
    folder.mkdir()
    (folder / "cpu.bpf.o").write_bytes(b"no ELF file")
    engine = LibbpfEngine(objects=tmp_path)
    with pytest.raises(LibbpfError) as error:
        engine.load(SETTINGS, self_pid=1, cpus=1)
    assert "cpu.bpf.o" in error.value.detail
    engine.close()


def test_object_is_there_for_this_machine() -> None:
    assert (OBJECTS / platform.machine() / "cpu.bpf.o").exists()


def test_name_tells_the_librarys_version(engine: LibbpfEngine) -> None:
    name, version = engine.name.split()
    assert name == "libbpf"
    assert float(version) >= 1.0


def test_engine_that_was_not_loaded_is_a_bug_in_words(engine: LibbpfEngine) -> None:
    with pytest.raises(ProfilerError) as error:
        engine.stats()
    assert error.value.exit_code == ExitCode.BUG


def test_closing_twice_or_before_loading_is_nothing(engine: LibbpfEngine) -> None:
    engine.close()
    engine.close()


@pytest.mark.bpf
def test_closed_engine_has_left_nothing_open(engine: LibbpfEngine) -> None:
    before = set(os.listdir("/proc/self/fd"))
    sampled(engine, SETTINGS, [], ticks=1)
    engine.close()
    engine.close()
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.bpf
def test_what_was_counted_adds_up(engine: LibbpfEngine) -> None:
    sampled(engine, SETTINGS, [], ticks=50)
    counts = engine.read()
    stats = counts.stats
    assert stats.taken >= 50
    assert stats.taken == stats.counted + stats.idle + stats.excluded + stats.own + stats.lost_counts
    assert sum(sample.value for sample in counts.samples) == stats.counted
    assert {sample.pid for sample in counts.samples} == {os.getpid()}
    assert {sample.tid for sample in counts.samples} == {0}
    for sample in counts.samples:
        assert sample.user_stack <= 3 or counts.stacks[sample.user_stack]
        assert sample.kernel_stack <= 3 or counts.stacks[sample.kernel_stack]


@pytest.mark.bpf
def test_own_process_is_counted_apart(engine: LibbpfEngine) -> None:
    engine.load(SETTINGS, self_pid=os.getpid(), cpus=1)
    attr = perf_event.sampling_attr("task-clock", SETTINGS.period)
    engine.attach(0, perf_event.open_event(attr, cpu=-1, pid=0))
    while engine.stats().own < 10:
        sum(range(1000))
    engine.detach(0)
    counts = engine.read()
    assert counts.samples == ()
    assert counts.stats.own == counts.stats.taken


@pytest.mark.bpf
def test_process_that_was_added_is_own_until_it_is_removed(engine: LibbpfEngine) -> None:
    engine.load(SETTINGS, self_pid=OTHER_PID, cpus=1)
    engine.remove_own(os.getpid())  # one that is not there is no error
    engine.add_own(os.getpid())
    attr = perf_event.sampling_attr("task-clock", SETTINGS.period)
    engine.attach(0, perf_event.open_event(attr, cpu=-1, pid=0))
    while engine.stats().own < 10:
        sum(range(1000))
    assert engine.stats().counted == 0
    engine.remove_own(os.getpid())
    while engine.stats().counted < 10:
        sum(range(1000))
    engine.detach(0)
    stats = engine.read().stats
    assert stats.taken == stats.own + stats.counted
    assert stats.own >= 10


@pytest.mark.bpf
@pytest.mark.parametrize(("wrong_by", "counted"), [(0, True), (1, False)])
def test_target_of_another_start_time_is_another_process(
    wrong_by: int, counted: bool, engine: LibbpfEngine
) -> None:
    settings = Settings(period=1_000_000, duration_s=1.0, targets=Targets(pids=(os.getpid(),)))
    target = Target(os.getpid(), start_ticks(os.getpid()) + wrong_by)
    sampled(engine, settings, [target], ticks=20)
    stats = engine.read().stats
    assert (stats.counted > 0, stats.excluded > 0) == (counted, not counted)


@pytest.mark.bpf
def test_threads_are_told_apart_on_request(engine: LibbpfEngine) -> None:
    sampled(engine, Settings(period=1_000_000, duration_s=1.0, per_thread=True), [], ticks=10)
    assert {sample.tid for sample in engine.read().samples} == {os.getpid()}


@pytest.mark.bpf
def test_stacks_are_no_deeper_than_asked_for(engine: LibbpfEngine) -> None:
    sampled(engine, Settings(period=1_000_000, duration_s=1.0, max_depth=2), [], ticks=20)
    stacks = engine.read().stacks.values()
    assert stacks
    assert max(map(len, stacks)) <= 2


@pytest.mark.bpf
@pytest.mark.parametrize("path", ["/nonexistent", "/proc/self/status"])
def test_what_is_no_cgroup_is_a_usage_error(path: str, engine: LibbpfEngine) -> None:
    settings = Settings(period=1_000_000, targets=Targets(cgroup=path))
    with pytest.raises(ProfilerError, match=f"cannot open cgroup {path}: ") as error:
        engine.load(settings, self_pid=1, cpus=1)
    assert error.value.exit_code == ExitCode.USAGE


@pytest.mark.bpf
def test_object_may_lie_anywhere(tmp_path: Path) -> None:
    shutil.copytree(OBJECTS, tmp_path / "objects")
    with closing(LibbpfEngine(objects=tmp_path / "objects")) as engine:
        engine.load(SETTINGS, self_pid=1, cpus=1)
        assert engine.read().samples == ()
