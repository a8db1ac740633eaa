"""Unwind tables of files that mean harm: a table or an error of ours, in bounded time."""

import random
import time
from pathlib import Path

import pytest
from elfwriter import TEXT_OFFSET, Extra, elf
from framewriter import (
    FRAME_START,
    NOP,
    REMEMBER,
    RESTORE_STATE,
    Cie,
    Fde,
    advance,
    def_cfa,
    def_cfa_expression,
    def_cfa_offset,
    expression,
    frames,
    offset,
    table_of,
    uleb,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.frame_section import frame_section
from pyprof.symbolize.layout import elf_layout
from pyprof.symbolize.unwind_rule import Cfa
from pyprof.symbolize.unwind_table import lookup, parsed, serialised, unwind_table

DIGEST = bytes(range(16))
SECONDS = 20  # for what takes less than 2 on an idle machine


def _timed(image: bytes) -> None:
    """Build a table, or fail with an error of ours, in bounded time."""
    start = time.monotonic()
    try:
        layout = elf_layout(image)
        table = unwind_table(image, layout)
        section = frame_section(image, layout)
        assert section is not None
        assert parsed(serialised(table, DIGEST), DIGEST) == table
    except SymbolizeError:
        pass
    assert time.monotonic() - start < SECONDS


SEED = 20_240_117
STEPS = (advance(1) + def_cfa_offset(16) + advance(1) + def_cfa_offset(24)) * 5000
FAR = b"\x04\xff\xff\xff\xff" * 12_000  # advance_loc4
NESTED = (REMEMBER + def_cfa_offset(16)) * 15_000 + RESTORE_STATE * 15_000
CHAINED = (REMEMBER + def_cfa_offset(16) + RESTORE_STATE) * 15_000
DIFFERENT = b"".join(def_cfa_expression(b"\x77" + uleb(1 << 20 | n) + b"\6") for n in range(430_000))
IN_RBX = [Cie(), Fde(2048, 8, def_cfa(3, 8))]  # all is looked at twice
RBX_STEPS = b"".join(advance(1) + offset(3, 2 + index % 4000) for index in range(12_000))
HOSTILE: dict[str, list[Cie | Fde | bytes]] = {
    "advances only": [Cie(), *[Fde(0, 1 << 20, advance(1) * 60_000)] * 60],
    "long programs": [Cie(), *(Fde(index, 1 << 20, STEPS) for index in range(100))],
    "one program of 4 MB": [Cie(), Fde(0, 1 << 20, advance(1) * 4_000_000)],
    "100,000 functions": [Cie(), *(Fde(n, 1, advance(1) + def_cfa_offset(n)) for n in range(4000))] * 25,
    "states in states": [Cie(), *[Fde(0, 8, NESTED)] * 60],
    "states after states": [Cie(), *[Fde(0, 8, CHAINED)] * 60],
    "unmatched states": [Cie(), *[Fde(0, 8, REMEMBER * 60_000), Fde(0, 8, RESTORE_STATE * 60_000)] * 40],
    "expressions": [Cie(), *[Fde(0, 8, def_cfa_expression(b"\x77\0\6") * 12_000)] * 60],
    "saved by expressions": [*IN_RBX, *[Fde(0, 8, expression(3, b"\x76\0") * 12_000)] * 60],
    "rbx": [*IN_RBX, *(Fde(index, 1 << 20, RBX_STEPS) for index in range(100))],
    "states in states with rbx": [*IN_RBX, *[Fde(0, 8, NESTED)] * 60],
    "different expressions": [
        Cie(),
        *[Fde(0, 8, DIFFERENT[n : n + 60_000]) for n in range(0, 3_000_000, 60_000)],
    ],
    "endless numbers": [Cie(), *[Fde(0, 8, b"\x0e" + b"\x80" * 60_000)] * 60],
    "far advances": [Cie(data_alignment=-4096, code_alignment=4096), *[Fde(0, 8, FAR)] * 60],
    "many CIEs": [item for n in range(60_000) for item in (Cie(def_cfa_offset(n)), Fde(0, 8))],
    "a long CIE": [Cie(NOP * 3_000_000), Fde(0, 8)],
    "a long expression": [Cie(def_cfa_expression(b"\x96" * 1_000_000)), Fde(0, 8)],
    "a long augmentation": [Cie(data=b"\x1b" + b"\x80" * 1_000_000), Fde(0, 8)],
    "records of length 0": [Cie(), Fde(0, 8), bytes(16 << 20)],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_bounded(name: str) -> None:
    data = frames(HOSTILE[name])
    _timed(elf(extra=[Extra(".eh_frame", data, FRAME_START)]))


def test_mutated_frames_of_a_real_file_give_a_table_or_an_error_of_ours() -> None:
    path = Path("/usr/bin/xz")
    if not path.exists():
        pytest.skip(f"no {path}")
    image = path.read_bytes()
    section = frame_section(image, elf_layout(image))
    assert section is not None
    generator = random.Random(SEED)  # noqa: S311
    for _ in range(500):
        mutated = bytearray(image)
        for _ in range(generator.choice((1, 3, 30, 300))):
            place = section.file_offset + generator.randrange(section.size_bytes)
            mutated[place] = generator.choice((0, 0xFF, 0x80, 0x7F, generator.randrange(256)))
        _timed(bytes(mutated))


INSTRUCTIONS = st.lists(st.integers(0, 255), max_size=40).map(bytes)


@settings(max_examples=300, deadline=None)
@given(INSTRUCTIONS, st.lists(INSTRUCTIONS, min_size=1, max_size=5), st.sampled_from([b"zR", b"zRS"]))
def test_any_program_gives_a_table(cie: bytes, programs: list[bytes], augmentation: bytes) -> None:
    records = [Fde(0x100 * index, 0x100, program) for index, program in enumerate(programs)]
    table = table_of(Cie(cie, augmentation), *records)
    assert parsed(serialised(table, DIGEST), DIGEST) == table
    for place in (-1, *range(0, 0x100 * len(programs), 0x80), 0x100 * len(programs)):
        is_code = 0 <= place < 0x100 * len(programs)
        assert is_code == (lookup(table, TEXT_OFFSET + place).cfa != Cfa.NONE)
