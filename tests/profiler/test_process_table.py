"""The process table: which image a sample belongs to, whatever the process did before and after."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyprof.profiler.proc import FileMapping
from pyprof.profiler.process_table import FORK_SLACK_NS, EventOrder, Image, ProcessTable, Snapshot
from pyprof.profiler.profile import Mapping
from pyprof.profiler.sideband import ExecEvent, ExitEvent, ForkEvent, LostEvent, MapEvent, ProcessEvent

SECOND = 1_000_000_000


def file(start: int, limit: int, path: str = "/bin/a") -> FileMapping:
    return FileMapping(Mapping(start, limit, 0, path), 0, 0)


def image_of(*files: FileMapping) -> Image:
    image = Image(0)
    for one in files:
        image.insert(one)
    return image


def path_at(image: Image | None, address: int) -> str | None:
    found = image.find(address) if image else None
    return found.mapping.path if found else None


def test_mapping_is_half_open() -> None:
    image = image_of(file(0x1000, 0x2000))
    assert [path_at(image, address) for address in (0xFFF, 0x1000, 0x1FFF, 0x2000)] == [
        None,
        "/bin/a",
        "/bin/a",
        None,
    ]


def test_newer_mapping_replaces_what_it_covers() -> None:
    image = image_of(file(0x1000, 0x2000, "/old1"), file(0x2000, 0x3000, "/old2"), file(0x9000, 0xA000))
    image.insert(file(0x1800, 0x2800, "/new"))
    assert [path_at(image, address) for address in (0x17FF, 0x1800, 0x27FF, 0x2800)] == [
        "/old1",
        "/new",
        "/new",
        "/old2",
    ]
    rest = image.find(0x2800)
    assert rest is not None
    assert rest.mapping.file_offset == 0x800
    assert path_at(image, 0x9000) == "/bin/a"


def test_forked_child_has_its_parents_mappings_of_that_moment() -> None:
    table = ProcessTable()
    table.apply(Snapshot(1, 7, 0, (file(0x1000, 0x2000),)))
    table.apply(ForkEvent(5 * SECOND, 8, 7))
    table.apply(MapEvent(6 * SECOND, 7, file(0x5000, 0x6000, "/late")))
    child = table.find(8, 5 * SECOND - 1000, 0)
    assert path_at(child, 0x1000) == "/bin/a"
    assert path_at(child, 0x5000) is None


def test_exec_begins_an_image_of_its_own() -> None:
    table = ProcessTable()
    table.apply(Snapshot(1, 7, 100, (file(0x1000, 0x2000, "/bin/sh"),)))
    table.apply(ExecEvent(2 * SECOND, 7))
    table.apply(MapEvent(2 * SECOND + 1, 7, file(0x1000, 0x2000, "/bin/ls")))
    assert path_at(table.find(7, SECOND, 0), 0x1000) == "/bin/sh"
    assert path_at(table.find(7, SECOND, 2 * SECOND + 5), 0x1000) == "/bin/ls"


def test_reused_pid_is_a_new_process() -> None:
    table = ProcessTable()
    for start, path in ((1, "/bin/one"), (2, "/bin/two")):
        table.apply(ForkEvent(start * SECOND, 9, 1))
        table.apply(MapEvent(start * SECOND + 1, 9, file(0x1000, 0x2000, path)))
        table.apply(ExitEvent(start * SECOND + 2, 9))
    assert path_at(table.find(9, SECOND - 500, 0), 0x1000) == "/bin/one"
    assert path_at(table.find(9, 2 * SECOND - 500, 0), 0x1000) == "/bin/two"


def test_process_that_was_never_seen_has_no_image() -> None:
    assert ProcessTable().find(7, SECOND, 0) is None


def test_snapshot_does_not_overwrite_what_an_event_told() -> None:
    table = ProcessTable()
    with_build_id = FileMapping(Mapping(0x1000, 0x2000, 0, "/bin/a", "abcd"), 0, 0)
    table.apply(Snapshot(1, 7, 100, ()))
    table.apply(MapEvent(2, 7, with_build_id))
    table.apply(Snapshot(3, 7, 100, (file(0x1000, 0x2000),)))
    image = table.find(7, SECOND, 0)
    assert image is not None
    assert image.find(0x1000) == with_build_id


def test_ended_processes_are_forgotten_oldest_first_and_counted() -> None:
    table = ProcessTable(max_ended=2)
    for pid in (1, 2, 3):
        table.apply(ForkEvent(pid * SECOND, pid, 99))
        table.apply(ExitEvent(pid * SECOND + 1, pid))
    assert table.find(1, SECOND, 0) is None
    assert table.find(3, 3 * SECOND, 0) is not None
    assert table.dropped == 1


def test_lost_events_add_up() -> None:
    table = ProcessTable()
    table.apply(LostEvent(1, 3))
    table.apply(LostEvent(2, 4))
    assert table.lost_events == 7


def test_events_of_several_cpus_come_out_in_order_of_time() -> None:
    order = EventOrder()
    order.add([ExitEvent(5, 1), ExitEvent(9, 2)])
    order.add([ExitEvent(3, 3), ExitEvent(7, 4)])
    assert [event.time_ns for event in order.release(8)] == [3, 5, 7]
    order.add([ExitEvent(8, 5)])
    assert [event.time_ns for event in order.release(100)] == [8, 9]


def test_child_forked_before_its_parent_was_read_gets_the_mappings_later() -> None:
    table = ProcessTable()
    table.apply(ForkEvent(5 * SECOND, 8, 7))
    table.apply(Snapshot(6 * SECOND, 7, 100, (file(0x1000, 0x2000),)))
    assert path_at(table.find(8, 5 * SECOND - 1000, 0), 0x1000) == "/bin/a"


def test_forks_share_mappings_until_one_changes() -> None:
    parent = image_of(file(0x1000, 0x2000))
    child = parent.copy(1)
    grandchild = child.copy(2)
    child.insert(file(0x5000, 0x6000, "/child"))
    parent.insert(file(0x5000, 0x6000, "/parent"))
    assert [path_at(image, 0x5000) for image in (parent, child, grandchild)] == ["/parent", "/child", None]
    assert [path_at(image, 0x1000) for image in (parent, child, grandchild)] == ["/bin/a"] * 3


def test_exec_before_the_program_was_there_to_note_it_counts() -> None:
    table = ProcessTable()
    table.apply(ForkEvent(2 * SECOND, 8, 7))
    table.apply(ExecEvent(3 * SECOND, 8))
    table.apply(MapEvent(3 * SECOND + 1, 8, file(0x1000, 0x2000, "/bin/new")))
    assert path_at(table.find(8, 2 * SECOND - 5, 4 * SECOND), 0x1000) == "/bin/new"


def test_events_from_outside_the_pid_namespace_are_nobodys() -> None:
    table = ProcessTable()
    table.apply(MapEvent(1, 0, file(0x1000, 0x2000)))
    table.apply(ForkEvent(2, 9, 0xFFFFFFFF))
    assert table.find(0, 0, 5) is None
    assert path_at(table.find(9, 2, 5), 0x1000) is None


@pytest.mark.parametrize(
    "event",
    [
        MapEvent(1, 7, file(0x1000, 0x2000)),
        ForkEvent(1, 7, 1),
        ExecEvent(1, 7),
        ExitEvent(1, 7),
        Snapshot(1, 7, 0, ()),
    ],
)
def test_each_event_of_a_process_marks_it_as_changed(event: ProcessEvent | Snapshot) -> None:
    table = ProcessTable()
    table.apply(event)
    assert table.changed == {7}


def test_nobody_changes_by_what_is_of_no_process() -> None:
    table = ProcessTable()
    table.apply(LostEvent(1, 3))
    table.apply(MapEvent(1, 0, file(0x1000, 0x2000)))
    table.apply(ExitEvent(1, 0xFFFFFFFF))
    assert table.changed == set()


def test_living_is_the_process_that_has_the_number_now() -> None:
    table = ProcessTable()
    assert table.living(9) is None
    table.apply(ForkEvent(SECOND, 9, 1))
    first = table.living(9)
    assert first is not None
    table.apply(ExitEvent(2 * SECOND, 9))
    assert table.living(9) is None
    table.apply(ForkEvent(3 * SECOND, 9, 1))
    second = table.living(9)
    assert second is not None
    assert second is not first


def test_exec_time_is_of_the_last_image_and_none_of_the_first() -> None:
    table = ProcessTable()
    table.apply(ForkEvent(SECOND, 9, 1))
    process = table.living(9)
    assert process is not None
    assert process.exec_ns == 0
    for time_ns in (2 * SECOND, 3 * SECOND):
        table.apply(ExecEvent(time_ns, 9))
        assert process.exec_ns == time_ns


def test_child_of_a_process_that_called_exec_has_its_own_first_image() -> None:
    table = ProcessTable()
    table.apply(ExecEvent(2 * SECOND, 7))
    table.apply(ForkEvent(3 * SECOND, 8, 7))
    child = table.living(8)
    assert child is not None
    assert child.exec_ns == 0


def test_start_is_as_exact_as_its_source() -> None:
    table = ProcessTable()
    table.apply(ForkEvent(5 * SECOND, 8, 1))
    table.apply(Snapshot(6 * SECOND, 7, 123, ()))
    table.apply(ExecEvent(7 * SECOND, 6))
    ranges = []
    for pid in (8, 7, 6):
        process = table.living(pid)
        assert process is not None
        ranges.append(process.start_range_ns)
    tick_ns = 10_000_000
    assert ranges == [
        (5 * SECOND - FORK_SLACK_NS, 5 * SECOND),
        (123 * tick_ns, 124 * tick_ns),
        (0, 7 * SECOND),  # it was there before the first event
    ]


def test_files_of_an_image_are_its_own_over_those_of_its_base() -> None:
    base = image_of(file(0x1000, 0x3000, "/base"), file(0x5000, 0x6000, "/base"))
    child = Image(0, base=base)
    assert child.files() == base.files()
    child.insert(file(0x2000, 0x4000, "/own"))
    found = [(one.mapping.start, one.mapping.limit, one.mapping.path) for one in child.files()]
    assert found == [(0x1000, 0x2000, "/base"), (0x2000, 0x4000, "/own"), (0x5000, 0x6000, "/base")]
    assert len(base.files()) == 2


def test_files_follow_a_base_that_becomes_known_later() -> None:
    base = Image(0)
    child = base.copy(1)
    grandchild = child.copy(2)
    base.insert(file(0x1000, 0x2000))
    assert grandchild.files() == child.files() == base.files() != []


def test_long_chain_of_forks_of_unknown_images_is_looked_up_without_recursion() -> None:
    table = ProcessTable()
    for pid in range(8, 5008):
        table.apply(ForkEvent(pid * SECOND, pid, pid - 1))
    last = table.living(5007)
    assert last is not None
    image = last.images[-1]
    assert (image.files(), image.frozen_files(), image.find(0x1000)) == ([], (), None)
    table.apply(
        Snapshot(6000 * SECOND, 7, 100, (file(0x1000, 0x2000),))
    )  # the first of them is known at last
    assert image.files() == list(image.frozen_files()) == [file(0x1000, 0x2000)]
    assert path_at(image, 0x1000) == "/bin/a"


def test_frozen_files_are_the_same_until_one_changes() -> None:
    image = image_of(file(0x5000, 0x6000), file(0x1000, 0x2000))
    frozen = image.frozen_files()
    assert frozen == (file(0x1000, 0x2000), file(0x5000, 0x6000))
    assert image.frozen_files() is frozen
    image.insert(file(0x1000, 0x2000))  # equal: no change
    assert image.frozen_files() is frozen
    image.insert(file(0x3000, 0x4000, "/lib/b"))
    assert image.frozen_files() == (frozen[0], file(0x3000, 0x4000, "/lib/b"), frozen[1])
    assert image.frozen_files() is image.frozen_files()
    assert len(frozen) == 2


def test_frozen_files_outlive_a_snapshot_that_tells_nothing_new() -> None:
    table = ProcessTable()
    snapshot = Snapshot(SECOND, 7, 100, (file(0x1000, 0x2000),))
    table.apply(snapshot)
    process = table.living(7)
    assert process is not None
    frozen = process.images[-1].frozen_files()
    table.apply(snapshot._replace(time_ns=2 * SECOND))
    assert process.images[-1].frozen_files() is frozen


def test_frozen_files_follow_the_base_until_the_image_stands_alone() -> None:
    base = image_of(file(0x1000, 0x2000))
    child = Image(0, base=base)
    assert child.frozen_files() == base.frozen_files() == (file(0x1000, 0x2000),)
    base.insert(file(0x3000, 0x4000))
    assert child.frozen_files() == (file(0x1000, 0x2000), file(0x3000, 0x4000))
    child.stand_alone()
    assert child.frozen_files() == ()


def test_equal_mapping_changes_nothing_that_parent_and_child_share() -> None:
    parent = image_of(file(0x1000, 0x2000), file(0x5000, 0x6000))
    child = parent.copy(SECOND)
    child.insert(file(0x5000, 0x6000))
    assert child.files() is parent.files()
    child.insert(file(0x5000, 0x6000, "/lib/b"))
    assert [path_at(image, 0x5000) for image in (parent, child)] == ["/bin/a", "/lib/b"]


@pytest.mark.parametrize(
    "other",
    [
        file(0x1000, 0x1800),
        file(0x1000, 0x3000),
        file(0x1000, 0x2000, "/bin/b"),
        file(0x1000, 0x2000)._replace(inode=5),
        FileMapping(Mapping(0x1000, 0x2000, 0, "/bin/a", "abcd"), 0, 0),
    ],
)
def test_mapping_that_is_not_equal_takes_its_place(other: FileMapping) -> None:
    image = image_of(file(0x1000, 0x2000))
    image.insert(other)
    assert image.find(0x1000) == other


PIECES = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), max_size=8)


@given(PIECES, PIECES)
def test_files_are_what_is_found_at_each_address(
    old: list[tuple[int, int]], new: list[tuple[int, int]]
) -> None:
    image = Image(0, base=image_of(*(file(start, start + size, "/base") for start, size in old)))
    for start, size in new:
        image.insert(file(start, start + size, "/own"))
    files = image.files()
    assert [one.mapping.start for one in files] == sorted(one.mapping.start for one in files)
    for address in range(45):
        holders = [one.mapping for one in files if one.mapping.start <= address < one.mapping.limit]
        assert [mapping.path for mapping in holders] == [path_at(image, address)] * len(holders)
        assert len(holders) == (path_at(image, address) is not None)


def test_image_that_stands_alone_has_nothing_of_its_base() -> None:
    image = Image(0, base=image_of(file(0x1000, 0x2000)))
    image.insert(file(0x5000, 0x6000, "/own"))
    image.stand_alone()
    assert [one.mapping.path for one in image.files()] == ["/own"]
    assert path_at(image, 0x1000) is None


def test_snapshot_ends_what_a_child_has_of_its_parent() -> None:
    table = ProcessTable()
    table.apply(ForkEvent(5 * SECOND, 8, 7))
    table.apply(Snapshot(6 * SECOND, 8, 500, (file(0x5000, 0x6000, "/child"),)))
    table.apply(Snapshot(6 * SECOND, 7, 100, (file(0x1000, 0x2000, "/parent"),)))
    child = table.living(8)
    assert child is not None
    assert [one.mapping.path for one in child.images[-1].files()] == ["/child"]


def test_process_whose_main_thread_has_ended_lives_on_when_it_is_seen_again() -> None:
    table = ProcessTable()
    table.apply(Snapshot(SECOND, 7, 100, (file(0x1000, 0x2000),)))
    table.apply(ExitEvent(2 * SECOND, 7))
    assert table.living(7) is None
    table.apply(Snapshot(3 * SECOND, 7, 100, (file(0x1000, 0x2000),)))
    process = table.living(7)
    assert process is not None
    assert path_at(process.images[-1], 0x1000) == "/bin/a"
