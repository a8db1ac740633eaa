"""The unwinder: what it asks for, when, and what it does with the answers. Everything around it is fake."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyprof.profiler import unwinder as module
from pyprof.profiler.binaries import Binaries
from pyprof.profiler.capture import END_NOT_READY, Sample
from pyprof.profiler.copies import CopiedSample
from pyprof.profiler.proc import FileMapping
from pyprof.profiler.process_table import ProcessTable, Snapshot
from pyprof.profiler.unwind_maps import EXE_WITHOUT_TABLE, ProcessImage
from pyprof.profiler.unwinder import LOOK_AGAIN_S, Unwinder
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.table_worker import TableAnswer, TableArrays
from pyprof.symbolize.vdso import vdso_image

pytestmark = pytest.mark.usefixtures("nothing_is_left")

Make = Callable[..., FileMapping]

SECOND = 1_000_000_000
ARRAYS = TableArrays(1, bytes(8), bytes(4096), bytes(16))
NO_ARRAYS = TableArrays(0, b"", b"", b"")


class FakeMaps:
    """Remembers the tables and the states of executables."""

    def __init__(self) -> None:
        self.wanted: list[int] = []
        self.tables: dict[int, TableArrays] = {}
        self.states: dict[int, int] = {}
        self.mappings = 0
        self.mappings_room = 10
        self.has_room = True
        self.is_closed = False

    def wanted_exes(self, count: int) -> list[int]:
        return [number for number in self.wanted if number < count]

    def load_table(self, exe: int, table: TableArrays, *, keeps_pointers: bool) -> bool:
        if self.has_room:
            self.tables[exe] = table
        return self.has_room

    def refuse_table(self, exe: int, *, keeps_pointers: bool) -> None:
        self.states[exe] = EXE_WITHOUT_TABLE

    def load_mappings(self, mappings: bytes) -> int | None:
        self.mappings += 1
        return self.mappings if self.mappings <= self.mappings_room else None

    def set_process(self, process: ProcessImage, first: int, size_bytes: int) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


class FakeCopies:
    """Has the copies that a test puts there."""

    def __init__(self) -> None:
        self.is_full = False
        self.waiting: list[CopiedSample] = []

    def fileno(self) -> int:
        return 41

    def drain(self) -> list[CopiedSample]:
        taken, self.waiting = self.waiting, []
        return taken


class FakeTracker:
    """Remembers whose mappings were read."""

    def __init__(self, binaries: Binaries) -> None:
        self.binaries = binaries
        self.table = ProcessTable()
        self.looked: list[int] = []

    def snapshot(self, pids: list[int]) -> None:
        self.looked += pids


class FakeWorker:
    """Remembers what it was asked, and answers what a test puts there."""

    def __init__(self) -> None:
        self.asked: dict[int, int] = {}  # executable: descriptor
        self.waiting: list[TableAnswer] = []
        self.turns: list[TableAnswer] = []  # one for each look, once asked
        self.fd = -1
        self.looks = 0

    @property
    def is_busy(self) -> bool:
        return bool(self.turns)

    def fileno(self) -> int:
        return self.fd

    def ask(self, key: int, descriptor: int) -> None:
        assert key not in self.asked
        self.asked[key] = descriptor

    def answers(self) -> list[TableAnswer]:
        self.looks += 1
        taken = [*self.waiting, *self.turns[:1]]
        self.waiting, self.turns = [], self.turns[1:]
        return taken

    def close(self) -> None:
        self.fd = -1


class FakeCache:
    """Remembers what was kept."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def keep(self, name: str, serialised: bytes) -> None:
        self.kept[name] = serialised


class Around:
    """What is around an unwinder."""

    def __init__(self, binaries: Binaries) -> None:
        self.maps = FakeMaps()
        self.copies = FakeCopies()
        self.tracker = FakeTracker(binaries)
        self.worker = FakeWorker()
        self.cache = FakeCache()

    def unwinder(self) -> Unwinder:
        return Unwinder(self.maps, self.copies, self.tracker, self.worker, self.cache)  # type: ignore[arg-type]


@pytest.fixture
def around(nothing_is_left: None) -> Iterator[Around]:
    with closing(Binaries()) as binaries:
        yield Around(binaries)


