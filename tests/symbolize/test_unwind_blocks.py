from bisect import bisect_right

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyprof.symbolize.arrays import np
from pyprof.symbolize.unwind_blocks import (
    BLOCK,
    BLOCK_BYTES,
    CHUNK_ROWS,
    PAD,
    Blocks,
    are_well_formed,
    blocks,
)

RULES = 200


def blocks_of(rows: list[tuple[int, int]]) -> Blocks:
    return blocks(np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows], np.int64))


def rule_at(table: Blocks, file_offset: int) -> int:
    """Return the rule for a byte as the walker finds it."""
    block = table.blocks[(file_offset // BLOCK_BYTES) - table.first_block]
    rows = table.rows[int(block["first"]) :][: int(block["count"])].tolist()
    place = bisect_right([row & 0xFFFF for row in rows], file_offset % BLOCK_BYTES)
    return rows[place - 1] >> 16 if place else int(block["rule"])


def test_a_row_at_the_first_byte_of_a_block_is_the_blocks_rule() -> None:
    table = blocks_of([(0x400, 3), (0x410, 5), (0xC00, 7), (0x1000, 0)])
    assert table.first_block == 1
    assert table.blocks.tolist() == [(0, 1, 3), (0, 0, 5), (0, 0, 7), (0, 0, 0)]
    assert table.rows.tolist() == [0x10 | 5 << 16] + [PAD] * 1023


def test_before_the_first_row_there_is_no_rule() -> None:
    assert blocks_of([(0x7FF, 3), (0x800, 0)]).blocks.tolist() == [(0, 1, 0), (0, 0, 0)]


def test_rows_of_a_block_are_in_one_chunk() -> None:
    rows = [(place, 1 + place % 7) for place in range(0x400, 0x400 + 4000)]
    table = blocks_of([*rows, (0x2000, 0)])
    assert [tuple(block)[:2] for block in table.blocks.tolist()][:4] == [
        (0, 1023),
        (1024, 1023),
        (2048, 1023),
        (3072, 927),
    ]
    assert table.rows[1023] == PAD
    assert len(table.rows) == 4096


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.integers(0, 30_000), st.integers(1, RULES - 1), min_size=1, max_size=400),
    st.integers(0, 1 << 31),
    st.booleans(),
)
def test_every_byte_has_the_rule_of_the_last_row_before_it(
    changes: dict[int, int], base: int, is_dense: bool
) -> None:
    dense = {start: 1 + start % 5 for start in range(100, 9000)} if is_dense else {}
    rows = dict(sorted((dense | changes).items())) | {30_001: 0}
    table = blocks_of([(base + start, rule) for start, rule in rows.items()])
    assert are_well_formed(table.blocks, table.rows, RULES)
    starts = list(rows)
    for place in [*starts[::31], *range(99, 30_000, 1023)]:
        if (base + place) // BLOCK_BYTES >= table.first_block:
            before = bisect_right(starts, place)
            assert rule_at(table, base + place) == (rows[starts[before - 1]] if before else 0)


GOOD = blocks_of([(place, 1 + place % 7) for place in range(0x400, 0x400 + 3000, 2)] + [(0x2000, 0)])


@pytest.mark.parametrize(
    ("field", "index", "value"),
    [
        ("first", 0, 1),
        ("first", 1, 1 << 31),
        ("first", 1, 0),
        ("first", 2, 1000),
        ("count", 0, 0),
        ("count", 0, 512),
        ("count", 1, 510),
        ("count", 0, 0xFFFF),
        ("rule", 1, RULES),
    ],
)
def test_a_block_out_of_bounds_is_not_well_formed(field: str, index: int, value: int) -> None:
    changed = GOOD.blocks.copy()
    changed[field][index] = value
    assert are_well_formed(GOOD.blocks, GOOD.rows, RULES)
    assert not are_well_formed(changed, GOOD.rows, RULES)


@pytest.mark.parametrize(
    ("index", "value"),
    [(0, PAD), (0, 1 << 16 | 5), (1, 1 << 16 | 0x400), (1, 1 << 16 | 2), (1, RULES << 16 | 4), (-1, 0)],
)
def test_a_row_out_of_bounds_is_not_well_formed(index: int, value: int) -> None:
    changed = GOOD.rows.copy()
    changed[index] = value
    assert not are_well_formed(GOOD.blocks, changed, RULES)


def test_rows_are_whole_chunks_and_there_is_a_block() -> None:
    assert not are_well_formed(GOOD.blocks, GOOD.rows[:-1], RULES)
    assert not are_well_formed(GOOD.blocks, GOOD.rows[:CHUNK_ROWS], RULES)
    assert not are_well_formed(np.empty(0, BLOCK), GOOD.rows[:0], RULES)
