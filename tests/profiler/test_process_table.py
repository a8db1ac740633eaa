"""The process table: which image a sample belongs to, whatever the process did before and after."""

from pyprof.profiler.proc import FileMapping
from pyprof.profiler.process_table import EventOrder, Image, ProcessTable, Snapshot
from pyprof.profiler.profile import Mapping
from pyprof.profiler.sideband import ExecEvent, ExitEvent, ForkEvent, LostEvent, MapEvent

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
