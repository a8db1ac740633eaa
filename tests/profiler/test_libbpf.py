"""The binding of libbpf: what it refuses, and that maps give back what was put in."""

import errno
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pyprof.profiler import cpu_maps, perf_event
from pyprof.profiler.engine import Target
from pyprof.profiler.libbpf import BATCH_ITEMS, NO_LIBRARY, BpfObject, LibbpfError, Library
from pyprof.profiler.libbpf_engine import OBJECTS
from pyprof.profiler.settings import Settings

MANY = 3 * BATCH_ITEMS + 1
NOBODY = 0xFFFFFFF  # so that our own samples count
IMAGE = cpu_maps.settings_image(Settings(period=1), self_pid=NOBODY)

# Two libraries, the newer one forgotten, then a message of libbpf's.
FORGOTTEN = """
import gc, sys
from pyprof.profiler.libbpf import BpfObject, LibbpfError, Library
first = Library()
Library()
gc.collect()
try:
    BpfObject(first, sys.argv[1])
except LibbpfError as error:
    print(error.detail)
"""


@pytest.fixture
def library() -> Library:
    """Return a library of the test's own: the last one that was made gets libbpf's words."""
    return Library()


@pytest.fixture
def opened(library: Library) -> Iterator[BpfObject]:
    """Return the sampling program's object, opened and not loaded."""
    with closing(BpfObject(library, str(OBJECTS / os.uname().machine / "cpu.bpf.o"))) as made:
        yield made


@pytest.fixture
def loaded(opened: BpfObject) -> BpfObject:
    """Return the sampling program's object in the kernel, with room for many entries."""
    opened.set_rodata(IMAGE)
    opened.set_max_entries("counts", 2 * MANY)
    opened.set_max_entries("stacks", 16)
    opened.set_max_entries("targets", 2 * MANY)
    opened.load()
    return opened


def refused(call: Callable[[], object]) -> LibbpfError:
    with pytest.raises(LibbpfError) as error:
        call()
    assert "\n" not in str(error.value)
    return error.value


def test_missing_library_is_one_line_that_says_how_to_get_it() -> None:
    error = refused(lambda: Library(soname="libbpf-absent.so.9"))
    assert str(error) == NO_LIBRARY
    assert "libbpf-absent.so.9" in error.detail


def test_version_is_two_numbers(library: Library) -> None:
    major, minor = map(int, library.version.split("."))
    assert (major, minor) >= (1, 0)


def test_absent_object_is_told_with_its_path(library: Library, tmp_path: Path) -> None:
    error = refused(lambda: BpfObject(library, str(tmp_path / "absent.o")))
    assert error.errno == errno.ENOENT
    assert str(tmp_path / "absent.o") in str(error)


@pytest.mark.parametrize("contents", [b"", b"no ELF file", b"\x7fELF" + bytes(100)])
def test_bogus_object_is_refused_in_libbpfs_words(contents: bytes, library: Library, tmp_path: Path) -> None:
    path = tmp_path / "bogus.o"
    path.write_bytes(contents)
    error = refused(lambda: BpfObject(library, str(path)))
    assert error.detail.startswith("libbpf: ")
    assert "bogus.o" in error.detail


def test_bogus_object_is_told_without_an_unknown_error(library: Library, tmp_path: Path) -> None:
    (tmp_path / "bogus.o").write_bytes(b"no ELF file")
    assert "Unknown error" not in str(refused(lambda: BpfObject(library, str(tmp_path / "bogus.o"))))


def test_words_of_one_failure_are_not_those_of_the_next(library: Library, tmp_path: Path) -> None:
    for name in ("first.o", "second.o"):
        (tmp_path / name).write_bytes(b"no ELF file")
        detail = refused(lambda path=str(tmp_path / name): BpfObject(library, path)).detail
        assert name in detail
    assert "first.o" not in detail


