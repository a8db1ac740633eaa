"""The layout of bpf/unwind.h in Python, and what is written into the maps."""

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cheader import Header
from hypothesis import given
from hypothesis import strategies as st

from pyprof.profiler import capture, copies, unwind_maps
from pyprof.profiler.unwind_maps import (
    MAP_ENTRIES,
    FrameWord,
    MappedCode,
    ProcessImage,
    UnwindMaps,
    frame_word,
    mapping_bytes,
    word_of,
)
from pyprof.symbolize.confined import Confined, EndedError, Limits
from pyprof.symbolize.table_worker import TableArrays

pytestmark = pytest.mark.usefixtures("nothing_is_left")

ENTRIES = {
    "unwind_exes": 16,
    "unwind_blocks": 64,
    "unwind_rows": 4,
    "unwind_rules": 32,
    "unwind_mappings": 16,
    "unwind_processes": 8,
}
STRUCTS = {
    "unwind_exes": "unwind_exe",
    "unwind_blocks": "unwind_block",
    "unwind_rows": "unwind_chunk",
    "unwind_rules": "unwind_rule",
    "unwind_mappings": "unwind_mapping",
    "unwind_processes": "unwind_process",
}
CODE = MappedCode(0x400000, 0x401000, 0x2000, 3, unwind_maps.MAPPING_FILE)


