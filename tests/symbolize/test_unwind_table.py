import mmap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from elfwriter import TEXT_BYTES, TEXT_OFFSET, Extra, elf
from framewriter import (
    AT_ENTRY,
    FRAME_START,
    GAP,
    NOP,
    Cie,
    Fde,
    advance,
    def_cfa,
    def_cfa_offset,
    expression,
    frames,
    image_of,
    offset,
    rules_of,
    table_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.frame_section import frame_section
from pyprof.symbolize.layout import elf_layout
from pyprof.symbolize.unwind_rule import Cfa, Rbp, Rule, rule_bytes
from pyprof.symbolize.unwind_table import (
    UnwindTable,
    lookup,
    parsed,
    serialised,
    source_digest,
    unwind_table,
)
from pyprof.symbolize.vdso import vdso_image

DIGEST = bytes(range(16))


def test_the_vdso_has_a_table() -> None:
    image = vdso_image()
    table = unwind_table(image, elf_layout(image))
    kinds = {lookup(table, place).cfa for place in range(len(image))}
    assert kinds >= {Cfa.NONE, Cfa.RSP}


def test_a_rule_is_16_bytes() -> None:
    rule = Rule(Cfa.REGISTER, Rbp.AT_CFA, 10, -16, -24, 1 << 20, -56)
    assert rule_bytes(rule) == bytes.fromhex("09010a00 f0ff c8ff e8ffffff 00001000")
    assert table_of(Cie(), Fde(0, 8)).rules == bytes(16) + rule_bytes(AT_ENTRY)


def test_outside_of_the_code_there_is_no_rule() -> None:
    table = table_of(Cie(), Fde(0, 8))
    for place in (0, TEXT_OFFSET - 1, TEXT_OFFSET + 8, TEXT_OFFSET + TEXT_BYTES, 1 << 31, 1 << 40):
        assert lookup(table, place) == GAP
    assert lookup(table, TEXT_OFFSET) == AT_ENTRY


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (elf(machine=183), "not x86-64"),
        (elf(bits=32), "not x86-64"),
        (elf(order=">"), "not x86-64"),
        (elf(), "no call frame information"),
        (image_of(Cie(), Fde(0, 8), has_segments=False), "no call frame information for code"),
    ],
)
def test_a_file_without_a_table_is_an_error(image: bytes, message: str) -> None:
    with pytest.raises(SymbolizeError, match=message):
        unwind_table(image, elf_layout(image))


def test_code_beyond_4_gib_is_an_error() -> None:
    layout = elf_layout(image := image_of(Cie(), Fde(0, 8)))
    far = tuple(segment._replace(file_offset=(1 << 32) - 8) for segment in layout.segments)
    with pytest.raises(SymbolizeError, match="4 GiB"):
        unwind_table(image, layout._replace(segments=far))


def test_more_expressions_than_any_file_has_are_an_error() -> None:
    program = expression(6, b"\x76\0") * 12_000
    with pytest.raises(SymbolizeError, match="262144 expressions"):
        table_of(Cie(), *(Fde(8 * index, 8, program) for index in range(22)))


def test_more_rules_than_a_row_can_tell_are_an_error() -> None:
    steps = b"".join(b"\x02\x01" + def_cfa_offset(8 * index) for index in range(9000))
    layout = elf_layout(image := image_of(Cie(), *(Fde(9000 * index, 9000, steps) for index in range(8))))
    (code,) = layout.segments
    big = layout._replace(segments=(code._replace(size_bytes=1 << 20),))
    assert len(unwind_table(image, big).rules) == 9000 * 16
    varied = [steps.replace(def_cfa_offset(0), offset(6, index + 1)) for index in range(8)]
    image = image_of(Cie(), *(Fde(9000 * index, 9000, program) for index, program in enumerate(varied)))
    with pytest.raises(SymbolizeError, match="65535 different rules"):
        unwind_table(image, big._replace(sections=elf_layout(image).sections))


# Tables as bytes


STEPS = b"".join(advance(1) + def_cfa_offset(8 * (1 + index % 50)) for index in range(1500))
SAMPLE = table_of(Cie(), Fde(3, 2000, STEPS + offset(6, 2)), Fde(2100, 40, b"\x07\x10"))


