"""Perf events: what is asked of the kernel, and which refusals mean that an event is not there."""

import ctypes
import errno
import os
import re
import struct
from pathlib import Path

import pytest

from pyprof.profiler import perf_event
from pyprof.profiler.errors import ExitCode, ProfilerError
from pyprof.profiler.perf_event import EVENTS, PerfEventAttr, is_unsupported, sampling_attr, sideband_attr

HEADER = Path("/usr/include/linux/perf_event.h")


def test_attributes_have_the_size_of_their_version() -> None:
    assert ctypes.sizeof(PerfEventAttr) == 112


def test_attributes_lie_where_the_kernel_reads_them() -> None:
    attr = sampling_attr("cycles", 0x1122334455667788)
    attr.clockid, attr.sample_max_stack = -1, 7
    image = bytes(attr)
    assert struct.unpack_from("=II4Q", image) == (0, 0, 0, 0x1122334455667788, 0, 1)
    assert struct.unpack_from("=i", image, 92) == (-1,)
    assert struct.unpack_from("=H", image, 108) == (7,)


def test_event_starts_disabled() -> None:
    assert sampling_attr("cpu-clock", 1).flags & perf_event.DISABLED


@pytest.mark.parametrize("name", ["", "cpu_clock", "CYCLES", "\x1b[2J"])
def test_unknown_event_is_a_usage_error_that_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ProfilerError) as error:
        sampling_attr(name, 1)
    assert error.value.exit_code == ExitCode.USAGE
    assert str(error.value).isprintable()
    assert str(error.value).endswith(f"; choose one of {', '.join(sorted(EVENTS))}")


def test_only_clocks_count_nanoseconds() -> None:
    assert {name for name, event in EVENTS.items() if event.counts_ns} == {"cpu-clock", "task-clock"}


@pytest.mark.skipif(not HEADER.exists(), reason="the kernel's headers are not installed")
def test_events_have_the_numbers_of_the_kernels_header() -> None:
    numbers = dict(re.findall(r"PERF_COUNT_([SH]W_\w+)\s*= (\d+),", HEADER.read_text()))
    names = {
        "cpu-clock": "SW_CPU_CLOCK",
        "task-clock": "SW_TASK_CLOCK",
        "page-faults": "SW_PAGE_FAULTS",
        "context-switches": "SW_CONTEXT_SWITCHES",
        "cpu-migrations": "SW_CPU_MIGRATIONS",
        "minor-faults": "SW_PAGE_FAULTS_MIN",
        "major-faults": "SW_PAGE_FAULTS_MAJ",
        "cycles": "HW_CPU_CYCLES",
        "instructions": "HW_INSTRUCTIONS",
        "cache-references": "HW_CACHE_REFERENCES",
        "cache-misses": "HW_CACHE_MISSES",
        "branches": "HW_BRANCH_INSTRUCTIONS",
        "branch-misses": "HW_BRANCH_MISSES",
    }
    assert {name: event.config for name, event in EVENTS.items()} == {
        name: int(numbers[constant]) for name, constant in names.items()
    }
    assert all((name in perf_event.HARDWARE_EVENTS) == names[name].startswith("HW") for name in EVENTS)


@pytest.mark.skipif(not HEADER.exists(), reason="the kernel's headers are not installed")
def test_flags_have_the_bits_of_the_kernels_header() -> None:
    body = (
        HEADER.read_text()
        .split("struct perf_event_attr {", 1)[1]
        .split("union {\n\t\t__u32\t\twakeup_events", 1)[0]
    )
    fields = re.findall(r"^\s+(?:__u64\s+)?(\w+)\s*:\s*(\d+)[,;]", body, re.MULTILINE)
    bits, at = {}, 0
    for name, width in fields:
        bits[name], at = 1 << at, at + int(width)
    known = {
        name: getattr(perf_event, name.upper())
        for name in (
            *("disabled", "mmap", "comm", "task", "watermark", "sample_id_all", "mmap2"),
            *("comm_exec", "build_id"),
        )
    }
    known["use_clockid"] = perf_event.USE_CLOCKID
    assert known == {name: bits[name] for name in known}


@pytest.mark.parametrize("build_ids", [True, False])
def test_sideband_asks_for_build_ids_only_where_the_kernel_has_them(build_ids: bool) -> None:
    attr = sideband_attr(watermark_bytes=2048, build_ids=build_ids)
    assert bool(attr.flags & perf_event.BUILD_ID) == build_ids
    assert (attr.wakeup_watermark, attr.clockid) == (2048, perf_event.CLOCK_BOOTTIME)


@pytest.mark.parametrize(
    ("number", "unsupported"),
    [
        (errno.ENOENT, True),
        (errno.ENODEV, True),
        (errno.EOPNOTSUPP, True),
        (errno.EINVAL, True),
        (errno.EPERM, False),
        (errno.EACCES, False),
        (errno.EMFILE, False),
        (None, False),
    ],
)
def test_only_some_refusals_mean_that_the_event_is_not_there(number: int | None, unsupported: bool) -> None:
    assert is_unsupported(OSError(number, "")) == unsupported


@pytest.mark.usefixtures("as_root", "nothing_is_left")
def test_open_event_counts_between_enable_and_disable() -> None:
    fd = perf_event.open_event(sampling_attr("task-clock", 10**9), cpu=-1, pid=0)
    try:
        assert not os.get_inheritable(fd)
        assert perf_event.event_times(fd).value == 0
        perf_event.enable(fd)
        sum(range(100_000))
        perf_event.disable(fd)
        counted_ns = perf_event.event_times(fd).value
        assert counted_ns > 0
        sum(range(100_000))
        assert perf_event.event_times(fd).value == counted_ns
    finally:
        os.close(fd)


def test_event_that_gives_nothing_has_counted_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with open(tmp_path / "empty", "rb") as file:
        assert perf_event.event_times(file.fileno()) == (0, 0)


@pytest.mark.usefixtures("as_root", "nothing_is_left")
def test_refused_event_is_an_os_error_with_the_kernels_errno() -> None:
    with pytest.raises(OSError, match="perf_event_open") as error:
        perf_event.open_event(sampling_attr("cpu-clock", 10**9), cpu=100_000)
    assert error.value.errno in {errno.EINVAL, errno.ENODEV}


def test_unknown_architecture_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_event.platform, "machine", lambda: "riscv64")
    with pytest.raises(ProfilerError, match="does not know riscv64") as error:
        perf_event.open_event(sampling_attr("cpu-clock", 1), cpu=0)
    assert error.value.exit_code == ExitCode.CANNOT_PROFILE