class FakeMap:
    """A map in memory of this process: an array behind a descriptor, and a dictionary."""

    def __init__(self, name: str, value_bytes: int) -> None:
        self.value_bytes = value_bytes
        self.fd = os.memfd_create(name)
        self.entries: dict[bytes, bytes] = {}
        os.ftruncate(self.fd, -(-value_bytes * ENTRIES[name] // 4096) * 4096)

    def update(self, key: bytes, value: bytes) -> None:
        self.entries[key] = value

    def delete(self, key: bytes) -> None:
        self.entries.pop(key, None)

    def value(self, index: int) -> bytes:
        return os.pread(self.fd, self.value_bytes, index * self.value_bytes)


@pytest.fixture
def fakes(
    header: Header, monkeypatch: pytest.MonkeyPatch, nothing_is_left: None
) -> Iterator[dict[str, FakeMap]]:
    """Return small maps whose values have the sizes that the header says."""
    for name in ("EXES", "BLOCKS", "RULES", "MAPPINGS", "PROCESSES"):
        monkeypatch.setattr(unwind_maps, name, ENTRIES[f"unwind_{name.lower()}"])
    monkeypatch.setattr(unwind_maps, "CHUNKS", ENTRIES["unwind_rows"])
    monkeypatch.setattr(unwind_maps, "MAP_ENTRIES", ENTRIES)
    made = {name: FakeMap(name, header.structs[STRUCTS[name]].size) for name in ENTRIES}
    yield made
    for fake in made.values():
        os.close(fake.fd)


@pytest.fixture
def maps(fakes: dict[str, FakeMap]) -> Iterator[UnwindMaps]:
    made = UnwindMaps(fakes)  # type: ignore[arg-type]
    yield made
    made.close()


@pytest.fixture
def exe(fakes: dict[str, FakeMap], header: Header) -> Callable[[int], dict[str, int]]:
    """Return a function that reads an entry of `unwind_exes`."""

    def read(number: int) -> dict[str, int]:
        return header.structs["unwind_exe"].values(fakes["unwind_exes"].value(number))

    return read


def table(
    *, blocks: int = 2, chunks: int = 1, rules: int = 2, first_block: int = 5, fill: int = 1
) -> TableArrays:
    """Return a table whose bytes are all `fill`."""
    sizes = (8 * blocks, 4096 * chunks, 16 * rules)
    return TableArrays(first_block, *(bytes([fill]) * size for size in sizes))


def test_every_map_has_its_number_of_entries() -> None:
    assert set(MAP_ENTRIES) == set(ENTRIES)


def test_entries_are_as_large_as_the_compiler_makes_them(header: Header) -> None:
    sizes = {name: header.structs[name].size for name in STRUCTS.values()}
    assert sizes == {
        "unwind_exe": unwind_maps._EXE.size,
        "unwind_block": unwind_maps.BLOCK_BYTES,
        "unwind_chunk": unwind_maps.CHUNK_BYTES,
        "unwind_rule": unwind_maps.RULE_BYTES,
        "unwind_mapping": unwind_maps._MAPPING.size,
        "unwind_process": unwind_maps._PROCESS.size,
    }
    assert header.structs["unwind_exe"].fields["wanted"].offset == unwind_maps._WANTED_AT
    assert header.structs["unwind_exe"].fields["state"].offset == 0


def test_constants_of_the_walk_are_those_of_the_header(header: Header) -> None:
    constants = header.constants
    for name in ("EXE_WAITING", "EXE_READY", "EXE_WITHOUT_TABLE"):
        assert constants[name] == getattr(unwind_maps, name)
    for name in ("MAPPING_FILE", "MAPPING_ANONYMOUS", "MAPPING_SPECIAL"):
        assert constants[name] == getattr(unwind_maps, name)
    assert constants["FRAME_FILE_BIT"] == unwind_maps.FRAME_FILE_BIT
    assert constants["FRAME_FILE_SHIFT"] == unwind_maps.FRAME_FILE_SHIFT
    assert constants["UNWIND_REGISTERS"] == copies.REGISTERS
    assert constants["UNWIND_CHUNK_ROWS"] * 4 == unwind_maps.CHUNK_BYTES


def test_ends_of_walks_are_those_of_the_header(header: Header) -> None:
    ends = {name: number for name, number in header.constants.items() if name.startswith("END_")}
    count = ends.pop("END_COUNT")
    assert ends == {name: getattr(capture, name) for name in vars(capture) if name.startswith("END_")}
    assert sorted(ends.values()) == list(range(count))


def test_process_has_as_many_mappings_as_the_search_reaches(root: Path) -> None:
    text = (root / "bpf" / "unwind_search.bpf.h").read_text()
    shift = int(text.split("#define MAX_MAPPINGS_SHIFT ")[1].split()[0])
    assert (1 << shift) - 1 == unwind_maps.MAX_MAPPINGS


@given(st.integers(0, unwind_maps.EXES - 1), st.integers(0, (1 << unwind_maps.FRAME_FILE_SHIFT) - 1))
def test_word_of_a_file_frame_is_read_back(exe: int, address: int) -> None:
    word = word_of(FrameWord(exe, address))
    assert word < 1 << 64
    assert frame_word(word) == FrameWord(exe, address)


@given(st.integers(0, (1 << 63) - 1))
def test_word_without_a_file_is_the_address_itself(address: int) -> None:
    assert word_of(FrameWord(-1, address)) == address
    assert frame_word(address) == FrameWord(-1, address)


@given(st.integers(1 << 63, (1 << 64) - 1))
def test_address_above_the_users_half_is_never_taken_for_a_file(address: int) -> None:
    assert frame_word(word_of(FrameWord(-1, address))).exe == -1


def test_mapping_is_packed_as_the_compiler_lays_it_out(header: Header) -> None:
    expected = header.structs["unwind_mapping"].image(**CODE._asdict())
    assert mapping_bytes([CODE]) == expected
    assert mapping_bytes([CODE, CODE]) == expected * 2


def test_mappings_beyond_the_search_are_left_out() -> None:
    many = [CODE._replace(start=number) for number in range(unwind_maps.MAX_MAPPINGS + 7)]
    assert mapping_bytes(many) == mapping_bytes(many[: unwind_maps.MAX_MAPPINGS])


def test_table_is_where_its_entry_says(
    maps: UnwindMaps, fakes: dict[str, FakeMap], exe: Callable[[int], dict[str, int]]
) -> None:
    assert maps.load_table(0, table(blocks=3, chunks=2, rules=4, fill=7), keeps_pointers=False)
    assert maps.load_table(2, table(fill=9), keeps_pointers=False)
    assert exe(0) == {
        "state": unwind_maps.EXE_READY,
        "wanted": 0,
        "first_block": 5,
        "block_count": 3,
        "blocks_at": 0,
        "chunks_at": 0,
        "rules_at": 0,
        "keeps_pointers": 0,
    }
    second = exe(2)
    assert (second["blocks_at"], second["chunks_at"], second["rules_at"]) == (3, 2, 4)
    for name, at, limit in (("unwind_blocks", 3, 5), ("unwind_rows", 2, 3), ("unwind_rules", 4, 6)):
        assert set(fakes[name].value(at - 1)) == {7}
        assert set(b"".join(map(fakes[name].value, range(at, limit)))) == {9}
        assert set(fakes[name].value(limit)) == {0}
    assert exe(1)["state"] == unwind_maps.EXE_WAITING


@pytest.mark.parametrize("too_large", [{"blocks": 33}, {"chunks": 3}, {"rules": 17}])
def test_table_that_wants_more_than_half_of_a_room_takes_none(
    too_large: dict[str, int], maps: UnwindMaps, exe: Callable[[int], dict[str, int]]
) -> None:
    assert not maps.load_table(1, table(**too_large), keeps_pointers=False)
    assert exe(1)["state"] == unwind_maps.EXE_WAITING
    half = {"blocks": 32, "chunks": 2, "rules": 16}
    assert unwind_maps.SHARE == 2
    assert maps.load_table(1, table(**half), keeps_pointers=False)
    assert maps.load_table(2, table(**half), keeps_pointers=False)
    assert not maps.load_table(3, table(), keeps_pointers=False)


@pytest.mark.parametrize("too_large", [{"blocks": 13}, {"chunks": 2}, {"rules": 7}])
def test_table_without_room_takes_none(
    too_large: dict[str, int], maps: UnwindMaps, exe: Callable[[int], dict[str, int]]
) -> None:
    assert maps.load_table(0, table(blocks=32, chunks=2, rules=16), keeps_pointers=False)
    assert maps.load_table(1, table(blocks=20, chunks=1, rules=10), keeps_pointers=False)
    left = {"blocks": 12, "chunks": 1, "rules": 6}
    assert not maps.load_table(2, table(**{**left, **too_large}), keeps_pointers=False)
    assert exe(2)["state"] == unwind_maps.EXE_WAITING
    assert maps.load_table(2, table(**left), keeps_pointers=False)
    assert not maps.load_table(3, table(), keeps_pointers=False)


def test_table_without_rows_needs_no_chunk(maps: UnwindMaps, exe: Callable[[int], dict[str, int]]) -> None:
    assert maps.load_table(0, table(chunks=2), keeps_pointers=False)
    assert maps.load_table(1, table(chunks=2), keeps_pointers=False)
    assert maps.load_table(2, table(chunks=0), keeps_pointers=False)
    assert exe(2)["chunks_at"] == 0


class Looking:
    """The job of a child that looks for the memory of the maps, then touches it."""

    def __init__(self, maps: UnwindMaps) -> None:
        self._memory = maps._memory["unwind_exes"]
        self._found = b""

    def load(self) -> None:
        self._found = b"seen" if "memfd:unwind_" in Path("/proc/self/maps").read_text() else b"none"

    def serve(self, parent: socket.socket) -> None:
        parent.sendall(self._found)
        self._memory[0] = 1


def test_forked_child_does_not_have_the_memory(maps: UnwindMaps) -> None:
    assert "memfd:unwind_exes" in Path("/proc/self/maps").read_text()
    with Confined("worker", Looking(maps), (), Limits(cpu_s=10)) as worker:
        assert worker.read(4, time.monotonic() + 30) == b"none"
        with pytest.raises(EndedError, match=r"^worker was ended by signal 11$"):
            worker.read(1, time.monotonic() + 30)


def test_no_memory_of_a_map_is_copied_by_a_fork(maps: UnwindMaps) -> None:
    flags = {}
    for line in Path("/proc/self/smaps").read_text().splitlines():
        kind, *rest = line.split()
        if "-" in kind:
            name = rest[-2] if rest[-1] == "(deleted)" else rest[-1]
        elif kind == "VmFlags:":
            flags[name] = rest
    memory = {name: "dc" in found for name, found in flags.items() if name.startswith("/memfd:unwind_")}
    assert memory == {f"/memfd:{name}": True for name in ENTRIES if name != "unwind_processes"}


def test_state_is_set_and_the_wish_for_a_table_forgotten(
    maps: UnwindMaps, fakes: dict[str, FakeMap], exe: Callable[[int], dict[str, int]]
) -> None:
    os.pwrite(fakes["unwind_exes"].fd, struct.pack("=2I", 0, 1), 32)
    maps.refuse_table(1, keeps_pointers=True)
    assert (exe(1)["state"], exe(1)["wanted"]) == (unwind_maps.EXE_WITHOUT_TABLE, 0)


def test_wanted_are_those_that_a_walk_has_marked(
    maps: UnwindMaps, fakes: dict[str, FakeMap], header: Header
) -> None:
    layout = header.structs["unwind_exe"]
    for number in (0, 3, 5):
        os.pwrite(fakes["unwind_exes"].fd, layout.image(wanted=1), number * layout.size)
    assert maps.wanted_exes(0) == []
    assert maps.wanted_exes(5) == [0, 3]
    assert maps.wanted_exes(6) == [0, 3, 5]
    assert maps.load_table(3, table(), keeps_pointers=False)
    assert maps.wanted_exes(6) == [0, 5]


def test_mappings_are_written_side_by_side_until_there_is_no_room(
    maps: UnwindMaps, fakes: dict[str, FakeMap]
) -> None:
    five, eleven = (mapping_bytes([CODE._replace(exe=count)] * count) for count in (5, 11))
    assert maps.load_mappings(five) == 0
    assert maps.load_mappings(eleven) == 5
    assert maps.load_mappings(mapping_bytes([CODE])) is None
    assert b"".join(map(fakes["unwind_mappings"].value, range(16))) == five + eleven
    maps.free_mappings(0, len(five))
    assert maps.load_mappings(five) == 0


def test_process_points_to_its_mappings(maps: UnwindMaps, fakes: dict[str, FakeMap], header: Header) -> None:
    maps.set_process(ProcessImage(4711, 10, 20, 30), 7, 3 * unwind_maps._MAPPING.size)
    values = {
        "earliest_ns": 10,
        "latest_ns": 20,
        "exec_ns": 30,
        "first": 7,
        "count": 3,
        "copies": unwind_maps.COPIES,
    }
    expected = {struct.pack("=I", 4711): header.structs["unwind_process"].image(**values)}
    assert fakes["unwind_processes"].entries == expected
    maps.forget_process(4711)
    maps.forget_process(4712)
    assert fakes["unwind_processes"].entries == {}
