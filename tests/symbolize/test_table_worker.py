"""Tables made by the worker: equal to those made here, and never more than one file lost."""

import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cfiwriter import Fde, elf_with_frames
from tablewriter import NAME, Size, framed, sized

from pyprof.symbolize import layout, table_job, table_worker
from pyprof.symbolize.layout import elf_layout
from pyprof.symbolize.table_job import TableJob
from pyprof.symbolize.table_worker import TableAnswer, TableArrays, TableWorker
from pyprof.symbolize.unwind_table import unwind_table

pytestmark = pytest.mark.usefixtures("nothing_is_left")

GOOD = elf_with_frames([Fde(0, 0x10), Fde(0x10, 0x20, b"\x0e\x20")])
BOMB = b"\x7fELF bomb "
LONG_S = 30.0  # a test that waits for it has failed

Open = Callable[[bytes], int]


def arrays(image: bytes) -> TableArrays:
    """Return the table as it is made in this process."""
    return TableArrays(*unwind_table(image, elf_layout(image)))


class Cache:
    """Tables by name, as descriptors."""

    def __init__(self) -> None:
        self.tables: dict[str, bytes] = {}
        self.asked: list[str] = []

    def open(self, name: str) -> int:
        self.asked.append(name)
        if name not in self.tables:
            return -1
        descriptor = os.memfd_create(name)
        os.write(descriptor, self.tables[name])
        return descriptor


@pytest.fixture
def cache() -> Cache:
    return Cache()


@pytest.fixture
def worker(cache: Cache, nothing_is_left: None) -> Iterator[TableWorker]:
    with closing(TableWorker(cache.open, timeout_s=LONG_S)) as made:
        yield made


@pytest.fixture
def hasty(cache: Cache, nothing_is_left: None) -> Iterator[TableWorker]:
    """Return a worker that is given little time."""
    with closing(TableWorker(cache.open, timeout_s=0.3)) as made:
        yield made


@pytest.fixture
def opened(nothing_is_left: None) -> Iterator[Open]:
    """Return a function from a file's bytes to a descriptor."""
    made: list[int] = []

    def open_(contents: bytes) -> int:
        made.append(os.memfd_create("file"))
        os.write(made[-1], contents)
        return made[-1]

    yield open_
    for descriptor in made:
        os.close(descriptor)


def answers(worker: TableWorker, count: int = 1) -> list[TableAnswer]:
    """Return so many answers, as they arrive."""
    deadline_s = time.monotonic() + LONG_S
    found: list[TableAnswer] = []
    while len(found) < count and time.monotonic() < deadline_s:
        if worker.fileno() >= 0:
            select.select([worker.fileno()], [], [], 0.05)
        found += worker.answers()
    assert len(found) == count
    return found


def failures(worker: TableWorker, count: int = 1) -> list[str]:
    return [answer.failure for answer in answers(worker, count)]