def test_a_table_is_what_was_written() -> None:
    in_rbx = table_of(Cie(), Fde(0, 8), Fde(8, 8, def_cfa(3, 8)), Fde(16, 8, offset(3, 4)))
    for table in (SAMPLE, table_of(Cie(), Fde(0, 8)), in_rbx):
        data = serialised(table, DIGEST)
        assert parsed(data, DIGEST) == parsed(memoryview(data), DIGEST) == table
        assert rules_of(parsed(data, DIGEST)) == rules_of(table)


def test_a_table_can_be_read_from_a_mapped_file(tmp_path: Path) -> None:
    (tmp_path / "table").write_bytes(serialised(SAMPLE, DIGEST))
    with open(tmp_path / "table", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        assert parsed(data, DIGEST) == SAMPLE


@pytest.mark.parametrize(
    ("place", "message"),
    [(0, "version"), (8, "version"), (28, "another file"), (12, "damaged"), (99, "damaged")],
)
def test_a_changed_byte_is_an_error(place: int, message: str) -> None:
    data = bytearray(serialised(SAMPLE, DIGEST))
    data[place] ^= 1
    with pytest.raises(SymbolizeError, match=message):
        parsed(bytes(data), DIGEST)


def test_a_table_that_is_cut_is_an_error() -> None:
    data = serialised(SAMPLE, DIGEST)
    for size_bytes in (*range(80), len(data) - 1):
        with pytest.raises(SymbolizeError):
            parsed(data[:size_bytes], DIGEST)


def _bad_tables() -> Iterator[UnwindTable]:
    table = SAMPLE
    yield table._replace(first_block=(1 << 22) - 1)
    yield table._replace(blocks=b"")
    yield table._replace(rows=table.rows[:-4])
    yield table._replace(rules=table.rules[16:])
    yield table._replace(rules=b"")
    yield table._replace(rules=table.rules[:16])
    yield table._replace(rules=table.rules + table.rules[16:32] * 65_535)
    for change in ("0a", "0105", "010010", "01000001", "010000000000 02", "010000000000 f7ff"):
        yield table._replace(rules=table.rules[:-16] + bytes.fromhex(change).ljust(16, b"\0"))


@pytest.mark.parametrize("table", list(_bad_tables()))
def test_a_malformed_table_is_an_error_though_its_checksum_is_right(table: UnwindTable) -> None:
    with pytest.raises(SymbolizeError, match="malformed"):
        parsed(serialised(table, DIGEST), DIGEST)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4))
def test_mutated_bytes_are_the_same_table_or_an_error(mutations: list[tuple[int, int]]) -> None:
    data = bytearray(serialised(SAMPLE, DIGEST))
    for place, value in mutations:
        data[place % len(data)] = value
    with suppress(SymbolizeError):
        assert parsed(bytes(data), DIGEST) == SAMPLE


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(UnwindTable._fields[1:]), st.integers(0, 1 << 20), st.integers(0, 255))
def test_mutated_tables_can_be_searched_or_are_an_error(field: str, place: int, value: int) -> None:
    part = bytearray(getattr(SAMPLE, field))
    part[place % len(part)] = value
    try:
        table = parsed(serialised(SAMPLE._replace(**{field: bytes(part)}), DIGEST), DIGEST)
    except SymbolizeError:
        return
    for offset_in_file in range(TEXT_OFFSET - 2048, TEXT_OFFSET + TEXT_BYTES + 2048, 7):
        lookup(table, offset_in_file)


def test_the_digest_is_of_all_that_a_table_is_built_from() -> None:
    images = [
        image_of(Cie(), Fde(0, 8)),
        image_of(Cie(), Fde(0, 8), NOP),
        image_of(Cie(), Fde(0, 9)),
        elf(extra=[Extra(".eh_frame", frames([Cie(), Fde(0, 8)]), FRAME_START + 4)]),
        elf(extra=[Extra(".debug_frame", frames([Cie(), Fde(0, 8)]), FRAME_START)]),
    ]
    digests = set()
    for image in images:
        layout = elf_layout(image)
        section = frame_section(image, layout)
        assert section is not None
        (code,) = layout.segments
        digests.add(source_digest(image, layout, section))
        assert source_digest(image, layout, section) in digests
        digests.add(
            source_digest(image, layout._replace(segments=(code._replace(virtual_offset=0),)), section)
        )
    assert len(digests) == 2 * len(images)
    assert all(len(digest) == 16 for digest in digests)
