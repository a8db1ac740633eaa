"""The inside of the table worker, in this process: what it says for each file, message by message."""

import json
import os
import socket
import threading
from collections.abc import Iterator

import pytest
from cfiwriter import Fde, elf_with_frames

from pyprof.symbolize.frame_section import frame_section
from pyprof.symbolize.layout import elf_layout
from pyprof.symbolize.table_job import BUILD, CACHED, HEADER, TABLE, TableJob
from pyprof.symbolize.unwind_table import parsed, serialised, source_digest, unwind_table

pytestmark = pytest.mark.usefixtures("nothing_is_left")

ELF = elf_with_frames([Fde(0, 0x10), Fde(0x10, 0x20, b"\x0e\x20")])
OTHER = elf_with_frames([Fde(0, 0x10)])


class Parent:
    """The parent's side of the exchange."""

    def __init__(self, own: socket.socket) -> None:
        self.own = own

    def send(self, kind: bytes, contents: bytes | None = None) -> None:
        if contents is None:
            self.own.sendall(kind)
            return
        with open(os.memfd_create("file"), "wb", buffering=0) as file:
            file.write(contents)
            socket.send_fds(self.own, [kind], [file.fileno()])

    def read(self, size_bytes: int) -> bytes:
        data = b""
        while len(data) < size_bytes:
            data += self.own.recv(size_bytes - len(data))
        return data

    def header(self) -> dict[str, object]:
        (length,) = HEADER.unpack(self.read(HEADER.size))
        header: dict[str, object] = json.loads(self.read(length))
        return header


@pytest.fixture
def parent(nothing_is_left: None) -> Iterator[Parent]:
    own, theirs = socket.socketpair()
    job = TableJob()
    job.load()
    own.settimeout(20)
    thread = threading.Thread(target=job.serve, args=(theirs,))
    thread.start()
    yield Parent(own)
    own.shutdown(socket.SHUT_WR)  # the job ends when it hears no more, and may finish what it says
    thread.join()
    own.close()
    theirs.close()


def digest(image: bytes) -> bytes:
    layout = elf_layout(image)
    section = frame_section(image, layout)
    assert section is not None
    return source_digest(image, layout, section)


def table(image: bytes) -> bytes:
    """Return the serialised table of a file."""
    return serialised(unwind_table(image, elf_layout(image)), digest(image))


def ask(parent: Parent, image: bytes = ELF) -> None:
    parent.send(TABLE, image)
    assert parent.header() == {"name": f"0-{digest(image).hex()}"}


def answer(parent: Parent) -> tuple[bytes, bool]:
    """Return the table that is answered, and whether it came from the cache."""
    header = parent.header()
    data = parent.read(int(str(header["size"])))
    made = parsed(data, digest(ELF))
    assert header["arrays"] == [len(made.blocks), len(made.rows), len(made.rules)]
    assert header["first_block"] == made.first_block
    return data, header["is_cached"] is True


def test_table_is_built_when_it_is_asked_for(parent: Parent) -> None:
    ask(parent)
    parent.send(BUILD)
    assert answer(parent) == (table(ELF), False)


def test_cached_table_is_taken_when_it_is_whole(parent: Parent) -> None:
    ask(parent)
    parent.send(CACHED, table(ELF))
    assert answer(parent) == (table(ELF), True)


@pytest.mark.parametrize("cached", [b"", b"nonsense", table(ELF)[:-1], table(ELF) + b"\0", table(OTHER)])
def test_cached_table_that_is_not_this_files_is_built_anew(cached: bytes, parent: Parent) -> None:
    ask(parent)
    parent.send(CACHED, cached)
    assert answer(parent) == (table(ELF), False)


@pytest.mark.parametrize(
    ("contents", "failure"),
    [
        (b"#!/bin/sh\n" * 9, "not an ELF file"),
        (b"", "cannot be mapped: cannot mmap an empty file"),
        (elf_with_frames(), "no call frame information"),
    ],
)
def test_failure_ends_the_exchange_for_one_file(contents: bytes, failure: str, parent: Parent) -> None:
    parent.send(TABLE, contents)
    assert parent.header() == {"failure": failure}
    ask(parent)
    parent.send(BUILD)
    assert answer(parent) == (table(ELF), False)


def test_file_of_another_machine_fails_after_its_name(parent: Parent) -> None:
    ask(parent, elf_with_frames([Fde(0, 0x10)], machine=183))
    parent.send(BUILD)
    assert parent.header() == {"failure": "not x86-64"}


def test_file_that_nobody_thought_of_is_a_failure(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_(*_: object) -> None:
        raise KeyError("deep inside")

    monkeypatch.setattr("pyprof.symbolize.layout.elf_layout", break_)
    parent.send(TABLE, ELF)
    assert parent.header() == {"failure": "cannot be parsed (KeyError)"}


def test_descriptors_do_not_pile_up(parent: Parent) -> None:
    for _ in range(3):
        ask(parent)
        parent.send(CACHED, table(ELF))
        answer(parent)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        ask(parent)
        parent.send(CACHED, table(ELF))
        answer(parent)
    ask(parent)  # so the one before is closed
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # the file, and its mapping
    parent.send(BUILD)
    answer(parent)
