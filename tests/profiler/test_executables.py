"""Executables: one number for one file, however it is mapped and named."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pyprof.profiler import executables as module
from pyprof.profiler import unwind_maps
from pyprof.profiler.binaries import Binaries
from pyprof.profiler.executables import Executables
from pyprof.profiler.proc import FileMapping

pytestmark = pytest.mark.usefixtures("nothing_is_left")

Make = Callable[..., FileMapping]


@pytest.fixture
def binaries(nothing_is_left: None) -> Iterator[Binaries]:
    with closing(Binaries(proc="/nonexistent")) as made:
        yield made


@pytest.fixture
def executables(binaries: Binaries) -> Executables:
    return Executables(binaries)


@pytest.fixture
def held(tmp_path: Path, binaries: Binaries, mapped: Make) -> Make:
    """Return a function that makes the mapping of a file in `tmp_path`, and holds the file open."""

    def make(name: str, *places: int, **more: object) -> FileMapping:
        file = mapped(str(tmp_path / name), *places, **more)
        binaries.hold(7, file)
        return file

    return make


def test_numbers_are_given_in_order_and_kept(tmp_path: Path, executables: Executables, held: Make) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    a, b = held("a"), held("b")
    assert [executables.number(file) for file in (a, b, a, b)] == [0, 1, 0, 1]
    assert len(executables) == 2
    assert [one.file for one in executables] == [a, b]
    assert executables[1:][0].file == b
    assert os.pread(executables[1].descriptor, 9, 0) == b"b"


def test_file_is_one_whatever_its_mapping_says(tmp_path: Path, executables: Executables, held: Make) -> None:
    (tmp_path / "a").touch()
    os.link(tmp_path / "a", tmp_path / "link")
    (tmp_path / "folder").mkdir()
    inode = (tmp_path / "a").stat().st_ino
    files = [
        held("a"),
        held("link"),
        held("folder/../a"),
        held("a", inode=inode),
        held("a", 0x70000, 0x80000),
    ]
    assert {executables.number(file) for file in files} == {0}
    assert len(executables) == 1


def test_open_file_is_another_for_each_build_id_that_the_kernel_tells(
    tmp_path: Path, executables: Executables, held: Make
) -> None:
    (tmp_path / "a").touch()
    os.link(tmp_path / "a", tmp_path / "link")
    files = [held("a"), held("a", build_id="01d"), held("a", build_id="0e"), held("link", build_id="01d")]
    assert [executables.number(file) for file in files] == [0, 1, 2, 1]
    assert len({os.fstat(one.descriptor).st_ino for one in executables}) == 1


def test_file_that_is_written_in_place_is_another(
    tmp_path: Path, executables: Executables, held: Make
) -> None:
    (tmp_path / "a").write_text("old")
    before = (tmp_path / "a").stat()
    old = held("a")
    assert executables.number(old) == 0
    while (tmp_path / "a").stat().st_ctime_ns == before.st_ctime_ns:  # the kernel's clock has ticks
        (tmp_path / "a").write_text("new")
    new = held("a", inode=before.st_ino)
    assert [executables.number(file) for file in (old, new, old)] == [0, 1, 0]
    assert (tmp_path / "a").stat().st_size == before.st_size


def test_file_that_took_the_place_of_another_is_another(
    tmp_path: Path, executables: Executables, held: Make
) -> None:
    (tmp_path / "a").write_text("old")
    old = held("a", build_id="01d")
    (tmp_path / "new").write_text("new")
    (tmp_path / "new").rename(tmp_path / "a")
    new = held("a", build_id="0e")
    assert [executables.number(file) for file in (old, new, old)] == [0, 1, 0]


def test_files_that_could_not_be_opened_are_told_by_what_the_kernel_says(
    executables: Executables, mapped: Make
) -> None:
    gone = [
        mapped("/gone"),
        mapped("/gone", 0x5000, 0x6000),
        mapped("/gone", inode=5),
        mapped("/gone", build_id="abcd"),
        mapped("/elsewhere"),
    ]
    assert [executables.number(file) for file in gone] == [0, 0, 1, 2, 3]
    assert {one.descriptor for one in executables} == {-1}


def test_file_that_is_opened_later_becomes_known_by_it(
    tmp_path: Path, executables: Executables, mapped: Make, held: Make
) -> None:
    (tmp_path / "a").touch()
    assert executables.number(mapped(str(tmp_path / "a"))) == 0
    assert executables.number(held("a")) == 1
    assert executables[1].descriptor >= 0


def test_vdso_is_one_executable_without_a_file(executables: Executables, mapped: Make) -> None:
    places = ((0x7000, 0x9000), (0x17000, 0x19000))
    assert [executables.number(mapped("[vdso]", *place)) for place in places] == [0, 0]
    assert executables[0].is_vdso
    assert executables[0].descriptor == -1


@pytest.mark.parametrize(
    "path", ["//anon", "//memory", "[heap]", "[stack]", "[uprobes]", "[vsyscall]", "anon_inode:[perf]", ""]
)
def test_memory_without_a_file_has_no_number(path: str, executables: Executables, mapped: Make) -> None:
    assert executables.number(mapped(path)) is None
    assert len(executables) == 0


def test_limit_leaves_out_new_files_and_keeps_the_known(
    tmp_path: Path, executables: Executables, held: Make, mapped: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT", 2)
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    files = [held("a"), mapped("/gone"), held("b"), mapped("/also gone"), held("a"), mapped("/gone")]
    assert [executables.number(file) for file in files] == [0, 1, None, None, 0, 1]


def test_limits_are_the_room_in_the_maps_and_in_a_frame_word() -> None:
    assert module.LIMIT == unwind_maps.EXES
    assert module.OFFSET_LIMIT == 1 << unwind_maps.FRAME_FILE_SHIFT


def test_mapping_whose_offsets_have_no_room_in_a_frame_has_no_number(
    executables: Executables, mapped: Make
) -> None:
    limit = module.OFFSET_LIMIT
    assert executables.number(mapped("/sparse", 0x1000, 0x2000, file_offset=limit - 0xFFF)) is None
    assert executables.number(mapped("/sparse", 0x1000, 0x2000, file_offset=1 << 62)) is None
    assert executables.number(mapped("/sparse", 0x1000, 0x2000, file_offset=limit - 0x1000)) == 0


def test_file_offset_is_of_the_mapping_that_held_it(
    tmp_path: Path, executables: Executables, held: Make
) -> None:
    (tmp_path / "a").touch()
    first = held("a", 0x10000, 0x12000, file_offset=0x1000)
    second = held("a", 0x14000, 0x15000, file_offset=0x4000)
    assert {executables.number(file) for file in (first, second)} == {0}
    found = [executables[0].mapping_at(offset) for offset in (0x1000, 0x2FFF, 0x4000, 0x4FFF)]
    assert found == [first.mapping, first.mapping, second.mapping, second.mapping]
    for offset in (0, 0x3000, 0x5000):
        assert executables[0].mapping_at(offset) == first.mapping


def test_longest_mapping_from_one_place_is_kept(tmp_path: Path, executables: Executables, held: Make) -> None:
    (tmp_path / "a").touch()
    files = [held("a", 0x1000, limit) for limit in (0x2000, 0x5000, 0x3000)]
    for file in files:
        executables.number(file)
    assert executables[0].mapping_at(0x3FFF) == files[1].mapping


def test_file_that_is_not_mapped_yet_has_no_piece(
    tmp_path: Path, executables: Executables, held: Make
) -> None:
    (tmp_path / "a").touch()
    soon, then = held("a", 0, 0), held("a", 0x1000, 0x2000, file_offset=0x3000)
    assert executables.number(soon) == 0
    assert executables[0].pieces == {}
    assert executables.number(then) == 0
    assert executables[0].mapping_at(0x3010) == then.mapping