@pytest.fixture
def bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let some files do in the worker what a hostile file would do to a parser."""
    real = table_job._exchange

    def exchange(parent: socket.socket, descriptor: int) -> None:
        start = os.pread(descriptor, 100, 0)
        kind = start.removeprefix(BOMB) if start.startswith(BOMB) else b""
        if kind == b"memory":
            bytes(1 << 40)
        elif kind == b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif kind == b"bug":
            raise KeyError("deep inside")
        elif kind == b"sleep":
            time.sleep(LONG_S)
        elif kind == b"middle":
            table_job._send(parent, {"name": NAME})
            table_job._received(parent)
            header = {"size": 1000, "arrays": [8, 0, 16], "first_block": 0, "is_cached": False}
            table_job._send(parent, header, bytes(999))
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            real(parent, descriptor)

    monkeypatch.setattr(table_job, "_exchange", exchange)


def test_table_is_the_one_that_is_made_here(worker: TableWorker, opened: Open) -> None:
    worker.ask(7, opened(GOOD))
    assert worker.is_busy
    (answer,) = answers(worker)
    assert (answer.key, answer.arrays, answer.is_cached, answer.failure) == (7, arrays(GOOD), False, "")
    assert not worker.is_busy


def test_table_of_a_real_program_is_the_one_that_is_made_here(worker: TableWorker) -> None:
    with open("/bin/true", "rb") as file:
        worker.ask(1, file.fileno())
        (answer,) = answers(worker)
    assert answer.arrays == arrays(Path("/bin/true").read_bytes())


def test_answers_come_in_the_order_of_the_files(worker: TableWorker, opened: Open) -> None:
    images = [elf_with_frames([Fde(0, 0x10 * size)]) for size in range(1, 6)]
    for key, image in enumerate(images):
        worker.ask(key, opened(image))
    found = answers(worker, len(images))
    assert [(one.key, one.arrays) for one in found] == [(k, arrays(one)) for k, one in enumerate(images)]


def test_nothing_is_answered_before_it_is_asked(worker: TableWorker) -> None:
    assert worker.answers() == []
    assert worker.fileno() == -1
    worker.start()
    number = worker.fileno()
    worker.start()
    assert worker.fileno() == number >= 0
    assert worker.answers() == []
    assert not worker.is_busy


def test_process_id_is_the_workers_while_there_is_one(worker: TableWorker) -> None:
    assert worker.pid == 0
    worker.start()
    assert Path(f"/proc/{worker.pid}/stat").read_text().split()[3] == str(os.getpid())
    worker.close()
    assert worker.pid == 0


@pytest.mark.usefixtures("bombs")
def test_each_worker_that_starts_is_told_once(worker: TableWorker, opened: Open) -> None:
    pids: list[int] = []
    worker.on_start = pids.append
    worker.start()
    worker.start()
    assert pids == [worker.pid]
    for key, contents in enumerate([GOOD, BOMB + b"crash", GOOD]):
        worker.ask(key, opened(contents))
    assert failures(worker, 3) == ["", "table worker was ended by signal 11", ""]
    assert pids == [pids[0], worker.pid]
    assert pids[0] != pids[1] != 0


@pytest.mark.parametrize(("build_id", "told"), [("", "0"), ("0b" * 20, "0b" * 20), ("0b0e", "0b0e")])
def test_answer_tells_the_build_id_of_the_file(
    build_id: str, told: str, worker: TableWorker, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "build_id", lambda *_: build_id)
    worker.ask(1, opened(GOOD))
    assert [one.build_id for one in answers(worker)] == [told]


def test_worker_that_is_closed_begins_anew(worker: TableWorker, opened: Open) -> None:
    worker.start()
    worker.close()
    worker.close()
    worker.ask(1, opened(GOOD))
    assert failures(worker) == [""]


def test_table_that_was_kept_is_taken_the_next_time(worker: TableWorker, cache: Cache, opened: Open) -> None:
    worker.ask(1, opened(GOOD))
    (built,) = answers(worker)
    cache.tables[built.name] = built.serialised
    worker.ask(2, opened(GOOD))
    (again,) = answers(worker)
    assert again == built._replace(key=2, is_cached=True)
    assert cache.asked == [built.name] * 2


def test_name_is_of_the_call_frame_information_not_of_the_path(
    worker: TableWorker, cache: Cache, opened: Open
) -> None:
    for image in (GOOD, GOOD + b"appended", elf_with_frames([Fde(0, 0x10)])):
        worker.ask(1, opened(image))
    names = [answer.name for answer in answers(worker, 3)]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "another"])
def test_damaged_table_is_built_anew(damage: str, worker: TableWorker, cache: Cache, opened: Open) -> None:
    worker.ask(1, opened(elf_with_frames([Fde(0, 0x10)])))
    worker.ask(2, opened(GOOD))
    other, built = answers(worker, 2)
    whole = built.serialised
    changed = whole[:-1] + bytes([whole[-1] ^ 1])
    damaged = {"cut": whole[:-1], "changed": changed, "empty": b"", "another": other.serialised}
    cache.tables[built.name] = damaged[damage]
    worker.ask(3, opened(GOOD))
    assert answers(worker) == [built._replace(key=3)]


def test_file_without_a_table_costs_only_itself(worker: TableWorker, opened: Open) -> None:
    contents = [b"#!/bin/sh\n" * 9, b"", elf_with_frames()]
    for key, content in enumerate(contents):
        worker.ask(key, opened(content))
    worker.ask(3, opened(GOOD))
    found = answers(worker, 4)
    empty = "cannot be mapped: cannot mmap an empty file"
    assert [one.failure for one in found] == ["not an ELF file", empty, "no call frame information", ""]
    assert found[0] == TableAnswer(0, "", b"", TableArrays(0, b"", b"", b""), False, False, "not an ELF file")


@pytest.mark.usefixtures("bombs")
@pytest.mark.parametrize(
    ("kind", "failure"),
    [
        (b"memory", "table worker ran out of memory"),
        (b"crash", "table worker was ended by signal 11"),
        (b"middle", "table worker was ended by signal 9"),
        (b"bug", "cannot be parsed (KeyError)"),
    ],
)
def test_bomb_costs_one_file(kind: bytes, failure: str, worker: TableWorker, opened: Open) -> None:
    for key, contents in enumerate([GOOD, BOMB + kind, GOOD, BOMB + kind, GOOD]):
        worker.ask(key, opened(contents))
    found = answers(worker, 5)
    assert [one.failure for one in found] == ["", failure, "", failure, ""]
    assert [one.key for one in found] == [0, 1, 2, 3, 4]
    assert found[4].arrays == arrays(GOOD)


@pytest.mark.usefixtures("bombs")
def test_file_that_takes_too_long_costs_itself(hasty: TableWorker, opened: Open) -> None:
    hasty.ask(1, opened(BOMB + b"sleep"))
    hasty.ask(2, opened(b"no ELF"))
    assert failures(hasty, 2) == ["table worker ran out of time", "not an ELF file"]


def test_worker_that_ends_between_two_files_costs_none(worker: TableWorker, opened: Open) -> None:
    worker.ask(1, opened(GOOD))
    answers(worker)
    assert worker._worker is not None
    os.kill(worker._worker._pid, signal.SIGKILL)
    assert select.select([worker.fileno()], [], [], LONG_S)[0]
    assert worker.answers() == []
    assert worker.fileno() == -1  # nothing to wait for any more
    worker.ask(2, opened(GOOD))
    assert failures(worker) == [""]


def test_worker_that_cannot_start_is_a_failure(
    worker: TableWorker, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise OSError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fork", refuse)
        worker.ask(1, opened(GOOD))
        worker.ask(2, opened(GOOD))
        assert worker.fileno() == -1
        assert [one.failure for one in worker.answers()] == ["table worker cannot start"] * 2
    worker.ask(3, opened(GOOD))
    assert failures(worker) == [""]


def answering(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """Let the worker say this as soon as it is asked, and wait."""

    def serve(_: object, parent: socket.socket) -> None:
        table_job._received(parent)
        parent.sendall(said)
        time.sleep(LONG_S)

    monkeypatch.setattr(TableJob, "serve", serve)


def test_table_that_is_well_said_is_taken(
    worker: TableWorker, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, sized())
    worker.ask(1, opened(GOOD))
    arrays_ = TableArrays(1, bytes(8), b"", bytes(16))
    assert answers(worker) == [TableAnswer(1, NAME, bytes(24), arrays_, False, False, "")]


@pytest.mark.parametrize(
    "nonsense",
    [
        struct.pack("<I", 0xFFFFFFFF),
        struct.pack("<I", 4097) + bytes(4097),
        struct.pack("<I", 0),
        framed([1, 2]),
        framed("text"),
        framed({}),
        framed(b"{" * 1000),
        framed(b"[" * 4000),
        framed(b"\xff\xfe"),
        framed(b'{"size": ' + b"9" * 4000 + b"}"),
        framed({"name": "../../etc"}),
        framed({"name": "short"}),
        framed({"name": 12345678}) * 2,
        framed({"name": NAME}) * 2,
        framed(Size()._asdict()) + bytes(24),  # before a name
        sized(size=-1),
        sized(size=1 << 40),
        sized(size="24"),
        sized(size=24.0),
        sized(size=True),
        sized(size=None),
        sized(size=float("inf")),
        sized(size=float("nan")),
        sized(arrays=[8, 0, 17]),
        sized(arrays=[-8, 16, 16]),
        sized(arrays=[8, 0]),
        sized(arrays=[8, 0, 8, 8]),
        sized(arrays=[4, 0, 16]),
        sized(arrays=[8, 8, 0]),
        sized(arrays=[8, 0, 8]),
        sized(arrays=[float("inf"), 0, 16]),
        sized(arrays=[float("nan"), 0, 16]),
        sized(arrays=["8", "0", "16"]),
        sized(arrays={"8": 1, "0": 1, "16": 1}),
        sized(arrays="888"),
        sized(arrays=24),
        sized(arrays=None),
        sized(first_block=-1),
        sized(first_block=1 << 32),
        sized(first_block=float("inf")),
        sized(first_block="1"),
        sized(first_block=None),
    ],
)
def test_nonsense_costs_one_file(
    nonsense: bytes, worker: TableWorker, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        answering(patched, nonsense)
        worker.ask(1, opened(GOOD))
        assert failures(worker) == ["table worker answered nonsense"]
        assert worker.fileno() == -1
    worker.ask(2, opened(GOOD))
    assert failures(worker) == [""]


@pytest.mark.parametrize("said", [b"", b"\1", framed({"name": NAME})[:-1], sized()[:-1]])
def test_answer_that_does_not_come_to_its_end_is_late(
    said: bytes, hasty: TableWorker, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, said)
    hasty.ask(1, opened(GOOD))
    assert failures(hasty) == ["table worker ran out of time"]


def test_failure_is_one_printable_line(
    worker: TableWorker, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, framed({"failure": "a\n\x1b[2J" + "x" * 1000}) + framed({"failure": [1]}))
    worker.ask(1, opened(GOOD))
    worker.ask(2, opened(GOOD))
    first, second = failures(worker, 2)
    assert first.startswith(r"a\x0a\x1b[2Jxxx")
    assert len(first) <= 220
    assert second == "[1]"


def test_what_was_not_asked_for_ends_the_worker(
    worker: TableWorker, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, sized() + b"more")
    worker.ask(1, opened(GOOD))
    assert failures(worker) == [""]
    deadline_s = time.monotonic() + LONG_S
    while worker.fileno() >= 0 and time.monotonic() < deadline_s:
        assert worker.answers() == []
    assert worker.fileno() == -1


def test_worker_that_talks_without_end_takes_no_memory(
    hasty: TableWorker, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(_: object, parent: socket.socket) -> None:
        parent.sendall(framed({"name": NAME}) + framed({**Size()._asdict(), "size": 1 << 20}))
        while True:
            parent.sendall(bytes(1 << 16))

    monkeypatch.setattr(TableJob, "serve", serve)
    monkeypatch.setattr(table_worker, "_ARRIVED_BYTES", 1 << 20)
    hasty.ask(1, opened(GOOD))
    (answer,) = answers(hasty)
    assert (answer.failure, len(answer.serialised)) == ("", 1 << 20)
