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
from pyprof.profiler.sideband import ExecEvent, MapEvent
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
        self.waiting: list[CopiedSample] = []
        self.samples: list[CopiedSample] = []
        self.at_drain: Callable[[], object] = int

    def fileno(self) -> int:
        return 41

    def drain(self) -> list[CopiedSample]:
        self.at_drain()
        taken, self.waiting = self.waiting, []
        return taken


class FakeTracker:
    """Remembers whose mappings were read."""

    def __init__(self, binaries: Binaries) -> None:
        self.binaries = binaries
        self.table = ProcessTable()
        self.applied_ns = 0
        self.looked: list[int] = []
        self.at_snapshot: Callable[[], object] = int

    def snapshot(self, pids: list[int]) -> None:
        self.looked += pids
        self.at_snapshot()


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
def boot(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return the clock of side-band events, which stands at `now_ns`."""
    clock = SimpleNamespace(now_ns=10 * SECOND)
    monkeypatch.setattr(module, "boottime_ns", lambda: clock.now_ns)
    return clock


@pytest.fixture
def unwinder(around: Around, boot: SimpleNamespace) -> Iterator[Unwinder]:
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


def copied(pid: int, start_ns: int = SECOND, image_ns: int = 0) -> CopiedSample:
    sample = Sample(pid, 0, start_ns, image_ns, b"prog", 0, 0, 1, END_NOT_READY)
    return CopiedSample(sample, (0,) * 17, b"")


def built(key: int, *, is_cached: bool = False, build_id: str = "name") -> TableAnswer:
    return TableAnswer(key, f"{build_id}-{key}", b"serialised", ARRAYS, False, is_cached, "")


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


def test_table_of_another_file_than_the_one_that_was_mapped_is_refused(
    tmp_path: Path, unwinder: Unwinder, around: Around, mapped: Make
) -> None:
    files = []
    for name, build_id in (("a", "abcd"), ("b", "abcd"), ("c", "abcd"), ("d", "")):
        (tmp_path / name).write_text(name)
        files.append(mapped(str(tmp_path / name), build_id=build_id))
        around.tracker.binaries.hold(os.getpid(), files[-1])
    ask_all(unwinder, around, files)
    ids = ("abcd", "abcd01", "0", "abcd")  # "0": the file has none
    around.worker.waiting = [built(number, build_id=one) for number, one in enumerate(ids)]
    unwinder.drain()
    assert sorted(around.maps.tables) == [0, 3]
    assert around.maps.states == {1: EXE_WITHOUT_TABLE, 2: EXE_WITHOUT_TABLE}
    reason = "the file is another than the one that was mapped"
    assert unwinder.failures == {1: reason, 2: reason}
    assert unwinder.notes() == [f"no unwind table of b: {reason}", f"no unwind table of c: {reason}"]
    assert sorted(around.cache.kept) == ["abcd-0", "abcd-3"]
    assert (unwinder.built, unwinder.from_cache) == (2, 0)


def files_of(around: Around) -> list[list[str] | None]:
    """Return the paths that each kept copy was taken with."""
    found = [one.files for one in around.copies.samples]
    return [None if files is None else [file.mapping.path for file in files] for files in found]


def test_copies_wait_until_the_events_before_them_are_known(
    unwinder: Unwinder, around: Around, boot: SimpleNamespace, mapped: Make
) -> None:
    around.copies.waiting = [copied(7), copied(8)]
    unwinder.drain()
    boot.now_ns += 5
    around.copies.waiting = [copied(9)]
    around.tracker.applied_ns = 10 * SECOND
    unwinder.drain()
    assert around.copies.samples == []
    around.tracker.table.apply(Snapshot(SECOND, 7, 100, (mapped("/bin/a"),)))
    around.tracker.applied_ns = 10 * SECOND + 1
    unwinder.drain()
    assert [one.sample.pid for one in around.copies.samples] == [7, 8]
    assert files_of(around) == [["/bin/a"], None]
    around.tracker.applied_ns = 10 * SECOND + 6
    unwinder.drain()
    assert [one.sample.pid for one in around.copies.samples] == [7, 8, 9]


def test_copy_that_arrives_while_others_are_taken_waits_for_its_own_time(
    unwinder: Unwinder, around: Around, boot: SimpleNamespace
) -> None:
    around.copies.waiting = [copied(7)]
    around.copies.at_drain = lambda: setattr(boot, "now_ns", 10 * SECOND + 5)
    unwinder.drain()
    around.tracker.applied_ns = 10 * SECOND + 5
    unwinder.drain()
    assert around.copies.samples == []
    around.tracker.applied_ns = 10 * SECOND + 6
    unwinder.drain()
    assert len(around.copies.samples) == 1


def test_copy_waits_for_what_was_read_because_of_it(
    unwinder: Unwinder, around: Around, boot: SimpleNamespace
) -> None:
    around.copies.waiting = [copied(7)]
    around.tracker.at_snapshot = lambda: setattr(boot, "now_ns", 10 * SECOND + 5)
    unwinder.drain()
    around.tracker.applied_ns = 10 * SECOND + 5
    unwinder.drain()
    assert around.copies.samples == []


def test_copy_keeps_what_was_mapped_when_it_was_taken(
    unwinder: Unwinder, around: Around, boot: SimpleNamespace, mapped: Make
) -> None:
    around.tracker.table.apply(Snapshot(SECOND, 7, 100, (mapped("/bin/a"),)))
    for time_ns, path in ((11 * SECOND, "/lib/b"), (12 * SECOND, "/lib/c")):
        around.copies.waiting = [copied(7), copied(7)]
        unwinder.drain()
        around.tracker.applied_ns = boot.now_ns + 1
        unwinder.drain()
        around.tracker.table.apply(MapEvent(time_ns, 7, mapped(path, 0x1000, 0x2000)))
        boot.now_ns = time_ns
    first, second, third, fourth = around.copies.samples
    assert files_of(around) == [["/bin/a"]] * 2 + [["/lib/b"]] * 2
    assert first.files is second.files
    assert third.files is fourth.files


def test_copy_has_the_files_of_its_own_program_image(
    unwinder: Unwinder, around: Around, mapped: Make
) -> None:
    table = around.tracker.table
    table.apply(Snapshot(SECOND, 7, 100, (mapped("/bin/first"),)))
    for time_ns, path in ((9 * SECOND, "/bin/second"), (11 * SECOND, "/bin/third")):
        table.apply(ExecEvent(time_ns, 7))
        table.apply(MapEvent(time_ns, 7, mapped(path)))
    # 0: the image that it had when the capture began, at 10 seconds
    around.copies.waiting = [copied(7, image_ns=image_ns) for image_ns in (0, 12 * SECOND)]
    around.copies.waiting.append(copied(7, start_ns=5 * SECOND))  # another process with this number
    unwinder.drain()
    around.tracker.applied_ns = 20 * SECOND
    unwinder.drain()
    assert files_of(around) == [["/bin/second"], ["/bin/third"], None]


def test_process_of_a_copy_is_looked_at_once_a_second(
    unwinder: Unwinder, around: Around, clock: SimpleNamespace
) -> None:
    around.copies.waiting = [copied(7), copied(7), copied(8)]
    unwinder.drain()
    assert sorted(around.tracker.looked) == [7, 8]
    clock.now_s += LOOK_AGAIN_S / 2
    around.copies.waiting = [copied(7)]
    unwinder.drain()
    assert sorted(around.tracker.looked) == [7, 8]
    clock.now_s += LOOK_AGAIN_S / 2
    around.copies.waiting = [copied(7)]
    unwinder.drain()
    assert sorted(around.tracker.looked) == [7, 7, 8]


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


def test_end_takes_the_last_copies_and_ends_the_worker(
    unwinder: Unwinder, around: Around, mapped: Make
) -> None:
    around.worker.fd = 42
    around.tracker.table.apply(Snapshot(SECOND, 7, 100, (mapped("/bin/a"),)))
    for pid in (7, 8):
        around.copies.waiting = [copied(pid)]
        unwinder.drain()
    around.copies.waiting = [copied(9)]
    unwinder.finish()
    assert around.copies.waiting == []
    # what was mapped is looked up when all events are there
    assert [one.sample.pid for one in around.copies.samples] == [7, 8, 9]
    assert files_of(around) == [None, None, None]
    assert around.worker.fd == -1
    assert around.tracker.looked == [7, 8, 9]
    unwinder.finish()
    assert len(around.copies.samples) == 3
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
