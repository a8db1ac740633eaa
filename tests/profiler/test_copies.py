"""Samples that are handed over with registers and stack, as bpf/unwind.h lays them out."""

import struct
from collections.abc import Callable

import pytest
from cheader import Header

from pyprof.profiler import copies
from pyprof.profiler.capture import END_COMPLETE, END_NOT_READY, Sample
from pyprof.profiler.copies import CopiedSample, Copies, parsed_copy

REGISTERS = tuple(range(1 << 63, (1 << 63) + 17))


class FakeRing:
    """A ring that has what a test puts there."""

    def __init__(self) -> None:
        self.records: list[bytes] = []

    def fileno(self) -> int:
        return 42

    def consume(self, take: Callable[[bytes], object]) -> None:
        while self.records:
            take(self.records.pop(0))


@pytest.fixture
def image(header: Header) -> Callable[..., bytes]:
    """Return a function that makes a record as the kernel sends it: it ends behind the stack's bytes."""
    whole, key, copy = (header.structs[name] for name in ("copied_sample", "sample_key", "stack_copy"))

    def make(stack: bytes = b"", *, size_bytes: int | None = None, **fields: int | bytes) -> bytes:
        numbers = struct.pack("=17Q", *REGISTERS)
        bytes_ = len(stack) if size_bytes is None else size_bytes
        made = whole.image(
            key=key.image(**fields), copy=copy.image(registers=numbers, bytes=bytes_, stack=stack)
        )
        return made[: whole.fields["copy"].offset + copy.fields["stack"].offset + len(stack)]

    return make


@pytest.fixture
def ring() -> FakeRing:
    return FakeRing()


@pytest.fixture
def taken(ring: FakeRing) -> Copies:
    return Copies(ring)  # type: ignore[arg-type]


def test_copy_has_the_layout_of_the_header(header: Header, image: Callable[..., bytes]) -> None:
    whole, copy = header.structs["copied_sample"], header.structs["stack_copy"]
    assert whole.fields["time_ns"].offset == copies.SAMPLE_KEY_BYTES
    assert (
        copies.SAMPLE_KEY_BYTES + copies._COPY.size
        == whole.fields["copy"].offset + copy.fields["stack"].offset
    )
    key = {"start_ns": 5, "image_ns": 6, "pid": 7, "tid": 8, "comm": b"nginx", "user_end": END_NOT_READY}
    expected = Sample(7, 8, 5, 6, b"nginx", 0, 0, 1, END_NOT_READY)
    copy = CopiedSample(expected, REGISTERS, b"stack...", copies.RED_ZONE_BYTES)
    assert parsed_copy(image(b"stack...", **key)) == copy


def test_ring_has_room_for_fifty_of_the_largest_copies(header: Header) -> None:
    assert copies.RING_BYTES & (copies.RING_BYTES - 1) == 0
    assert copies.RING_BYTES // header.structs["copied_sample"].size >= 50


@pytest.mark.parametrize("size_bytes", [0, 7, 8, 9, 0xFFFFFFFF])
def test_stack_has_as_many_bytes_as_are_told_and_came(size_bytes: int, image: Callable[..., bytes]) -> None:
    assert parsed_copy(image(b"stack...", size_bytes=size_bytes)).stack == b"stack..."[:size_bytes]


def test_copies_are_taken_as_they_arrive(ring: FakeRing, taken: Copies, image: Callable[..., bytes]) -> None:
    ring.records = [image(pid=1, user_end=END_NOT_READY), image(pid=2, user_end=END_NOT_READY)]
    assert [one.sample.pid for one in taken.drain()] == [1, 2]
    ring.records = [image(pid=3, user_end=END_NOT_READY)]
    assert [one.sample.pid for one in taken.drain()] == [3]
    assert taken.drain() == []
    assert taken.samples == []  # the caller puts them there
    assert taken.fileno() == 42


def test_what_was_mapped_is_not_known_when_a_copy_arrives(
    ring: FakeRing, taken: Copies, image: Callable[..., bytes]
) -> None:
    ring.records = [image(pid=1, user_end=END_NOT_READY)]
    assert [one.files for one in taken.drain()] == [None]


def test_sample_that_the_kernel_has_counted_is_only_to_be_verified(
    ring: FakeRing, taken: Copies, image: Callable[..., bytes]
) -> None:
    ring.records = [image(pid=1, user_end=END_COMPLETE), image(pid=2, user_end=END_NOT_READY)]
    assert [one.sample.pid for one in taken.drain()] == [2]
    assert [one.sample.pid for one in taken.walked] == [1]
    assert not taken.beyond


def test_samples_to_verify_are_bounded(
    ring: FakeRing, taken: Copies, image: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "MAX_WALKED", 2)
    for pids in ((1,), (2, 3), (4,)):
        ring.records = [image(pid=pid, user_end=END_COMPLETE) for pid in pids]
        assert taken.drain() == []
    assert [one.sample.pid for one in taken.walked] == [1, 2]
    assert not taken.beyond  # the kernel has counted them


def test_full_memory_keeps_no_further_stack_and_counts_all_samples(
    ring: FakeRing, taken: Copies, image: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (image(b"stack...", pid=pid, user_end=END_NOT_READY) for pid in (1, 2))
    monkeypatch.setattr(copies, "MAX_BYTES", 2 * len(one))
    ring.records = [one]
    assert len(taken.drain()) == 1
    assert not taken.is_full
    ring.records = [one, one, other]  # it becomes full in between
    assert len(taken.drain()) == 1
    assert taken.is_full
    ring.records = [other, image(pid=3, user_end=END_COMPLETE)]
    assert taken.drain() == []
    assert ring.records == []
    rip = REGISTERS[-1]
    assert taken.beyond == {(parsed_copy(one).sample, rip): 1, (parsed_copy(other).sample, rip): 2}
    assert [one.sample.pid for one in taken.walked] == [3]  # these take no stack


def test_samples_beyond_the_limit_are_told_apart_by_where_they_were(
    ring: FakeRing, taken: Copies, image: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "MAX_BYTES", 0)
    record = image(user_end=END_NOT_READY)
    place = record.index(struct.pack("=Q", REGISTERS[-1]))
    ring.records = [record, record[:place] + struct.pack("=Q", 0x1234) + record[place + 8 :], record]
    assert taken.drain() == []
    sample = parsed_copy(record).sample
    assert taken.beyond == {(sample, REGISTERS[-1]): 2, (sample, 0x1234): 1}
