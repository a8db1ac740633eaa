"""Perf side-band records, built as the kernel lays them out."""

import os
import struct

from pyprof.profiler.proc import FileMapping
from pyprof.profiler.profile import Mapping
from pyprof.profiler.sideband import (
    ExecEvent,
    ExitEvent,
    ForkEvent,
    LostEvent,
    MapEvent,
    ProcessEvent,
    parse_records,
)

TIME_NS = 123_456_789


def record(kind: int, body: bytes, misc: int = 0, trailer: bytes | None = None) -> bytes:
    if trailer is None:
        trailer = struct.pack("=IIQII", 7, 7, TIME_NS, 1, 0)
    return struct.pack("=IHH", kind, misc, 8 + len(body) + len(trailer)) + body + trailer


def mmap2(identity: bytes, *, misc: int, prot: int = 5, name: bytes = b"/usr/lib/libfoo.so") -> bytes:
    padded = name + b"\0" * (8 - len(name) % 8)
    return record(
        10, struct.pack("=IIQQQ24sII", 7, 7, 0x1000, 0x2000, 0x3000, identity, prot, 2) + padded, misc
    )


def only(image: bytes) -> ProcessEvent:
    (event,) = parse_records(image)
    return event


def test_fork_of_a_process_is_an_event() -> None:
    image = record(7, struct.pack("=IIIIQ", 8, 7, 8, 7, TIME_NS))
    assert only(image) == ForkEvent(TIME_NS, 8, 7)


def test_fork_of_a_thread_is_none() -> None:
    assert list(parse_records(record(7, struct.pack("=IIIIQ", 7, 7, 9, 7, TIME_NS)))) == []


def test_exit_of_the_main_thread_ends_the_process() -> None:
    assert only(record(4, struct.pack("=IIIIQ", 8, 7, 8, 7, TIME_NS))) == ExitEvent(TIME_NS, 8)


def test_exec_is_told_by_its_comm_record() -> None:
    body = struct.pack("=II", 7, 7) + b"ls\0\0\0\0\0\0"
    assert only(record(3, body, misc=1 << 13)) == ExecEvent(TIME_NS, 7)
    assert list(parse_records(record(3, body))) == []  # a mere prctl(PR_SET_NAME)


def test_mapping_carries_its_build_id() -> None:
    identity = bytes([20, 0, 0, 0]) + bytes(range(20))
    expected = Mapping(0x1000, 0x3000, 0x3000, "/usr/lib/libfoo.so", bytes(range(20)).hex())
    assert only(mmap2(identity, misc=1 << 14)) == MapEvent(TIME_NS, 7, FileMapping(expected, 0, 0))


def test_mapping_without_build_id_carries_device_and_inode() -> None:
    event = only(mmap2(struct.pack("=IIQQ", 254, 1, 99, 0), misc=0))
    assert isinstance(event, MapEvent)
    assert (event.file.device, event.file.inode) == (os.makedev(254, 1), 99)


def test_mapping_that_is_not_executable_is_none() -> None:
    assert list(parse_records(mmap2(bytes(24), misc=0, prot=1))) == []


def test_lost_records_are_counted() -> None:
    assert only(record(2, struct.pack("=QQ", 5, 42))) == LostEvent(TIME_NS, 42)


def test_record_of_another_kind_is_passed_over() -> None:
    fork = record(7, struct.pack("=IIIIQ", 8, 7, 8, 7, TIME_NS))
    assert list(parse_records(record(99, bytes(16)) + fork)) == [ForkEvent(TIME_NS, 8, 7)]


def test_cut_record_ends_the_parse() -> None:
    image = record(7, struct.pack("=IIIIQ", 8, 7, 8, 7, TIME_NS))
    assert list(parse_records(image + image[:20])) == [ForkEvent(TIME_NS, 8, 7)]
    assert list(parse_records(struct.pack("=IHH", 7, 0, 0))) == []  # a size of 0 must not loop
