"""Unwind tables of real files, compared row by row with what readelf prints."""

import mmap
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from readelf_frames import Row, readelf_rows

from pyprof.symbolize.layout import PF_X, PT_LOAD, elf_layout
from pyprof.symbolize.unwind_rule import RBX_SAME, RBX_UNKNOWN, Cfa, Rbp, Rule
from pyprof.symbolize.unwind_table import UnwindTable, lookup, unwind_table

NAMED = (
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
    "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
    "/usr/lib/x86_64-linux-gnu/libtsan.so.2",
    "/usr/bin/python3.11",
    "/usr/bin/perl",
    "/usr/bin/bash",
    "/usr/bin/xz",
    "/usr/bin/sort",
    "/usr/bin/git",
    "/usr/bin/openssl",
)
REGISTERS = ["rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16))]
SPECIAL = {Cfa.PLT, Cfa.RSP_DEREF, Cfa.RBP_DEREF, Cfa.UNSUPPORTED}
WITHOUT_CALLER = {Cfa.NONE, Cfa.BOTTOM, Cfa.SIGNAL, Cfa.UNSUPPORTED}  # in the terms of rbp and rbx
GAP = Rule(Cfa.NONE)


def table_at(path: Path) -> UnwindTable:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as image:
        return unwind_table(image, elf_layout(image))


def real_files() -> Iterator[Path]:
    """Yield files of this machine: those named, a libpython, and some of 30 to 300 kB, always the same."""
    libpythons = sorted(Path("~").expanduser().glob(".pyenv/versions/*/lib/libpython3.*.so.1.0"))
    yield from (path for path in [*map(Path, NAMED), *libpythons[:1]] if path.exists())
    small = [path for path in sorted(Path("/usr/bin").iterdir()) if path.is_file() and not path.is_symlink()]
    small = [path for path in small if 30_000 < path.stat().st_size < 300_000]
    small = [path for path in small if is_elf(path)]
    yield from small[:: max(1, len(small) // 24)]


def is_elf(path: Path) -> bool:
    """Return whether a file is an ELF file of x86-64."""
    with open(path, "rb") as file:
        start = file.read(20)
    return start[:5] == b"\x7fELF\2" and start[18:] == b"\x3e\0"


def agrees(row: Row, rule: Rule) -> bool:
    """Return whether a rule says what readelf does: the same, or where that is not expressible nothing.

    But for rbx.
    """
    rule = rule._replace(rbx=RBX_UNKNOWN)
    if row.ra == "u":
        return rule in (Rule(Cfa.BOTTOM), Rule(Cfa.UNSUPPORTED))
    if row.is_signal and row.ra == row.rbp == row.cfa == "exp":
        return rule in (Rule(Cfa.SIGNAL), Rule(Cfa.UNSUPPORTED))
    if row.ra != "c-8" or row.rsp != "u" or row.is_signal:
        return rule == Rule(Cfa.UNSUPPORTED)
    plain = re.fullmatch(r"(\w+)([+-]\d+)", row.cfa)
    if plain is None:
        return rule.cfa in SPECIAL and (rule == Rule(Cfa.UNSUPPORTED) or rbp_agrees(row.rbp, rule))
    number = REGISTERS.index(plain[1])
    cfa = {6: Cfa.RBP, 7: Cfa.RSP}.get(number, Cfa.REGISTER)
    expected = Rule(cfa, rule.rbp, number if cfa == Cfa.REGISTER else 0, rule.rbp_offset, int(plain[2]))
    return rule == expected and rbp_agrees(row.rbp, rule)


def rbp_agrees(cell: str, rule: Rule) -> bool:
    if cell[0] == "c":
        return rule.rbp == Rbp.AT_CFA and rule.rbp_offset == int(cell[1:])
    if cell == "exp":
        return rule.rbp in (Rbp.AT_RBP, Rbp.UNSUPPORTED)
    kinds = {"u": (Rbp.SAME, Rbp.UNDEFINED), "s": (Rbp.SAME,)}.get(cell, (Rbp.UNSUPPORTED,))
    return rule.rbp in kinds and rule.rbp_offset == 0


def rbx_agrees(cell: str, rule: Rule) -> bool:
    """Return whether a rule of a table that tells about rbx says what readelf does."""
    if rule.cfa in WITHOUT_CALLER:
        return rule.rbx == RBX_UNKNOWN
    if cell[0] == "c":
        return rule.rbx == int(cell[1:])
    return rule.rbx in {"u": (RBX_SAME, RBX_UNKNOWN), "s": (RBX_SAME,)}.get(cell, (RBX_UNKNOWN,))


def is_relative_to_rbx(row: Row) -> bool:
    """Return whether a row has a CFA for which a table tells about rbx."""
    return row.cfa.startswith("rbx") and row.ra == "c-8" and row.rsp == "u" and not row.is_signal


def check_file(path: Path) -> int:
    """Compare a file's table with readelf at both ends of each row and gap, and return its number of rows."""
    table = table_at(path)
    layout = elf_layout(path.read_bytes())
    segments = [s for s in layout.segments if s.kind == PT_LOAD and s.flags & PF_X]
    rows = sorted(readelf_rows(path))
    tells_rbx = any(map(is_relative_to_rbx, rows))
    assert tells_rbx or not any(rbx for (rbx,) in struct.iter_unpack("<6xh8x", table.rules))
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        segment = next(s for s in segments if 0 <= row.start - s.virtual_offset < s.size_bytes)
        distance = segment.file_offset - segment.virtual_offset
        for place in {row.start, row.limit - 1}:
            rule = lookup(table, place + distance)
            assert agrees(row, rule), (path, row, rule)
            assert not tells_rbx or rbx_agrees(row.rbx, rule), (path, row, rule)
        gap_limit = following.start if following else row.limit + 1
        if row.limit < gap_limit:
            assert lookup(table, row.limit + distance) == GAP, (path, row)
            if gap_limit <= segment.virtual_offset + segment.size_bytes:
                assert lookup(table, gap_limit - 1 + distance) == GAP, (path, row)
    return len(rows)


def test_every_row_of_real_files_is_what_readelf_says() -> None:
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    counts = {path: check_file(path) for path in real_files()}
    assert len(counts) >= 25
    assert sum(counts.values()) > 100_000


@pytest.mark.parametrize("path", [NAMED[1], NAMED[4]])
def test_tables_of_files_with_a_cfa_in_rbx_tell_where_rbx_is(path: str) -> None:
    if not Path(path).exists():
        pytest.skip(f"no {path}")
    rules = list(struct.iter_unpack("<BxBx2xh8x", table_at(Path(path)).rules))
    assert {(cfa, reg) for cfa, reg, _ in rules} >= {(Cfa.REGISTER, 3)}
    assert {rbx for _, _, rbx in rules} >= {RBX_UNKNOWN, RBX_SAME, -16}


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        (NAMED[0], {Cfa.RSP, Cfa.RBP, Cfa.PLT, Cfa.BOTTOM, Cfa.SIGNAL, Cfa.UNSUPPORTED}),
        (NAMED[3], {Cfa.RSP, Cfa.RBP, Cfa.PLT, Cfa.RSP_DEREF, Cfa.REGISTER}),
    ],
)
def test_real_files_have_each_kind_of_rule(path: str, kinds: set[Cfa]) -> None:
    if not Path(path).exists():
        pytest.skip(f"no {path}")
    rules = struct.iter_unpack("<B15x", table_at(Path(path)).rules)
    assert kinds <= {kind for (kind,) in rules}