def test_library_may_be_forgotten_while_another_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "bogus.o").write_bytes(b"no ELF file")
    result = subprocess.run(
        [sys.executable, "-c", FORGOTTEN, str(tmp_path / "bogus.o")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "bogus.o" in result.stdout


@pytest.mark.parametrize("size", [0, len(IMAGE) - 1, len(IMAGE) + 1])
def test_settings_of_another_size_are_refused(size: int, opened: BpfObject) -> None:
    error = refused(lambda: opened.set_rodata(bytes(size)))
    assert str(error) == (
        f"the BPF object takes {len(IMAGE)} bytes of settings, not {size}; reinstall pyprof"
    )


@pytest.mark.parametrize("find", [lambda one: one.map("absent"), lambda one: one.attach("absent")])
def test_absent_map_or_program_is_told_by_name(
    find: Callable[[BpfObject], object], opened: BpfObject
) -> None:
    error = refused(lambda: find(opened))
    assert error.errno == errno.ENOENT
    assert str(error).endswith(" absent; reinstall pyprof")


def test_closing_an_object_twice_is_once(opened: BpfObject) -> None:
    opened.close()
    opened.close()


@pytest.mark.bpf
def test_kernels_refusal_carries_libbpfs_words(opened: BpfObject) -> None:
    opened.set_rodata(IMAGE)
    opened.set_max_entries("stacks", 0xFFFFFFFF)  # 4 TiB
    error = refused(opened.load)
    assert str(error).startswith("the kernel refused a BPF program or map: ")
    assert error.errno in {errno.E2BIG, errno.ENOMEM, errno.EINVAL}
    assert "stacks" in error.detail


@pytest.mark.bpf
def test_map_cannot_be_resized_once_it_is_in_the_kernel(loaded: BpfObject) -> None:
    error = refused(lambda: loaded.set_max_entries("stacks", 32))
    assert error.errno == errno.EBUSY
    assert str(error).startswith("cannot size BPF map stacks for 32 entries: ")


@pytest.mark.bpf
def test_map_items_come_back_over_several_batches(loaded: BpfObject) -> None:
    targets = loaded.map("targets")
    written = dict(cpu_maps.target_entry(Target(pid, pid * 3, pid % 2 == 0)) for pid in range(1, MANY + 1))
    for key, value in written.items():
        targets.update(key, value)
    items = list(targets.items())
    assert len(items) == MANY
    assert dict(items) == written


@pytest.mark.bpf
@pytest.mark.parametrize("entries", [0, 1])
def test_map_with_few_items_gives_just_those(entries: int, loaded: BpfObject) -> None:
    targets = loaded.map("targets")
    for pid in range(entries):
        targets.update(*cpu_maps.target_entry(Target(pid)))
    assert len(list(targets.items())) == entries


@pytest.mark.bpf
def test_value_is_replaced_by_a_later_one(loaded: BpfObject) -> None:
    targets = loaded.map("targets")
    for ticks in (1, 2):
        targets.update(*cpu_maps.target_entry(Target(7, ticks)))
    assert list(targets.items()) == [cpu_maps.target_entry(Target(7, 2))]


@pytest.mark.bpf
def test_entry_of_another_size_is_refused(loaded: BpfObject) -> None:
    error = refused(lambda: loaded.map("targets").update(bytes(8), bytes(16)))
    assert "takes 4 + 16 bytes, got 8 + 16" in str(error)
    assert "reinstall pyprof" in str(error)


@pytest.mark.bpf
def test_full_map_refuses_one_more(opened: BpfObject) -> None:
    opened.set_rodata(IMAGE)
    opened.set_max_entries("targets", 8)
    opened.load()
    targets = opened.map("targets")
    error = refused(lambda: [targets.update(*cpu_maps.target_entry(Target(pid))) for pid in range(100_000)])
    assert error.errno in {errno.E2BIG, errno.ENOMEM}
    assert str(error).startswith("cannot write BPF map targets: ")


@pytest.mark.bpf
def test_each_cpu_has_a_value(library: Library, loaded: BpfObject) -> None:
    values = loaded.map("stats").per_cpu_values(cpu_maps.stat_key(0))
    assert len(values) == library.possible_cpus
    assert all(len(value) == 8 for value in values)


@pytest.mark.bpf
def test_absent_key_of_a_map_is_refused(loaded: BpfObject) -> None:
    error = refused(lambda: loaded.map("stats").per_cpu_values(struct.pack("=I", 1000)))
    assert (error.errno, str(error)) == (
        errno.ENOENT,
        "cannot read BPF map stats: No such file or directory",
    )


@pytest.mark.bpf
def test_nothing_stays_open_after_a_load(library: Library) -> None:
    path = str(OBJECTS / os.uname().machine / "cpu.bpf.o")
    before = set(os.listdir("/proc/self/fd"))
    with closing(BpfObject(library, path)) as program:
        program.set_rodata(IMAGE)
        program.load()
        program.attach("note_exec")
        assert set(os.listdir("/proc/self/fd")) > before
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.bpf
def test_detached_program_leaves_its_maps_readable(loaded: BpfObject) -> None:
    attr = perf_event.sampling_attr("task-clock", 1_000_000)
    loaded.attach_perf_event("sample_cpu", perf_event.open_event(attr, cpu=-1, pid=0))
    counts = loaded.map("counts")
    while not list(counts.items()):
        sum(range(1000))
    loaded.detach_all()
    counted = sorted(counts.items())
    sum(range(1_000_000))
    assert sorted(counts.items()) == counted


@pytest.mark.bpf
def test_closed_perf_event_cannot_be_attached_to(loaded: BpfObject) -> None:
    error = refused(lambda: loaded.attach_perf_event("sample_cpu", 10_000))
    assert error.errno == errno.EBADF
    assert "cannot attach BPF program sample_cpu to a perf event" in str(error)
