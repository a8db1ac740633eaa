"""What the kernel is told of processes, and when."""

from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest

from pyprof.profiler import mapping_feed
from pyprof.profiler.binaries import Binaries
from pyprof.profiler.executables import Executables
from pyprof.profiler.mapping_feed import MANY_BYTES, SLOW_S, WALK_S, MappingFeed
from pyprof.profiler.proc import FileMapping
from pyprof.profiler.process_table import FORK_SLACK_NS, ProcessTable, Snapshot
from pyprof.profiler.sideband import ExecEvent, ExitEvent, ForkEvent, MapEvent
from pyprof.profiler.unwind_maps import (
    MAPPING_ANONYMOUS,
    MAPPING_FILE,
    MAPPING_SPECIAL,
    MappedCode,
    ProcessImage,
    mapping_bytes,
)

Make = Callable[..., FileMapping]

SECOND = 1_000_000_000
VSYSCALL = 0xFFFF_FFFF_FF60_0000


class FakeMaps:
    """Remembers lists by their place, and which process has which."""

    def __init__(self) -> None:
        self.room = 1000  # lists
        self.lists: dict[int, bytes] = {}  # place: image
        self.processes: dict[int, tuple[ProcessImage, int]] = {}
        self.written = 0
        self.freed: list[int] = []

    def load_mappings(self, image: bytes) -> int | None:
        if len(self.lists) >= self.room:
            return None
        self.written += 1
        self.lists[100 * self.written] = image
        return 100 * self.written

    def free_mappings(self, first: int, size_bytes: int) -> None:
        assert len(self.lists.pop(first)) == size_bytes
        assert first not in {used for _, used in self.processes.values()}
        self.freed.append(first)

    def set_process(self, process: ProcessImage, first: int, size_bytes: int) -> None:
        assert len(self.lists[first]) == size_bytes
        self.processes[process.pid] = process, first

    def forget_process(self, pid: int) -> None:
        del self.processes[pid]

    def image(self, pid: int) -> bytes:
        """Return the list that a process has."""
        return self.lists[self.processes[pid][1]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return a clock that stands at `now_s`."""
    clock = SimpleNamespace(now_s=1000.0)
    clock.monotonic = lambda: clock.now_s
    monkeypatch.setattr(mapping_feed, "time", clock)
    return clock


@pytest.fixture
def maps() -> FakeMaps:
    return FakeMaps()


@pytest.fixture
def table() -> ProcessTable:
    return ProcessTable()


@pytest.fixture
def feed(maps: FakeMaps, table: ProcessTable, clock: SimpleNamespace) -> Iterator[MappingFeed]:
    with closing(Binaries(proc="/nonexistent")) as binaries:
        yield MappingFeed(maps, table, Executables(binaries))  # type: ignore[arg-type]


def process(pid: int, *files: FileMapping) -> Snapshot:
    return Snapshot(SECOND, pid, 100, files)


def code(file: FileMapping, exe: int = 0, kind: int = MAPPING_FILE) -> MappedCode:
    start, limit, offset, *_ = file.mapping
    return MappedCode(start, limit, offset, exe, kind)


def many(mapped: Make, count: int = MANY_BYTES // 32 + 1) -> list[FileMapping]:
    return [mapped("/bin/a", 0x10000 * number, 0x10000 * number + 0x1000) for number in range(1, count + 1)]


def test_process_is_told_once_with_its_mappings_and_its_start(
    feed: MappingFeed, maps: FakeMaps, table: ProcessTable, mapped: Make
) -> None:
    files = (mapped("/bin/a"), mapped("/bin/b", 0x5000, 0x7000, file_offset=0x3000))
    table.apply(process(7, *files))
    assert feed.publish() == [7]
    assert maps.image(7) == mapping_bytes([code(files[0]), code(files[1], 1)])
    assert maps.processes[7][0] == ProcessImage(7, SECOND, SECOND + 10_000_000, 0)
    assert feed.publish() == []
    table.apply(process(7, *files))  # nothing new
    assert feed.publish() == []
    assert maps.written == 1


def test_nothing_is_told_before_a_mapping_is_known(
    feed: MappingFeed, maps: FakeMaps, table: ProcessTable, mapped: Make
) -> None:
    table.apply(ForkEvent(2 * SECOND, 8, 7))  # of a process that was not seen yet
    assert feed.publish() == []
    assert maps.processes == {}
    table.apply(MapEvent(3 * SECOND, 8, mapped()))
    assert feed.publish() == [8]


def test_new_mapping_is_told_beside_the_old_list(
    feed: MappingFeed, maps: FakeMaps, table: ProcessTable, mapped: Make
) -> None:
    table.apply(process(7, mapped("/bin/a")))
    feed.publish()
    table.apply(MapEvent(2 * SECOND, 7, mapped("/bin/b", 0x5000, 0x6000)))
    assert feed.publish() == []
    assert maps.processes[7][1] == 200
    assert set(maps.lists) == {100, 200}


def test_old_list_is_reused_only_when_no_walk_can_read_it(
    feed: MappingFeed, maps: FakeMaps, table: ProcessTable, mapped: Make, clock: SimpleNamespace
) -> None:
    table.apply(process(7, mapped("/bin/a")))
    feed.publish()
    table.apply(MapEvent(2 * SECOND, 7, mapped("/bin/b", 0x5000, 0x6000)))
    feed.publish()
    clock.now_s += WALK_S / 2
    feed.publish()
    assert maps.freed == []
    clock.now_s += WALK_S
    feed.publish()
    assert maps.freed == [100]
    assert set(maps.lists) == {200}


def test_child_shares_the_list_of_its_parent_until_one_changes(
    feed: MappingFeed, maps: FakeMaps, table: ProcessTable, mapped: Make, clock: SimpleNamespace
) -> None:
    table.apply(process(7, mapped("/bin/a")))
    table.apply(ForkEvent(5 * SECOND, 8, 7))
    assert sorted(feed.publish()) == [7, 8]
    assert maps.written == 1
    assert maps.processes[8] == (ProcessImage(8, 5 * SECOND - FORK_SLACK_NS, 5 * SECOND, 0), 100)
    table.apply(MapEvent(6 * SECOND, 8, mapped("/bin/b", 0x5000, 0x6000)))
    feed.publish()
    clock.now_s += 2 * WALK_S
    feed.publish()
    assert (maps.processes[7][1], maps.processes[8][1]) == (100, 200)
    assert maps.freed == []  # the parent still has it
    table.apply(ExitEvent(7 * SECOND, 7))
    feed.publish()
    clock.now_s += 2 * WALK_S
    feed.publish()
    assert maps.freed == [100]


def test_list_that_comes_back_is_not_the_one_that_is_about_to_be_freed(
    feed: MappingFeed, maps: FakeMaps, table: ProcessTable, mapped: Make, clock: SimpleNamespace
) -> None:
    for pid in (7, 8):
        table.apply(process(pid, mapped("/bin/a")))
        feed.publish()
        table.apply(ExitEvent(2 * SECOND, pid))
        feed.publish()
    table.apply(process(9, mapped("/bin/a")))
    feed.publish()
    clock.now_s += 2 * WALK_S
    feed.publish()
    assert maps.freed == [100, 200]
    assert maps.processes[9][1] == 300


def test_exec_is_told_by_its_time_and_with_the_mappings_of_the_new_image(
    feed: MappingFeed, maps: FakeMaps, table: ProcessTable, mapped: Make
) -> None:
    table.apply(process(7, mapped("/bin/sh")))
    feed.publish()
    table.apply(ExecEvent(3 * SECOND, 7))
    assert feed.publish() == []
    assert maps.processes == {}  # the old ones are gone, the new ones not there yet
    new = mapped("/bin/ls", 0x9000, 0xA000)
    table.apply(MapEvent(3 * SECOND + 5, 7, new))
    assert feed.publish() == [7]
    assert maps.processes[7][0].exec_ns == 3 * SECOND
    assert maps.image(7) == mapping_bytes([code(new, 1)])


def test_exec_of_the_same_program_keeps_the_list(
    feed: MappingFeed, maps: FakeMaps, table: ProcessTable, mapped: Make, clock: SimpleNamespace
) -> None:
    table.apply(process(7, mapped("/bin/sh")))
    feed.publish()
    table.apply(ExecEvent(3 * SECOND, 7))
    table.apply(MapEvent(3 * SECOND + 5, 7, mapped("/bin/sh")))
    assert feed.publish() == []
    assert maps.processes[7] == (ProcessImage(7, SECOND, SECOND + 10_000_000, 3 * SECOND), 100)
    clock.now_s += 2 * WALK_S
    feed.publish()
    assert maps.freed == []


def test_exit_forgets_the_process(
    feed: MappingFeed, maps: FakeMaps, table: ProcessTable, mapped: Make
) -> None:
    table.apply(process(7, mapped()))
    feed.publish()
    table.apply(ExitEvent(2 * SECOND, 7))
    assert feed.publish() == []
    assert maps.processes == {}
    table.apply(ForkEvent(9 * SECOND, 7, 1))
    table.apply(MapEvent(9 * SECOND, 7, mapped()))
    assert feed.publish() == [7]
    assert maps.processes[7][0] == ProcessImage(7, 8 * SECOND, 9 * SECOND, 0)


def test_process_that_came_and_went_between_two_calls_is_not_told(
    feed: MappingFeed, maps: FakeMaps, table: ProcessTable, mapped: Make
) -> None:
    table.apply(process(7, mapped()))
    table.apply(ExitEvent(2 * SECOND, 7))
    assert feed.publish() == []
    assert maps.written == 0


def test_mappings_without_a_file_are_told_by_their_kind_and_vsyscall_not_at_all(
    feed: MappingFeed, maps: FakeMaps, table: ProcessTable, mapped: Make
) -> None:
    files = [
        mapped("//anon", 0x1000, 0x2000),
        mapped("[uprobes]", 0x3000, 0x4000),
        mapped("[vdso]", 0x5000, 0x6000),
        mapped("[vsyscall]", VSYSCALL, VSYSCALL + 0x1000),
    ]
    table.apply(process(7, *files))
    feed.publish()
    kinds = (MAPPING_ANONYMOUS, MAPPING_SPECIAL, MAPPING_FILE)
    expected = [code(file, kind=kind) for file, kind in zip(files, kinds, strict=False)]
    assert maps.image(7) == mapping_bytes(expected)


def test_code_too_far_into_its_file_is_as_without_a_file(
    feed: MappingFeed, maps: FakeMaps, table: ProcessTable, mapped: Make
) -> None:
    file = mapped("/sparse", 0x1000, 0x3000, file_offset=(1 << 40) - 0x1000)
    table.apply(process(7, file))
    feed.publish()
    assert maps.image(7) == mapping_bytes([code(file, kind=MAPPING_ANONYMOUS)])
    assert feed.executables_of(7) == []


def test_long_list_is_written_anew_only_now_and_then(
    feed: MappingFeed, maps: FakeMaps, table: ProcessTable, mapped: Make, clock: SimpleNamespace
) -> None:
    table.apply(process(7, *many(mapped)))
    table.apply(process(8, mapped()))
    feed.publish()
    for number in range(5):
        for pid in (7, 8):
            place = 0x1000_0000 + 0x1000 * number
            table.apply(MapEvent(2 * SECOND + number, pid, mapped("/lib/b", place, place + 0x1000)))
        feed.publish()
        clock.now_s += SLOW_S / 25
    assert maps.written == 2 + 5  # of the short list each time
    assert len(maps.image(7)) == len(many(mapped)) * 32
    clock.now_s += SLOW_S
    feed.publish()  # without a further change
    assert maps.written == 2 + 5 + 1
    assert len(maps.image(7)) == (len(many(mapped)) + 5) * 32


def test_longer_list_is_written_anew_less_often(
    feed: MappingFeed, maps: FakeMaps, table: ProcessTable, mapped: Make, clock: SimpleNamespace
) -> None:
    for count, wait_s in ((257, SLOW_S / 4), (1024, SLOW_S), (4096, 4 * SLOW_S)):
        table.apply(process(count, *many(mapped, count)))
        feed.publish()
        written = maps.written
        table.apply(MapEvent(2 * SECOND, count, mapped("/lib/b", 0x5000, 0x6000)))
        clock.now_s += 0.99 * wait_s
        feed.publish()
        assert maps.written == written
        clock.now_s += 0.02 * wait_s
        feed.publish()
        assert maps.written == written + 1
        assert len(maps.image(count)) == (count + 1) * 32


def test_mappings_beyond_the_search_make_no_executables(
    feed: MappingFeed, maps: FakeMaps, table: ProcessTable, mapped: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping_feed, "MAX_MAPPINGS", 2)
    files = [mapped(f"/bin/{number}", number << 12, (number + 1) << 12) for number in range(1, 5)]
    table.apply(process(7, *files))
    feed.publish()
    assert maps.image(7) == mapping_bytes([code(files[0]), code(files[1], 1)])
    assert len(feed._executables) == 2


def test_process_without_room_is_counted_and_told_when_there_is_some(
    feed: MappingFeed, maps: FakeMaps, table: ProcessTable, mapped: Make
) -> None:
    maps.room = 1
    table.apply(process(7, mapped("/bin/a")))
    feed.publish()
    table.apply(process(8, mapped("/bin/b")))
    assert feed.publish() == []
    assert (feed.refused, set(maps.processes)) == (1, {7})
    maps.room = 2
    table.apply(process(8, mapped("/bin/b")))
    assert feed.publish() == [8]
    assert feed.refused == 1


def test_process_whose_new_list_has_no_room_is_forgotten_rather_than_told_wrongly(
    feed: MappingFeed, maps: FakeMaps, table: ProcessTable, mapped: Make
) -> None:
    maps.room = 1
    table.apply(process(7, mapped("/bin/a")))
    feed.publish()
    table.apply(MapEvent(2 * SECOND, 7, mapped("/bin/b")))
    feed.publish()
    assert (feed.refused, maps.processes) == (1, {})


def test_number_of_processes_is_bounded(
    feed: MappingFeed, maps: FakeMaps, table: ProcessTable, mapped: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping_feed, "PROCESSES", 2)
    for pid in (7, 8, 9):
        table.apply(process(pid, mapped()))
    assert len(feed.publish()) == 2
    assert feed.refused == 1
    known = sorted(maps.processes)[0]
    table.apply(ExecEvent(2 * SECOND, known))
    table.apply(MapEvent(2 * SECOND, known, mapped("/bin/b")))
    feed.publish()
    assert maps.processes[known][0].exec_ns == 2 * SECOND  # a known one is never refused for it


def test_executables_are_those_that_a_process_has_mapped_now(
    feed: MappingFeed, table: ProcessTable, mapped: Make
) -> None:
    table.apply(process(7, mapped("/bin/sh")))
    table.apply(ExecEvent(2 * SECOND, 7))
    files = (("/bin/a", 0x1000), ("//anon", 0x2000), ("/bin/b", 0x3000), ("/bin/a", 0x4000))
    for path, start in files:
        table.apply(MapEvent(3 * SECOND, 7, mapped(path, start, start + 0x1000)))
    assert feed.executables_of(7) == [0, 1]
    assert feed.executables_of(8) == []