@pytest.fixture
def unwinder(around: Around) -> Iterator[Unwinder]:
    with closing(around.unwinder()) as made:
        yield made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return a clock that goes on by `step_s` with each look."""
    clock = SimpleNamespace(now_s=1000.0, step_s=0.0)

    def monotonic() -> float:
        clock.now_s += clock.step_s
        return float(clock.now_s)

    clock.monotonic = monotonic
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def files(tmp_path: Path, around: Around, mapped: Make) -> list[FileMapping]:
    """Return the mappings of two files that are open, of one that is not, and of the vdso."""
    made = []
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        made.append(mapped(str(tmp_path / name), 0x1000 * (len(made) + 1), 0x1000 * (len(made) + 2)))
        around.tracker.binaries.hold(os.getpid(), made[-1])
    return [*made, mapped("/gone", 0x5000, 0x6000), mapped("[vdso]", 0x7000, 0x8000)]


def copied(pid: int) -> CopiedSample:
    return CopiedSample(Sample(pid, 0, 1, 2, b"prog", 0, 0, 1, END_NOT_READY), (0,) * 17, b"")


def built(key: int, *, is_cached: bool = False) -> TableAnswer:
    return TableAnswer(key, f"name-{key}", b"serialised", ARRAYS, False, is_cached, "")


def failed(key: int) -> TableAnswer:
    return TableAnswer(key, "", b"", NO_ARRAYS, False, False, "not an ELF file")


def ask_all(unwinder: Unwinder, around: Around, files: list[FileMapping]) -> None:
    """Let a walk have wanted the tables of all files."""
    around.maps.wanted = [unwinder.executables.number(file) or 0 for file in files]
    unwinder.drain()


def test_wanted_executable_is_asked_for_once(
    unwinder: Unwinder, around: Around, files: list[FileMapping]
) -> None:
    unwinder.executables.number(files[0])
    unwinder.executables.number(files[1])
    around.maps.wanted = [1]
    unwinder.drain()
    unwinder.drain()
    assert around.worker.asked == {1: unwinder.executables[1].descriptor}


def test_file_that_could_not_be_opened_is_refused(
    unwinder: Unwinder, around: Around, files: list[FileMapping]
) -> None:
    ask_all(unwinder, around, files)
    assert sorted(around.worker.asked) == [0, 1, 3]
    assert around.maps.states == {2: EXE_WITHOUT_TABLE}
    assert unwinder.failures == {2: "the file could not be opened"}


def test_vdso_is_given_as_a_file_of_memory(
    unwinder: Unwinder, around: Around, files: list[FileMapping]
) -> None:
    ask_all(unwinder, around, files)
    image = vdso_image()
    assert os.pread(around.worker.asked[3], len(image) + 1, 0) == image


def test_vdso_that_cannot_be_read_is_refused(
    unwinder: Unwinder, around: Around, files: list[FileMapping], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> bytes:
        raise SymbolizeError("this process has no vdso")

    monkeypatch.setattr(module, "vdso_image", refuse)
    ask_all(unwinder, around, files)
    assert sorted(unwinder.failures) == [2, 3]


def test_table_is_loaded_when_it_comes(unwinder: Unwinder, around: Around, files: list[FileMapping]) -> None:
    ask_all(unwinder, around, files)
    around.worker.waiting = [built(1), failed(0)]
    unwinder.drain()
    assert around.maps.tables == {1: ARRAYS}
    assert around.maps.states[0] == EXE_WITHOUT_TABLE
    assert unwinder.failures[0] == "not an ELF file"


def test_built_tables_are_kept_and_cached_ones_are_not_written_again(
    unwinder: Unwinder, around: Around, files: list[FileMapping]
) -> None:
    ask_all(unwinder, around, files)
    around.worker.waiting = [built(0), built(1, is_cached=True), failed(3)]
    unwinder.drain()
    assert around.cache.kept == {"name-0": b"serialised"}
    assert (unwinder.built, unwinder.from_cache) == (1, 1)
    assert sorted(around.maps.tables) == [0, 1]


def test_table_without_room_is_refused_and_kept_for_the_next_capture(
    unwinder: Unwinder, around: Around, files: list[FileMapping]
) -> None:
    ask_all(unwinder, around, files)
    around.maps.has_room = False
    around.worker.waiting = [built(0)]
    unwinder.drain()
    assert unwinder.failures[0] == "no room for its table"
    assert around.maps.states[0] == EXE_WITHOUT_TABLE
    assert around.cache.kept == {"name-0": b"serialised"}


def test_process_of_a_copy_is_looked_at_once_a_second(
    unwinder: Unwinder, around: Around, clock: SimpleNamespace
) -> None:
    around.copies.waiting = [copied(7), copied(7), copied(8)]
    unwinder.drain()
    assert around.tracker.looked == [7, 8]
    clock.now_s += LOOK_AGAIN_S / 2
    around.copies.waiting = [copied(7)]
    unwinder.drain()
    assert around.tracker.looked == [7, 8]
    clock.now_s += LOOK_AGAIN_S / 2
    around.copies.waiting = [copied(7)]
    unwinder.drain()
    assert around.tracker.looked == [7, 8, 7]


def test_process_that_is_not_visible_from_here_is_not_looked_for(unwinder: Unwinder, around: Around) -> None:
    around.copies.waiting = [copied(0)]
    unwinder.drain()
    assert around.tracker.looked == []


def test_whole_processes_have_all_their_tables_before_they_are_wanted(
    unwinder: Unwinder, around: Around, files: list[FileMapping]
) -> None:
    unwinder.start({7}, (), 1.0)
    around.tracker.table.apply(Snapshot(SECOND, 8, 100, (files[0],)))
    unwinder.drain()
    assert around.worker.asked == {}
    around.tracker.table.apply(Snapshot(SECOND, 7, 100, (files[1],)))
    unwinder.drain()
    assert list(around.worker.asked) == [1]


def test_start_waits_for_the_tables_of_a_command(
    unwinder: Unwinder, around: Around, files: list[FileMapping]
) -> None:
    around.worker.turns = [built(0), built(1)]
    unwinder.start((), files[:2], 30.0)
    assert sorted(around.worker.asked) == [0, 1]
    assert sorted(around.maps.tables) == [0, 1]


def test_start_opens_the_files_that_will_be_mapped(
    unwinder: Unwinder, around: Around, tmp_path: Path, mapped: Make
) -> None:
    (tmp_path / "program").write_text("program")
    unwinder.start((), [mapped(str(tmp_path / "program"), 0, 0)], 0.0)
    assert os.pread(around.worker.asked[0], 7, 0) == b"program"


@pytest.mark.parametrize("has_worker", [True, False])
def test_start_waits_no_longer_than_it_may(
    has_worker: bool, unwinder: Unwinder, around: Around, files: list[FileMapping], clock: SimpleNamespace
) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"!")  # something can be read at each look
    around.worker.fd = read_end if has_worker else -1
    around.worker.turns = [built(0)] * 1000
    clock.step_s = 0.25
    unwinder.start((), files[:1], 1.0)
    assert around.worker.looks == 3
    os.close(read_end)
    os.close(write_end)


def test_descriptor_of_the_worker_may_be_any_number(
    unwinder: Unwinder, around: Around, files: list[FileMapping]
) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"!")
    around.worker.fd = 2000  # select(2) knows none beyond 1023
    os.dup2(read_end, around.worker.fd)
    around.worker.turns = [built(0)]
    unwinder.start((), files[:1], 30.0)
    assert 0 in around.maps.tables
    for fd in (read_end, write_end, 2000):
        os.close(fd)


def test_descriptors_to_wait_for_are_those_that_may_have_news(unwinder: Unwinder, around: Around) -> None:
    assert unwinder.filenos() == [41]
    around.worker.fd = 42
    assert unwinder.filenos() == [41, 42]
    around.copies.is_full = True
    assert unwinder.filenos() == [42]


def test_end_takes_the_last_copies_and_ends_the_worker(unwinder: Unwinder, around: Around) -> None:
    around.worker.fd = 42
    around.copies.waiting = [copied(7)]
    unwinder.finish()
    assert around.copies.waiting == []
    assert around.worker.fd == -1
    assert around.tracker.looked == []
    unwinder.close()
    assert around.maps.is_closed


def test_processes_that_found_no_room_are_told(
    unwinder: Unwinder, around: Around, files: list[FileMapping]
) -> None:
    assert unwinder.notes() == []
    around.maps.mappings_room = 1
    for pid, file in enumerate(files[:3], 7):
        around.tracker.table.apply(Snapshot(SECOND, pid, 100, (file,)))
    unwinder.drain()
    assert unwinder.notes() == ["the mappings of 2 processes found no room: their stacks are cut"]
