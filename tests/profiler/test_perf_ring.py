"""The ring that the kernel writes perf records into, here written by the test."""

import mmap
import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyprof.profiler.perf_ring import HEAD_AT, PerfRing, Record, records

pytestmark = pytest.mark.usefixtures("nothing_is_left")

PAGES = 2
ROOM = PAGES * mmap.PAGESIZE


class Kernel:
    """The side of a ring that writes."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def set_position(self, position: int) -> None:
        """Begin as if so many bytes had been written and read before."""
        os.pwrite(self.fd, struct.pack("=2Q", position, position), HEAD_AT)

    def write(self, data: bytes) -> None:
        head, tail = struct.unpack("=2Q", os.pread(self.fd, 16, HEAD_AT))
        assert head + len(data) - tail <= ROOM
        for index, byte in enumerate(data):
            os.pwrite(self.fd, bytes([byte]), mmap.PAGESIZE + (head + index) % ROOM)
        os.pwrite(self.fd, struct.pack("=Q", head + len(data)), HEAD_AT)

    @property
    def tail(self) -> int:
        (tail,) = struct.unpack("=Q", os.pread(self.fd, 8, HEAD_AT + 8))
        return int(tail)


@pytest.fixture
def kernel(nothing_is_left: None) -> Iterator[Kernel]:
    fd = os.memfd_create("ring")
    os.ftruncate(fd, ROOM + mmap.PAGESIZE)
    yield Kernel(fd)
    os.close(fd)


@pytest.fixture
def ring(kernel: Kernel) -> Iterator[PerfRing]:
    made = PerfRing(kernel.fd, pages=PAGES)
    yield made
    made.close()


def record(kind: int, body: bytes, misc: int = 0) -> bytes:
    return struct.pack("=IHH", kind, misc, 8 + len(body)) + body


def test_empty_ring_gives_nothing(ring: PerfRing) -> None:
    assert ring.take() == b""


def test_what_is_taken_gives_its_room_back(kernel: Kernel, ring: PerfRing) -> None:
    kernel.write(b"first")
    assert ring.take() == b"first"
    assert kernel.tail == 5
    kernel.write(b"second")
    assert ring.take() == b"second"
    assert ring.take() == b""
    assert kernel.tail == 11


@pytest.mark.parametrize("before_end", [0, 1, 4, 7, 8])
@pytest.mark.parametrize("turns", [1, 1 << 40])
def test_data_goes_on_at_the_start_of_the_ring(
    before_end: int, turns: int, kernel: Kernel, ring: PerfRing
) -> None:
    kernel.set_position(turns * ROOM - before_end)
    kernel.write(b"12345678")
    assert ring.take() == b"12345678"
    assert kernel.tail == turns * ROOM - before_end + 8


@pytest.mark.parametrize("position", [0, 8, ROOM - 8])
def test_ring_may_be_full(position: int, kernel: Kernel, ring: PerfRing) -> None:
    data = os.urandom(ROOM)
    kernel.set_position(position)
    kernel.write(data)
    assert ring.take() == data
    assert ring.take() == b""


def test_ring_that_cannot_be_mapped_is_refused() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        PerfRing(1 << 20, pages=PAGES)


def test_records_are_given_without_their_headers() -> None:
    image = record(9, b"sample..", misc=2) + record(3, b"") + record(2, b"lost....")
    assert list(records(image)) == [Record(9, 2, b"sample.."), Record(3, 0, b""), Record(2, 0, b"lost....")]


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\1\0\0\0",
        struct.pack("=IHH", 9, 0, 0),
        struct.pack("=IHH", 9, 0, 7),
        record(9, b"12345678")[:-1],
    ],
    ids=["nothing", "header", "size 0", "size 7", "cut"],
)
def test_broken_record_is_the_end(broken: bytes) -> None:
    assert list(records(record(3, b"good") + broken)) == [Record(3, 0, b"good")]


@given(st.binary(max_size=200))
def test_any_bytes_end(image: bytes) -> None:
    assert sum(8 + len(one.body) for one in records(image)) <= len(image)
